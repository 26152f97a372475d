"""`p2p-bench doctor` and `p2p-bench train-world`."""

import json
import logging

import pytest

from p2p_bench.app.verbs import doctor
from p2p_bench.hashing import sha256_file
from tests.models.small_if import small_if
from tests.models.small_if_upscaler import small_upscaler


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder of weights with its manifest."""
    folder = tmp_path / "weights"
    (folder / "pipeline").mkdir(parents=True)
    (folder / "pipeline" / "model.safetensors").write_bytes(b"weights")
    (folder / "clip.safetensors").write_bytes(b"more weights")
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*.safetensors")}
    (folder / "MANIFEST.json").write_text(json.dumps({"files": files}))
    monkeypatch.setattr(doctor, "resource_path", lambda *parts: folder)
    return folder


def test_all_well(command, weights):
    outcome = command("doctor")
    assert outcome.code == 0
    assert outcome.out.count("good, ") == 2
    assert "torch" in outcome.out
    assert "sd14" in outcome.out
    text = " ".join(outcome.out.split())
    assert "needs model.path=..." in text
    assert "needs metrics.judge.checksum=..., metrics.judge.model=..., metrics.judge.url=..." in text


def test_a_model_with_an_upscaler_is_at_hand_with_it(tmp_path, monkeypatch):
    settings = f"_target_: p2p_bench.models.LocalCheckpoint\npath: {small_if().path}\nupscaler: "
    for name, upscaler in (("whole", small_upscaler()), ("half", tmp_path / "nowhere"), ("plain", "null")):
        path = tmp_path / "model" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{settings}{upscaler}\n")
    monkeypatch.setattr(doctor, "config_dir", lambda: tmp_path)
    monkeypatch.setattr(doctor, "group_options", lambda group: ["whole", "half", "plain"])
    whole, half, plain = doctor._models()
    assert whole[1].startswith("at hand: 32 x 32 pixels, enlarged from 16 by an upscaler, checksum")
    assert plain[1].startswith("at hand: 16 x 16 pixels, checksum")
    assert "absent: model 'local': model.upscaler: no directory" in half[1]
    assert [whole[2], half[2], plain[2]] == [True, False, True]


def test_absent_metric_weights_are_named_with_the_way_to_get_them(command, weights, monkeypatch):
    from p2p_bench.metrics import dino_backbone

    monkeypatch.setattr(dino_backbone, "try_to_load_from_cache", lambda repository, name: None)
    outcome = command("doctor")
    text = " ".join(outcome.out.split())
    assert outcome.code == 0
    assert "absent: DINO weights" in text
    assert "pie_table_stylediffusion: inversion" in text
    assert "facebook/dino-vitb8" in text
    assert "lpips" in text


def test_damaged_and_missing_weights(command, weights):
    (weights / "clip.safetensors").write_bytes(b"other")
    (weights / "pipeline" / "model.safetensors").unlink()
    outcome = command("doctor")
    assert outcome.code == 3
    assert "damaged: its checksum differs" in outcome.out
    assert "missing; install the package again" in outcome.out


def test_no_manifest(command, weights):
    (weights / "MANIFEST.json").unlink()
    outcome = command("doctor")
    assert outcome.code == 3
    assert "cannot be read" in outcome.out


def test_a_key_is_noticed_and_never_shown(command, weights, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789secret")
    outcome = command("doctor")
    assert "present" in outcome.out
    assert "secret" not in outcome.out + outcome.err
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(weights))
    monkeypatch.delenv("NETRC", raising=False)
    assert "absent: runs are logged offline" in command("doctor").out
    (weights / ".netrc").write_text("machine api.wandb.ai login user password 0123456789secret\n")
    (weights / ".netrc").chmod(0o600)
    outcome = command("doctor")
    assert "present" in outcome.out
    assert "secret" not in outcome.out + outcome.err


def test_training_runs_the_stages_asked_for(command):
    outcome = command(
        "train-world", "world=smoke", "world.stages=[tokenizer]", "world.tokenizer.captions=400"
    )
    assert outcome.code == 0, outcome.err
    assert "weights: outputs/world_smoke/weights" in outcome.out
    assert list(command.folder.glob("outputs/world_smoke/**/tokenizer*"))
    assert "tokenizer" in outcome.err  # its log
    assert logging.getLogger("p2p_bench").handlers == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("world=smke", "no option 'smke'. Did you mean 'smoke'?"),
        ("world.sed=3", "unknown key 'sed'. Did you mean 'seed'?"),
        ("world.seed=x", "world.seed: expected an integer, got 'x'"),
        ("world.stages=[tokeniser]", "Did you mean 'tokenizer'?"),
    ],
)
def test_training_refuses_bad_settings(command, override, message):
    outcome = command("train-world", override)
    assert outcome.code == 2
    assert message in outcome.err
