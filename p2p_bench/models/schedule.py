"""Noise levels of a diffusion model, and what its raw output means."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import cos, inf, pi
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError
from p2p_bench.models.level import Level
from p2p_bench.models.timesteps import (
    CONSISTENCY_STEPS,
    LevelKind,
    Spacing,
    TimestepLayout,
    known_value,
    layout_from_config,
)

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction")
_ENDS_AT_ZERO = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
_CLIPS = ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler")
"""Schedulers that clip images where their file does not say that they should not."""
_MAY_CLIP = (*_CLIPS, "LCMScheduler", "TCDScheduler", "HeunDiscreteScheduler")
SCHEDULERS = (
    *_MAY_CLIP, *_ENDS_AT_ZERO, "PNDMScheduler", "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler",
    "UniPCMultistepScheduler", "SASolverScheduler",
)  # fmt: skip
"""Those of diffusers whose levels are DDPM's; others scale what goes into the network and what comes out."""
_BETAS = ("linear", 1e-4, 0.02)
_OTHER_BETAS = {
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), ("scaled_linear", 0.00085, 0.012)),
    **dict.fromkeys(
        ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
        ("linear", 0.00085, 0.012),
    ),
}
"""Kind, first and last of the betas where the file of a scheduler does not say them, and others' own."""
Variance = Literal["fixed_small", "fixed_large", "learned_range"]
"""Of the noise that a step of DDPM adds: the least and the most that it can be (beta-tilde and beta), or what
the network says between the two."""
_VARIANCES: Mapping[str, Variance] = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}
"""By their names in diffusers."""
TIMESTEP_SCALING = 10.0
"""What timesteps are multiplied by in the consistency function."""
_LEVEL_OPTIONS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
_USUAL_LEVELS = {"final_sigmas_type": "zero", "lambda_min_clipped": -inf}
"""Others by which levels may be left out or end elsewhere, where they are not these."""
_REFUSED = ("use_flow_sigmas", "sigma_min", "sigma_max")
"""Settings by which levels are others than those of the betas; none may be on."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels a model was trained on, with the numbers of diffusers' `DDIMScheduler`.

    Notation: `alpha_bar_t` is the share of signal power at timestep t, so that
    `x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon`. A timestep lies in
    [0, train timesteps); a step is an index from 0 into the timesteps of a run.

    Attributes:
        alphas_cumprod: `alpha_bar_t` for every training timestep, float64.
        final_alpha_cumprod: `alpha_bar` of the clean end under DDIM, used below timestep 0; 1 under others.
        prediction_type: What the network returns: the noise ("epsilon") or the velocity ("v_prediction").
        timestep_spacing: How a run's timesteps are laid out, see `TimestepLayout`; None: as the sampler does.
        steps_offset: Added to the timesteps of the "leading" layout.
        kind: Whose levels a run takes, see `LevelKind`.
        distilled: Number of timesteps that a latent consistency model was distilled on.
    """

    alphas_cumprod: Float[Tensor, " t"]
    final_alpha_cumprod: float
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Spacing | None = "leading"
    steps_offset: int = 0
    kind: LevelKind = "ddim"
    distilled: int = CONSISTENCY_STEPS

    @property
    def layout(self) -> TimestepLayout:
        """How the timesteps of a run are laid out."""
        train = len(self.alphas_cumprod)
        return TimestepLayout(train, self.timestep_spacing, self.steps_offset, self.kind, self.distilled)

    def timesteps(self, steps: int) -> tuple[float, ...]:
        """Timesteps of a run of `steps` steps, noisiest first.

        Raises:
            ConfigError: The layout cannot serve so many steps, see `TimestepLayout`.
        """
        return self.layout.timesteps(steps)

    def level(self, timestep: int | float) -> Level:
        """The noise level of a timestep, also of one between two; the clean end for a negative one."""
        if timestep != int(timestep):
            below, above = map(float, self._ratios[int(timestep) :][:2])
            return _level_of(float(timestep), below + timestep % 1 * (above - below))
        alpha_bar_t = self.alpha_bar(int(timestep))
        return Level(float(timestep), alpha_bar_t**0.5, (1 - alpha_bar_t) ** 0.5)

    def ladder(self, steps: int) -> tuple[Level, ...]:
        """The levels of a run of `steps` steps, noisiest first, then the clean end.

        Raises:
            ConfigError: See `timesteps`.
        """
        if self.kind == "karras":
            return (*self._karras(steps), self.level(-1))
        return tuple(self.level(timestep) for timestep in (*self.timesteps(steps), -1))

    def start_scale(self, steps: int) -> float:
        """Factor of the noise that a run starts from.

        1, but for Euler's samplers with spacing that begins at the last timestep: as diffusers' they start
        from the noise of that level alone.
        """
        whole = self.kind != "euler" or self.layout.spaced == "leading"
        return 1.0 if whole else self.ladder(steps)[0].sigma

    def alpha_bar(self, timestep: int) -> float:
        """`alpha_bar_t`; that of the clean end for a negative timestep."""
        if timestep >= 0:
            return float(self.alphas_cumprod[timestep])
        return self.final_alpha_cumprod if self.kind == "ddim" else 1.0

    @property
    def _ratios(self) -> Float[Tensor, " t"]:
        """Sigma / alpha of every training timestep, the sigma of Karras et al."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5

    def _karras(self, steps: int) -> list[Level]:
        """Levels whose ratios are evenly spaced in their seventh root, each with the nearest timestep."""
        self.layout.check(steps)
        ratios, rho = self._ratios, 7
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        low, high = ratios[0] ** (1 / rho), ratios[-1] ** (1 / rho)
        wanted = (high + ramp * (low - high)) ** rho
        logs = ratios.log()
        above = torch.searchsorted(logs, wanted.log()).clamp(1, len(logs) - 1)
        part = (wanted.log() - logs[above - 1]) / (logs[above] - logs[above - 1])
        timesteps = (above - 1 + part.clamp(0, 1)).round()
        return [_level_of(float(t), float(ratio)) for t, ratio in zip(timesteps, wanted, strict=True)]

    def to_epsilon(
        self, prediction: Float[Tensor, "n c h w"], x_t: Float[Tensor, "n c h w"], level: Level
    ) -> Float[Tensor, "n c h w"]:
        """The noise in `x_t` according to the network's raw output, so that no sampler asks what that is."""
        if self.prediction_type == "epsilon":
            return prediction
        return level.alpha * prediction + level.sigma * x_t


