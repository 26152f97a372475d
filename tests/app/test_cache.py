from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from p2p_bench.bench.pictures import save_png
from p2p_bench.cache import Cache, default_directory
from p2p_bench.models import UNetCheckpoint
from tests.app.command import Command
from tests.models.tiny import tiny_checkpoint

PAIR = {"id": "real", "source": "a red circle", "target": "a blue circle", "image": "real.png"}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    save_png(tmp_path / "real.png", torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0)))
    return tmp_path / "real.png"


def costs(directory: str) -> tuple[float, float, str]:
    (row,) = pq.read_table(Path(directory) / "results.parquet").to_pylist()
    assert row["status"] == "ok"
    return row["unet_rows"], row["unet_rows_spent"], row["inversion_from"]


def test_a_second_run_does_not_invert_again(command: Command, picture: Path) -> None:
    def ran(name: str, *overrides: str) -> tuple[float, float, str]:
        outcome = command.bench("inversion=ddim", f"run.dir={name}", "logger=none", *overrides, pairs=[PAIR])
        assert outcome.code == 0, outcome.err
        return costs(name)

    assert ran("first") == (10, 10, "network")
    (entry,) = Cache(default_directory()).entries()
    # Neither the controller nor its schedule is part of the key.
    assert ran("second", "controller=replace", "tau.cross=0.3") == (10, 8, "cache")
    assert ran("third", "run.cache=false") == (10, 10, "network")
    assert ran("fourth", "run.cache=elsewhere") == (10, 10, "network")
    assert len(Cache(Path("elsewhere")).entries()) == 1
    # A run may be finished with another cache: that decides no number.
    outcome = command.bench("inversion=ddim", "run.dir=first", "logger=none", "run.cache=false", pairs=[PAIR])
    assert outcome.code == 0
    assert "1 of 1 edits are there already" in outcome.err
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    outcome = command.bench("inversion=ddim", "run.dir=fifth", "logger=none", pairs=[PAIR])
    assert f"warning: cache: {entry.path.name} is damaged" in outcome.err
    assert costs("fifth") == (10, 10, "network")


def test_edit_keeps_inversions_and_fits_images(command: Command, picture: Path) -> None:
    def edited(*arguments: str) -> str:
        outcome = command(
            "edit", "--source", "a red circle", "--target", "a blue circle", "--image", str(picture),
            "model=local", f"model.path={tiny_checkpoint().path}", "model.record_fraction=0.5",
            "sampler.steps=2", "trainer.accelerator=cpu", *arguments,
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        return outcome.out

    assert "10 UNet rows\n" in edited()
    assert "10 UNet rows, 2 of them saved" in edited()
    assert "10 UNet rows\n" in edited("--fit", "pad")
    assert len(Cache(default_directory()).entries()) == 2
    outcome = command(
        "edit", "--source", "a cat", "--target", "a dog", "--image", str(picture), "--fit", "error"
    )
    assert outcome.code == 2
    assert "24 x 16 pixels" in outcome.err


def test_list_verify_clear(command: Command, picture: Path) -> None:
    assert "0 entries" in command("cache", "list").out
    assert command("cache", "verify").code == 0
    command.bench("inversion=ddim", "run.dir=a", "run.cache=kept", "logger=none", pairs=[PAIR])
    command.bench("inversion=direct", "run.dir=b", "run.cache=kept", "logger=none", pairs=[PAIR])
    listed = command("cache", "list", "--dir", "kept").out
    for said in ("DDIMInversion", "DirectInversion", "local", "a red circle", "2 entries"):
        assert said in listed
    outcome = command("cache", "verify", "--dir", "kept")
    assert (outcome.code, "2 of 2 entries" in outcome.out) == (0, True)
    first, _ = Cache(Path("kept")).entries()
    first.path.write_bytes(b"")
    outcome = command("cache", "verify", "--dir", "kept")
    assert outcome.code == 1
    assert f"{first.path.name} is damaged" in outcome.out
    assert "1 of 2 entries" in outcome.out
    assert "damaged" in command("cache", "list", "--dir", "kept").out
    assert "removed 2 entries" in command("cache", "clear", "--dir", "kept").out
    assert Cache(Path("kept")).entries() == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.cache=3", "run.cache: expected true, false, a URL or a directory that may be written, got 3"),
        ("run.cache_gb=0", "run.cache_gb: expected a finite number above 0, got 0"),
        ("run.cache_gb=big", "run.cache_gb"),
    ],
)
def test_bad_settings(command: Command, override: str, said: str) -> None:
    outcome = command.bench(override)
    assert outcome.code == 2
    assert said in outcome.err
    assert not command.ran


def test_a_method_that_cannot_serve_the_model_stops_the_run(
    command: Command, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = UNetCheckpoint.spec
    less = frozenset({"cross", "unconditional"})
    monkeypatch.setattr(
        UNetCheckpoint, "spec", lambda checkpoint: replace(whole(checkpoint), capabilities=less)
    )
    outcome = command.bench("inversion=ddim", "logger=none", pairs=[PAIR])
    assert outcome.code == 2
    assert "DDIMInversion needs noise levels that a deterministic step can be taken along" in outcome.err
    assert not command.ran
    # Where nothing is inverted the method does not matter.
    generated = {key: PAIR[key] for key in ("id", "source", "target")}
    assert command.bench("inversion=ddim", "logger=none", pairs=[generated]).code == 0


def test_usage(command: Command) -> None:
    assert command("cache").code == 2
    assert command("cache", "polish").code == 2
    assert "cache list|verify|clear" in command("--help").out
