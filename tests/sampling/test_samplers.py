"""Samplers beside DDIM: diffusers' schedulers step for step, and the tree, batches and refusals with each."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
)
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import compose, group_options
from p2p_bench.bench.task import Task
from p2p_bench.editing import EditRequest, Target, run_edits
from p2p_bench.errors import ConfigError
from p2p_bench.inversion.base import not_sampled
from p2p_bench.models import DiffusionModel
from p2p_bench.models.level import Denoised, Level, Prediction
from p2p_bench.models.schedule import NoiseSchedule, schedule_from_config
from p2p_bench.sampling import (
    DPMSolverSampler,
    EulerSampler,
    LCMSampler,
    Sampler,
    StepContext,
    Stepper,
    initial_noise,
    select_rows,
)
from tests.examples import SOURCE, TARGET, example
from tests.models.tiny import tiny_checkpoint, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
"""diffusers' schedulers with NumPy 2."""

SHAPE = (2, 4, 8, 8)
STEPS = 3
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
FLOW = ("heun", "midpoint")
SAMPLERS = [one for one in group_options("sampler") if one not in ("ddim", "lcm", "turbo", *FLOW)]
"""`lcm` is for models that were distilled for it, see `test_consistency.py`; `turbo` is `euler_ancestral`."""


def network(x: Tensor, timestep: float) -> Tensor:
    """An answer that depends on all that a network's does."""
    return 0.4 * torch.tanh(1.5 * x) * (1 + 0.3 * torch.cos(torch.tensor(float(timestep) / 150))) + 0.2 * x


def sampled(schedule: NoiseSchedule, stepper: Stepper, steps: int, noises: list[Tensor]) -> Tensor:
    """All steps of a sampler from the last of the noises; the others are those of the steps."""
    ladder = NoiseSchedule(**{**vars(schedule), "kind": stepper.levels}).ladder(steps)
    scale = NoiseSchedule(**{**vars(schedule), "kind": stepper.levels}).start_scale(steps)
    state = stepper.init((noises[-1] * scale,))
    for step, (here, there) in enumerate(pairwise(ladder)):

        def predict(x: Tensor, level: Level) -> Prediction:
            answer = network(x, level.timestep)
            guided = Denoised(x, level, schedule.to_epsilon(answer, x, level))
            return Prediction(guided, guided, guided)

        before = ladder[step - 1] if step else None
        noise = noises[step] if stepper.stochastic else None
        context = StepContext(step, steps, torch.arange(2), predict, noise, before)
        state = stepper.step(state, here, there, context)
    return state[0]


def of_diffusers(scheduler: Any, steps: int) -> tuple[Tensor, list[Tensor]]:
    """The same with a scheduler of diffusers; and the noises that it drew, with the start's behind."""
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(SHAPE, generator=generator) for _ in range(steps)]
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    scheduler.set_timesteps(steps)
    generator, x = torch.Generator().manual_seed(1), start * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        answer = network(scheduler.scale_model_input(x, timestep), float(timestep))
        options = {} if isinstance(scheduler, EulerDiscreteScheduler) else {"generator": generator}
        x = scheduler.step(answer, timestep, x, return_dict=False, **options)[0]
    return x, [*drawn, start]


def check(scheduler: Any, sampler: Sampler, steps: int) -> None:
    schedule = schedule_from_config(dict(scheduler.config))
    expected, noises = of_diffusers(scheduler, steps)
    got = sampled(schedule, sampler.stepper(), steps, noises)
    # The schedulers keep ratios of levels in float32.
    assert float((got - expected).abs().max()) <= 2e-5


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(("steps", "prediction"), [(1, "epsilon"), (6, "v_prediction"), (25, "epsilon")])
@pytest.mark.parametrize("ancestral", [False, True])
def test_euler_equals_diffusers(ancestral: bool, steps: int, spacing: str, prediction: str) -> None:
    kind = EulerAncestralDiscreteScheduler if ancestral else EulerDiscreteScheduler
    scheduler = kind(**BETAS, timestep_spacing=spacing, prediction_type=prediction)
    check(scheduler, EulerSampler(ancestral=ancestral), steps)


