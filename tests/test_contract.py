"""Every controller and every inversion of `conf/` does its work on the embedded model."""

from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import compose, group_options
from p2p_bench.bench.task import Task
from p2p_bench.metrics.pixel import psnr
from p2p_bench.world.scenes import caption, render, sample_scene

STEPS = 5
SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
NEEDED = {
    "local_blend": ["controller.words=[circle]"],
    "reweight": ["controller.weights={blue: 3.0}"],
}
"""What an option leaves for the user to say."""


def built(*overrides: str) -> Task:
    config = compose([*overrides, "dataset.limit=1", "logger=none"], keep_hydra=True)
    return build(without_hydra(config), chosen_options(config.hydra)).task


@pytest.fixture(scope="module")
def plain(world: Any) -> p2p.EditResult:
    return p2p.edit(world, SOURCE, TARGET, seed=3, steps=STEPS)


@pytest.mark.parametrize("option", group_options("controller"))
def test_controllers_leave_the_source_alone_and_change_the_target(
    world: Any, plain: p2p.EditResult, option: str
) -> None:
    controller = built(f"controller={option}", *NEEDED.get(option, [])).variants[0].controller
    result = p2p.edit(world, SOURCE, TARGET, controller=controller, seed=3, steps=STEPS)
    torch.testing.assert_close(result.latents[0], plain.latents[0], atol=1e-4, rtol=0)
    change = (result.latents[1] - plain.latents[1]).abs().mean().item()
    if option == "none":
        assert change < 1e-4
    else:
        assert change > 1e-2


@pytest.mark.parametrize("option", group_options("inversion"))
@pytest.mark.parametrize("controller", [p2p.NoControl(), p2p.Replace(cross=0.8, self_attn=0.4)])
def test_inversions_serve_every_controller(world: Any, option: str, controller: p2p.Controller) -> None:
    scene = sample_scene(123_456)
    image = render([scene]).images[0]
    inversion = built(f"inversion={option}").inversion
    result = p2p.edit(
        world, caption(scene), caption(scene), controller=controller, image=image, inversion=inversion,
        steps=STEPS, guidance=1.0,
    )  # fmt: skip
    assert result.latents.isfinite().all()
    found, bound = similarity(result.images[0], image), similarity(result.vae_reconstruction, image)
    from_noise = p2p.edit(world, caption(scene), caption(scene), steps=STEPS, guidance=1.0).images[0]
    if option == "none":
        assert found < bound - 6
    else:
        assert found > similarity(from_noise, image) + 3
    # The prompts are equal, so with and without control the edit is the source again.
    torch.testing.assert_close(result.latents[1], result.latents[0], atol=1e-3, rtol=0)


def similarity(image: Tensor | None, other: Tensor) -> float:
    assert image is not None
    return psnr(image[None], other[None]).item()