def _level_of(timestep: float, ratio: float) -> Level:
    """The level of a ratio sigma / alpha."""
    alpha = (1 + ratio**2) ** -0.5
    return Level(timestep, alpha, ratio * alpha)


def schedule_from_config(config: Mapping[str, Any], offset: int | None = 1) -> NoiseSchedule:
    """Reads a diffusers `scheduler_config.json`, whichever scheduler class wrote it.

    With `offset` given, latents are never clipped, as `StableDiffusionPipeline` forces it. The clean end is
    alpha_bar 1 for Euler's schedulers, which end at sigma 0 whatever their file says; for others it is what
    `set_alpha_to_one` says, else alpha_bar 1 too, but for `PNDMScheduler`: that of timestep 0.

    Args:
        config: What the file holds.
        offset: The `steps_offset` that the family's pipeline forces; None takes the file's, as pipelines do
            that force nothing.

    Raises:
        ConfigError: The schedule is of a kind this project does not know.
    """
    prediction = known_value(config, "prediction_type", "epsilon", PREDICTIONS)
    layout = layout_from_config(config, offset)
    kind = config.get("_class_name")
    _check_levels(config, kind)
    if offset is None and kind in _MAY_CLIP and config.get("clip_sample", kind in _CLIPS):
        raise ConfigError(
            f"scheduler_config.json: clip_sample is on (of a {kind} it may be where the file does not say), "
            'which would clip latents; set it to false, as "clip_sample": false'
        )
    alphas_cumprod = _alphas_cumprod(config, kind, layout.train)
    to_one = kind in _ENDS_AT_ZERO or config.get("set_alpha_to_one", kind != "PNDMScheduler")
    return NoiseSchedule(
        alphas_cumprod=alphas_cumprod,
        final_alpha_cumprod=1.0 if to_one else float(alphas_cumprod[0]),
        prediction_type=prediction,  # type: ignore[arg-type]  # checked above against the literals
        timestep_spacing=layout.spacing,
        steps_offset=layout.offset,
        distilled=layout.distilled,
    )


