"""InstructPix2Pix: its checkpoint by its files, and what it is told."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.models import UNetCheckpoint
from p2p_bench.models.conditioning import IMAGE
from tests.examples import SOURCE, TARGET
from tests.models.small_ip2p import small_ip2p
from tests.models.tiny import tiny_checkpoint, tiny_model


def changed(folder: Path, file: str, values: Mapping[str, Any], source: Path | None = None) -> Path:
    """A copy of the checkpoint whose file says something else; None leaves a key out."""
    shutil.copytree(source or Path(small_ip2p().path), folder)
    config = {**json.loads((folder / file).read_text()), **values}
    (folder / file).write_text(json.dumps({key: one for key, one in config.items() if one is not None}))
    return folder


def test_what_is_read_before_weights() -> None:
    spec = small_ip2p().spec()
    assert (spec.family, spec.image_size, spec.latent_channels) == ("ip2p", (16, 16), 4)
    assert spec.capabilities == {"instruction"}
    assert p2p.LocalCheckpoint(small_ip2p().path).spec().family == "ip2p"
    assert small_ip2p().load().network.config.in_channels == 8


def test_the_image_is_the_mean_of_the_vae_unscaled() -> None:
    model = small_ip2p().load(dtype=torch.float64)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    mean = model.vae.encode(2 * images.double() - 1).latent_dist.mode()
    torch.testing.assert_close(model.shown(images)[IMAGE], mean, atol=1e-12, rtol=0)
    assert model.spec.vae_scaling != 1


def test_the_network_sees_the_image_behind_the_latents() -> None:
    model = small_ip2p().load(dtype=torch.float64)
    seen: list[torch.Tensor] = []
    handle = model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    latents, image = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    text, level = model.unconditional(), model.ladder(4)[0]
    model.predict(latents, level, {**text, IMAGE: image})
    model.predict(latents, level, text)
    handle.remove()
    assert torch.equal(seen[0], torch.cat([latents, image], 1))
    assert torch.equal(seen[1], torch.cat([latents, torch.zeros_like(image)], 1))


def test_a_spacing_that_no_file_says_is_that_of_the_sampler(tmp_path: Path) -> None:
    """As published: the file was written before spacings had names."""
    folder = changed(tmp_path / "old", "scheduler/scheduler_config.json", {"timestep_spacing": None})
    timesteps = UNetCheckpoint(folder).spec().timesteps
    assert (timesteps.laid_out("euler").spaced, timesteps.laid_out("ddim").spaced) == ("linspace", "leading")


@pytest.mark.parametrize(
    ("source", "pipeline", "words"),
    [
        ("ip2p", "StableDiffusionPipeline", "takes 8 channels and returns 4; inpainting"),
        ("sd", "StableDiffusionInstructPix2PixPipeline", "takes 4 channels and returns 4; that of Instruct"),
    ],
)
def test_a_pipeline_that_its_network_does_not_fit_is_refused(
    tmp_path: Path, source: str, pipeline: str, words: str
) -> None:
    path = Path({"ip2p": small_ip2p, "sd": tiny_checkpoint}[source]().path)
    folder = changed(tmp_path / "copy", "model_index.json", {"_class_name": pipeline}, path)
    with pytest.raises(ConfigError, match=words):
        UNetCheckpoint(folder).spec()


def test_prompts_alone_are_refused() -> None:
    with pytest.raises(p2p.P2PError, match=r"edits an image by an instruction.*editor=instruct"):
        p2p.edit(small_ip2p().load(), SOURCE, TARGET, steps=2)


def test_other_families_are_shown_no_image() -> None:
    with pytest.raises(ConfigError, match="reads a prompt and no image"):
        tiny_model().shown(torch.rand(1, 3, 16, 16))