@pytest.mark.parametrize("layout", ["leading", "trailing", "linspace", "karras"])
@pytest.mark.parametrize(("steps", "prediction"), [(1, "epsilon"), (6, "v_prediction"), (20, "epsilon")])
@pytest.mark.parametrize("sde", [False, True])
def test_dpm_solver_equals_diffusers(sde: bool, steps: int, prediction: str, layout: str) -> None:
    karras = layout == "karras"
    scheduler = DPMSolverMultistepScheduler(
        **BETAS, prediction_type=prediction, algorithm_type=f"{'sde-' * sde}dpmsolver++",
        use_karras_sigmas=karras, timestep_spacing="leading" if karras else layout,
    )  # fmt: skip
    check(scheduler, DPMSolverSampler(sde=sde, karras=karras), steps)


@pytest.mark.parametrize(("steps", "prediction"), [(1, "epsilon"), (4, "v_prediction"), (8, "epsilon")])
def test_latent_consistency_equals_diffusers(steps: int, prediction: str) -> None:
    scheduler = LCMScheduler(**BETAS, prediction_type=prediction)
    check(scheduler, LCMSampler(), steps)


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        (EulerDiscreteScheduler, EulerSampler(spacing="trailing")),
        (DPMSolverMultistepScheduler, DPMSolverSampler()),
    ],
)
def test_a_plain_run_equals_the_pipeline(kind: Any, sampler: Sampler) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_checkpoint().path, local_files_only=True, safety_checker=None
    )
    spaced = {"timestep_spacing": sampler.spacing or "leading"}
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **spaced)
    pipeline.set_progress_bar_config(disable=True)
    noise = initial_noise(7, SHAPE[1:])
    expected = pipeline(
        [SOURCE, TARGET], output_type="pt", num_inference_steps=6, guidance_scale=7.5,
        latents=noise.expand(SHAPE).clone(),
    ).images  # fmt: skip
    model = tiny_model(torch.float32)
    result = p2p.edit(model, SOURCE, TARGET, seed=7, steps=6, guidance=7.5, sampler=sampler)
    assert float((result.images - expected).abs().max()) <= 1e-5


def task(*overrides: str) -> Task:
    config = compose([*overrides, "dataset.limit=1", "logger=none"], keep_hydra=True)
    return build(without_hydra(config), chosen_options(config.hydra)).task


@pytest.fixture(scope="module")
def controllers() -> dict[str, p2p.Controller]:
    """The controller of every option."""
    return {
        option: task(f"controller={option}", *example("controller", option)).variants[0].controller
        for option in group_options("controller")
    }


FEW = ("replace", "local_blend")


@pytest.mark.parametrize("option", SAMPLERS)
def test_controllers_go_with_every_sampler(controllers: dict[str, p2p.Controller], option: str) -> None:
    """Several in one tree; a few alone too, which changes nothing, nor does a neighbour in the batch.

    All controllers with the sampler that keeps most, a few with the others.
    """
    if option != "dpmpp_2m_sde":
        controllers = {name: controllers[name] for name in (*FEW, "reweight", "none")}
    controllers = {**controllers, "shorter": p2p.Replace(0.6, 0.4)}  # shares its first steps with "replace"
    model, stepper = tiny_model(), task(f"sampler={option}").sampler.stepper()
    targets = {name: Target(TARGET, one) for name, one in controllers.items()}
    requests = [
        EditRequest("one", SOURCE, tuple(targets.values()), seed=3),
        EditRequest("two", TARGET, (targets["none"],), seed=4),
    ]
    together, _ = run_edits(model, requests, steps=STEPS, stepper=stepper, max_rows=200)
    assert together.error is None
    assert sum(together.target_rows_spent) < sum(together.target_rows)
    edits = dict(zip(controllers, together.latents[1:], strict=True))
    for name, edit in edits.items():
        assert (distance(edit, edits["none"]) > 1e-3) == (name != "none"), name
    for name in FEW:
        request = EditRequest("one", SOURCE, (targets[name],), seed=3)
        (alone,) = run_edits(model, [request], steps=STEPS, stepper=stepper)
        assert distance(alone.latents[1], edits[name]) <= 1e-10, name


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def test_history_is_row_state() -> None:
    """A row that is taken out of a batch, or forked from one, goes on as it would have."""
    stepper = DPMSolverSampler().stepper()
    model = tiny_model().laid_out("multistep")
    steps = 5
    ladder = model.ladder(steps)
    assert len(ladder) == steps + 1
    generator = torch.Generator().manual_seed(0)
    state = stepper.init((torch.randn(SHAPE, generator=generator, dtype=torch.float64),))

    def stepped(state: tuple[Tensor, ...], step: int) -> tuple[Tensor, ...]:
        def predict(x: Tensor, level: Level) -> Prediction:
            guided = Denoised(x, level, network(x, level.timestep))
            return Prediction(guided, guided, guided)

        before = ladder[step - 1] if step else None
        context = StepContext(step, steps, torch.arange(len(state[0])), predict, None, before)
        return stepper.step(state, ladder[step], ladder[step + 1], context)

    state = stepped(stepped(state, 0), 1)
    whole = stepped(state, 2)
    forked = stepped(select_rows(state, torch.tensor([1, 1])), 2)
    assert torch.equal(forked[0], whole[0][[1, 1]])
    lost = stepped((state[0], torch.zeros_like(state[1])), 2)
    assert float((lost[0] - whole[0]).abs().max()) > 1e-3, "the history decides the step"


