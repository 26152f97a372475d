"""Images of other sizes than a checkpoint's own, also of unequal sides."""

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.models import LocalCheckpoint
from p2p_bench.models.sdxl import SIZES
from p2p_bench.sampling import initial_noise
from tests.examples import SOURCE, TARGET
from tests.models.small import small_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
"""diffusers' schedulers with NumPy 2."""

STEPS = 3


@pytest.mark.parametrize(
    ("family", "kind", "size"),
    [
        ("sd2", StableDiffusionPipeline, (24, 16)),
        ("sdxl", StableDiffusionXLPipeline, (16, 24)),
    ],
)
def test_a_plain_run_equals_the_pipeline(family: str, kind: Any, size: tuple[int, int]) -> None:
    checkpoint = small_checkpoint(family)
    pipeline = kind.from_pretrained(checkpoint.path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    height, width = size
    noise = initial_noise(5, (4, height // 2, width // 2))
    expected = pipeline(
        [SOURCE, TARGET], height=height, width=width, num_inference_steps=STEPS, guidance_scale=3.0,
        latents=torch.stack([noise, noise]), output_type="pt", **({"eta": 0.0} if family == "sd2" else {}),
    ).images  # fmt: skip
    model = dataclasses.replace(checkpoint, size=size).load()
    sampler = "euler" if family == "sdxl" else "ddim"
    result = p2p.edit(model, SOURCE, TARGET, seed=5, steps=STEPS, guidance=3.0, sampler=sampler)
    assert result.images.shape == (2, 3, *size)
    assert float((result.images - expected).abs().max()) <= 1e-5
    if family == "sdxl":
        assert model.unconditional()[SIZES].tolist() == [[height, width, 0, 0, height, width]]


@pytest.mark.parametrize(("size", "half"), [([24, 16], (6, 4)), ([18, 28], (5, 7))])
def test_edits_of_unequal_sides(size: list[int], half: tuple[int, int]) -> None:
    model = dataclasses.replace(small_checkpoint("sd2"), size=size).load(dtype=torch.float64)
    assert model.spec.latent_size == (size[0] // 2, size[1] // 2)
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    edits = [
        p2p.Replace(1.0, 0.0), p2p.Replace(1.0, 1.0), p2p.MasaCtrl(),
        p2p.LocalBlend(p2p.Replace(0.8), words=("circle",), target_words=("circle",), start=0.0),
    ]  # fmt: skip
    result = p2p.edit(model, SOURCE, [TARGET] * 4, edits, image=image, inversion="direct", steps=STEPS)
    assert bool(result.latents.isfinite().all())
    assert len({tuple(one.flatten()[:8].tolist()) for one in result.latents}) == 5
    assert result.heatmap("circle").shape[-2:] == half
    injected = p2p.edit(model, SOURCE, SOURCE, p2p.Replace(1.0, 1.0), steps=STEPS)
    assert float((injected.latents[0] - injected.latents[1]).abs().max()) <= 1e-10


def test_one_number_is_both_sides_and_what_does_not_divide_is_refused() -> None:
    checkpoint = small_checkpoint("sd2")
    assert dataclasses.replace(checkpoint, size=20).spec().image_size == (20, 20)
    assert LocalCheckpoint(checkpoint.path, size=(20, 24)).spec().image_size == (20, 24)
    with pytest.raises(ConfigError, match=r"multiples of 2 pixels.*got 21 and 16.*\[20,16\]"):
        dataclasses.replace(checkpoint, size=(21, 16)).spec()
    with pytest.raises(ConfigError, match="expected a height and a width"):
        dataclasses.replace(checkpoint, size=[20, 16, 8]).spec()


def test_ways_to_save_memory_leave_the_pictures() -> None:
    """But for rounding; tiles of an image that is no larger than one, too."""
    checkpoint = small_checkpoint("sd2")
    plain = checkpoint.load()
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents, edited = plain.encode_images(image), p2p.edit(plain, SOURCE, TARGET, steps=STEPS, seed=1)
    for changes in ({"vae": "sliced"}, {"vae": "tiled"}, {"channels_last": True}):
        model = dataclasses.replace(checkpoint, **changes).load()
        torch.testing.assert_close(model.encode_images(image), latents, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            p2p.edit(model, SOURCE, TARGET, steps=STEPS, seed=1).images, edited.images, atol=1e-4, rtol=0
        )
        assert (model.spec.checksum == plain.spec.checksum) == (changes.get("vae") != "tiled")
    large = torch.rand(1, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    tiled = dataclasses.replace(checkpoint, vae="tiled", size=[48, 32]).load().encode_images(large)
    assert tiled.shape[-2:] == (24, 16)
    assert float((tiled - plain.encode_images(large)).abs().max()) > 1e-6, "seams are blended, so it is said"
