"""`p2p-bench convert`: pickled weights as safetensors, tensors only."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import p2p_bench as p2p
from tests.app.command import Command
from tests.models.small import small_checkpoint

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