def level_options(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a `scheduler_config.json` asks of its own scheduler that other levels follow from, by its keys.

    The levels of DDIM are those of the betas whatever the file says; samplers that could follow it are set by
    their own settings.
    """
    asked = [key for key in _LEVEL_OPTIONS if config.get(key)]
    asked += [key for key, usual in _USUAL_LEVELS.items() if config.get(key, usual) != usual]
    return tuple(asked)


def variance_from_config(config: Mapping[str, Any]) -> Variance:
    """The variance of the steps of a `DDPMScheduler`, which a `scheduler_config.json` has to be of.

    Raises:
        ConfigError: It is of another class, or the variance is of a kind this project does not know.
    """
    kind = config.get("_class_name")
    if kind != "DDPMScheduler":
        raise ConfigError(
            f"scheduler_config.json: _class_name is {kind}, expected DDPMScheduler, which the pipeline "
            "samples with"
        )
    return _VARIANCES[known_value(config, "variance_type", "fixed_small", tuple(_VARIANCES))]


def _check_levels(config: Mapping[str, Any], kind: Any) -> None:
    """Refuses a schedule whose levels are not those of its betas, and one for pixels."""
    if kind is not None and kind not in SCHEDULERS:
        raise ConfigError(
            f"scheduler_config.json: _class_name is {kind}, whose noise levels are not those of DDPM; a "
            "network that was trained with them cannot be sampled here"
        )
    for key in _REFUSED:
        if config.get(key):
            raise ConfigError(
                f"scheduler_config.json: {key} is {config[key]!r}, which makes other noise levels than those "
                "of the betas and is not known here; set it to null if the checkpoint was trained without it"
            )
    if config.get("timestep_scaling", TIMESTEP_SCALING) != TIMESTEP_SCALING:
        raise ConfigError(
            f"scheduler_config.json: timestep_scaling is {config['timestep_scaling']!r}, expected "
            f"{TIMESTEP_SCALING:g}, which latent consistency models have"
        )
    if config.get("timestep_type", "discrete") != "discrete":
        raise ConfigError("scheduler_config.json: timestep_type: expected discrete timesteps")
    if config.get("rescale_betas_zero_snr"):
        raise ConfigError(
            "scheduler_config.json: rescale_betas_zero_snr leaves a timestep without signal, "
            "which cannot be inverted; use a checkpoint without it"
        )
    if config.get("thresholding"):
        raise ConfigError(
            "scheduler_config.json: thresholding is for pixels, not for latents; set it to false"
        )


def _alphas_cumprod(config: Mapping[str, Any], kind: Any, count: int) -> Float[Tensor, " t"]:
    # In float32, as diffusers computes it, so that the noise levels are equal to the last bit.
    trained = config.get("trained_betas")
    name, first, last = _OTHER_BETAS.get(kind, _BETAS)
    beta_schedule = known_value(config, "beta_schedule", name, BETA_SCHEDULES)
    start, end = _beta(config, "beta_start", first), _beta(config, "beta_end", last)
    if trained is not None:
        if not isinstance(trained, list) or not trained or not all(map(_is_beta, trained)):
            raise ConfigError(
                "scheduler_config.json: trained_betas is no list of numbers between 0 and 1, one per timestep"
            )
        betas = torch.tensor(trained, dtype=torch.float32)
    elif beta_schedule == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float32)
    elif beta_schedule == "squaredcos_cap_v2":
        betas = torch.tensor(_cosine_betas(count), dtype=torch.float32)
    else:
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0).double()


def _cosine_betas(count: int) -> list[float]:
    """The cosine schedule (Nichol and Dhariwal, arXiv 2102.09672, eq. 17), each beta 0.999 at most."""
    alpha_bar = [cos((step / count + 0.008) / 1.008 * pi / 2) ** 2 for step in range(count + 1)]
    return [min(1 - after / before, 0.999) for before, after in pairwise(alpha_bar)]


def _beta(config: Mapping[str, Any], key: str, usual: float) -> float:
    value = config.get(key, usual)
    if not _is_beta(value):
        raise ConfigError(f"scheduler_config.json: {key} is {value!r}, expected a number between 0 and 1")
    return float(value)


def _is_beta(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
