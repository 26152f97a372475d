"""`p2p-bench convert`: pickled weights as safetensors, tensors only."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import p2p_bench as p2p
from p2p_bench.app.verbs.convert import convert
from p2p_bench.errors import MissingWeightsError
from tests.app.command import Command
from tests.models.small import small_checkpoint
from tests.models.small_if_upscaler import cascade, small_upscaler

PICKLED = {"bert": "pytorch_model", "unet": "diffusion_pytorch_model", "vqvae": "diffusion_pytorch_model"}


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """Latent Diffusion as it is published."""
    folder = tmp_path / "pickled"
    shutil.copytree(small_checkpoint("ldm").path, folder)
    for part, stem in PICKLED.items():
        (file,) = (folder / part).glob("*.safetensors")
        torch.save(load_file(file), folder / part / f"{stem}.bin")
        file.unlink()
    return folder


def test_what_is_converted_is_the_same_model(command: Command, pickled: Path) -> None:
    refused = command(
        "edit", "--source", "a cat", "--target", "a dog", "model=local", f"model.path={pickled}"
    )
    assert refused.code == 3
    assert "p2p-bench convert" in refused.err
    done = command("convert", str(pickled), "whole")
    assert done.code == 0, done.err
    one, other = p2p.load_model(small_checkpoint("ldm").path), p2p.load_model(command.folder / "whole")
    edits = [p2p.edit(model, "a red cat", "a red dog", steps=2).latents for model in (one, other)]
    assert torch.equal(*edits)


def test_the_stage_of_a_cascade_that_enlarges_is_converted(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_upscaler(), tmp_path / "pickled"))
    (file,) = (folder / "unet").glob("*.safetensors")
    torch.save(state := load_file(file), file.with_suffix(".bin"))
    file.unlink()
    convert(folder, tmp_path / "whole")
    stages = [cascade(one).load().upscaler for one in (small_upscaler(), tmp_path / "whole")]
    plain, made = (stage.unet.state_dict() for stage in stages if stage is not None)
    assert plain.keys() == made.keys()
    assert all(torch.equal(one, made[key]) for key, one in plain.items())
    torch.save({key: one for key, one in state.items() if key != "conv_in.weight"}, file.with_suffix(".bin"))
    with pytest.raises(MissingWeightsError, match=r"missing: conv_in\.weight"):
        convert(folder, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_a_file_that_would_run_code_is_refused_and_leaves_nothing(command: Command, pickled: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(pickled / "ran"),)

    torch.save({"weight": Bomb()}, pickled / "unet" / "diffusion_pytorch_model.bin")
    done = command("convert", str(pickled), "whole")
    assert done.code == 3
    assert "holds more than tensors" in done.err
    assert not (pickled / "ran").exists()
    assert not (command.folder / "whole").exists()


def test_tensors_that_are_missing_are_named(command: Command, pickled: Path) -> None:
    file = pickled / "unet" / "diffusion_pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    del tensors["conv_in.weight"]
    torch.save(tensors, file)
    done = command("convert", str(pickled), "whole")
    assert done.code == 3
    assert "conv_in.weight" in done.err
    assert command("convert", str(pickled), str(pickled)).code == 2


def test_other_weights_beside_are_left(tmp_path: Path, pickled: Path) -> None:
    """Repositories hold half precision and weights without averaging in the same folder."""
    unet, stem = pickled / "unet", PICKLED["unet"]
    own = torch.load(unet / f"{stem}.bin", weights_only=True)
    torch.save({key: 2 * one for key, one in own.items()}, unet / f"{stem}.non_ema.bin")
    torch.save({key: one.half() for key, one in own.items()}, unet / f"{stem}.fp16.bin")
    convert(pickled, tmp_path / "whole")
    made = load_file(tmp_path / "whole" / "unet" / f"{stem}.safetensors")
    assert all(torch.equal(made[key], one) for key, one in own.items())
    keys = sorted(own)
    for place, part in enumerate((keys[::2], keys[1::2]), 1):
        torch.save({key: own[key] for key in part}, unet / f"{stem}-0000{place}-of-00002.bin")
    (unet / f"{stem}.bin").unlink()
    convert(pickled, tmp_path / "shards")
    assert load_file(tmp_path / "shards" / "unet" / f"{stem}.safetensors").keys() == own.keys()
    for shard in unet.glob("*-of-*"):
        shard.unlink()
    with pytest.raises(MissingWeightsError, match=r"only .*fp16\.bin, .*non_ema\.bin, which may be other"):
        convert(pickled, tmp_path / "none")


def test_safetensors_in_shards_are_kept(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = Path(shutil.copytree(small_checkpoint("ldm").path, tmp_path / "shards"))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / "unet" / f"{PICKLED['unet']}.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="30KB")
    convert(folder, tmp_path / "made")
    assert p2p.load_model(tmp_path / "made").spec.checksum == p2p.load_model(folder).spec.checksum