MATRIX = {
    "ddim": {"ddim", "direct", "edict", "edit_friendly", "negative_prompt", "noising", "none", "null_text",
             "proximal", "renoise"},
    "euler_ancestral": {"edit_friendly", "noising", "none"},
    "dpmpp_2m": {"noising", "none"},
}  # fmt: skip
MATRIX |= {"euler": MATRIX["ddim"], "turbo": MATRIX["euler_ancestral"]}
MATRIX |= dict.fromkeys(("dpmpp_2m_sde", "lcm", *FLOW), MATRIX["dpmpp_2m"])


def test_which_inversions_go_with_which_sampler() -> None:
    steppers = {name: task(f"sampler={name}").sampler.stepper() for name in group_options("sampler")}
    for option in MATRIX["ddim"]:
        inversion = task(f"inversion={option}").inversion
        for name, stepper in steppers.items():
            assert (not_sampled(inversion, stepper) is None) == (option in MATRIX[name]), (option, name)


@pytest.mark.parametrize("option", ["none", "noising", "edit_friendly", "edict"])
def test_real_images_with_samplers_that_have_no_way_back(option: str) -> None:
    model, inversion = tiny_model(), task(f"inversion={option}").inversion
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))
    for name in (one for one in SAMPLERS if option in MATRIX[one]):
        edited = p2p.edit(
            model, SOURCE, [TARGET] * 2, [p2p.Replace(0.4), p2p.Replace(1.0)], image=image, steps=STEPS,
            inversion=inversion, sampler=name, guidance=3.0, seed=3, record=False,
        )  # fmt: skip
        assert bool(edited.latents.isfinite().all())
        assert distance(edited.latents[1], edited.latents[2]) > 1e-3


def test_what_does_not_go_together_is_refused() -> None:
    model: DiffusionModel = tiny_model()
    image = torch.rand(3, 16, 16)
    with pytest.raises(ConfigError, match=r"DDIMInversion walks .* DPMSolver.*sampler=ddim.*noising"):
        p2p.edit(model, SOURCE, TARGET, image=image, sampler="dpmpp_2m", steps=STEPS)
    with pytest.raises(ConfigError, match=r"EDICTInversion takes steps of its own.*sampler.eta=0.5"):
        p2p.edit(model, SOURCE, TARGET, image=image, inversion="edict", eta=0.5, steps=STEPS)
    with pytest.raises(ConfigError, match=r"EditFriendlyInversion takes steps of its own.*sampler.eta=0.5"):
        p2p.edit(model, SOURCE, TARGET, image=image, inversion="edit_friendly", eta=0.5, steps=STEPS)
    with pytest.raises(ConfigError, match=r"not distilled.*model.lora.*model.consistency"):
        p2p.edit(model, SOURCE, TARGET, sampler="lcm")
    with pytest.raises(ConfigError, match=r"not distilled"):
        LCMSampler().steps_on(model.spec)
    with pytest.raises(ConfigError, match=r"Karras.*spacing=null"):
        DPMSolverSampler(karras=True, spacing="trailing")
    with pytest.raises(ConfigError, match="timesteps of its own"):
        LCMSampler(spacing="leading")
    with pytest.raises(p2p.P2PError, match=r"eta: it is DDIM's"):
        p2p.edit(model, SOURCE, TARGET, sampler="euler", eta=0.5)
    with pytest.raises(ConfigError, match="begin at timestep 913"):
        DPMSolverSampler(steps=76).steps_on(model.spec)
    with pytest.raises(ConfigError, match="Did you mean 'euler'"):
        p2p.edit(model, SOURCE, TARGET, sampler="eulr")
