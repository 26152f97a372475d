"""Every controller and every inversion of `conf/` does its work on the embedded model."""

from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import compose, group_options
from p2p_bench.bench.task import Task
from p2p_bench.controllers import EditContext
from p2p_bench.inversion.base import read_sources, unserved
from p2p_bench.inversion.recall import pack, replay_key, unpack
from p2p_bench.metrics.pixel import psnr
from p2p_bench.models import ModelSpec, world_checkpoint
from p2p_bench.world.scenes import Scene, render
from p2p_bench.world.scenes.attributes import SceneObject
from tests.examples import SOURCE, TARGET, example
from tests.models.tiny import tiny_model
from tests.models.tiny_clip import encoder
from tests.stubs.flow_family import FlowCheckpoint

STEPS = 4
EXACT = ("direct", "edict", "edit_friendly")
"""Inversions that rebuild the source but for rounding, whatever the guidance."""


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
    controller = built(f"controller={option}", *example("controller", option)).variants[0].controller
    result = p2p.edit(world, SOURCE, TARGET, controller=controller, seed=3, steps=STEPS)
    torch.testing.assert_close(result.latents[0], plain.latents[0], atol=1e-4, rtol=0)
    change = (result.latents[1] - plain.latents[1]).abs().mean().item()
    if option == "none":
        assert change < 1e-4
    else:
        assert change > 1e-2


@pytest.fixture(scope="module")
def controllers() -> dict[str, p2p.Controller]:
    """The controller of every option."""
    return {
        option: built(f"controller={option}", *example("controller", option)).variants[0].controller
        for option in group_options("controller")
    }


@pytest.fixture(scope="module")
def image() -> Tensor:
    """What `SOURCE` says, rendered."""
    circle = SceneObject("circle", "red", "plain", x=0.45, y=0.55, size=0.5, angle=0.0)
    return render([Scene((circle,), "grass")]).images[0]


def served(spec: ModelSpec) -> list[str]:
    """Inversions that serve a model; the others are refused, see `tests/inversion/test_flow.py`."""
    options = group_options("inversion")
    return [option for option in options if unserved(built(f"inversion={option}").inversion, spec) is None]


SERVED = served(world_checkpoint().spec())

FEWER = {"style_diffusion": ("inversion.inner_steps=12",), "renoise": ("inversion.iterations=10",)}
"""Settings with which a method that learns, or goes on until it is exact, takes seconds."""


def test_flow_methods_alone_do_not_serve_a_diffusion() -> None:
    flow = {"fireflow", "flowedit", "ode", "rf_inversion", "rf_solver", "uni_edit", "uni_inv"}
    unserved_ = set(group_options("inversion")) - set(SERVED)
    assert flow <= unserved_
    assert {one for one in unserved_ if "flow" not in built(f"inversion={one}").inversion.needs} == set()


@pytest.mark.parametrize("option", SERVED)
def test_every_inversion_serves_every_controller(
    world: Any, image: Tensor, controllers: dict[str, p2p.Controller], option: str
) -> None:
    inversion = built(f"inversion={option}", *FEWER.get(option, ())).inversion
    result = p2p.edit(
        world, SOURCE, [TARGET] * len(controllers), list(controllers.values()), image=image,
        inversion=inversion, steps=STEPS, seed=3, record=False,
    )  # fmt: skip
    edits = dict(zip(controllers, result.latents[1:], strict=True))
    from_noise = p2p.edit(world, SOURCE, TARGET, steps=STEPS, seed=3, record=False)
    if option == "none":
        torch.testing.assert_close(result.latents[0], from_noise.latents[0], atol=1e-3, rtol=0)
    elif option in EXACT:
        wanted = world.encode_images(image[None])[0]
        torch.testing.assert_close(result.latents[0], wanted, atol=1e-3, rtol=0)
    else:
        found = similarity(result.images[0], result.vae_reconstruction)
        assert found > similarity(from_noise.images[0], result.vae_reconstruction) + 3
    # The prompt is followed, and every controller changes how.
    assert (edits["none"] - result.latents[0]).abs().mean() > 0.02
    at_work = acting(world, controllers, STEPS - inversion.steps_taken(STEPS))
    for name, edit in edits.items():
        assert edit.isfinite().all(), name
        assert ((edit - edits["none"]).abs().mean() > 2e-4) == (name in at_work), name


def acting(world: Any, controllers: dict[str, p2p.Controller], first: int) -> set[str]:
    """Those that do anything from a step on: a method that starts late comes after what ends early."""
    context = EditContext(world.tokenize(SOURCE), world.tokenize(TARGET), STEPS, world.spec.self_fraction)
    idle = p2p.NoControl().bind(context)
    bound = {name: controller.bind(context) for name, controller in controllers.items()}
    return {
        name
        for name, one in bound.items()
        if any(one.signature(step) != idle.signature(step) for step in range(first, STEPS))
    }


@pytest.mark.parametrize("option", group_options("inversion"))
def test_every_inversion_can_be_kept_and_counts_its_rows(option: str) -> None:
    model: Any = tiny_model() if option in SERVED else FlowCheckpoint().load()
    steps = 3
    inversion = built(f"inversion={option}", *encoder(option, model.spec)).inversion.for_guidance(3.0)
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []
    ticks: list[int] = []
    handle = model.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    (replay,) = inversion.invert(
        model, read_sources(model, picture, [SOURCE], [0]), steps, tick=lambda: ticks.append(1)
    )
    handle.remove()
    assert replay.unet_rows == sum(sizes)
    assert replay.first_step == steps - inversion.steps_taken(steps)
    assert len(ticks) == steps
    kept = pack(replay)
    # What costs no row is not kept.
    assert replay.unet_rows == 0 or pack(unpack(kept, inversion, model.device)) == kept
    seeded = [read_sources(model, picture, [SOURCE], [seed]) for seed in (0, 1)]
    keys = [replay_key(inversion, model, sources, 0, steps) for sources in seeded]
    (other,) = inversion.invert(model, read_sources(model, picture, [SOURCE], [1]), steps)
    # A method that draws says so, and one that does not is found whatever the seed.
    assert (pack(other) != kept) == (keys[0] != keys[1]) == inversion.draws_noise


def similarity(image: Tensor | None, other: Tensor | None) -> float:
    assert image is not None
    assert other is not None
    return psnr(image[None], other[None]).item()
