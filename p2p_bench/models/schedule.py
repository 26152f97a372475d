"""Noise levels of a diffusion model, and what its raw output means."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError, nearest

BETA_SCHEDULES = ("linear", "scaled_linear")
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels a model was trained on, with the numbers of diffusers' `DDIMScheduler`.

    Notation: `alpha_bar_t` is the share of signal power at timestep t, so that
    `x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon`. A timestep lies in
    [0, train timesteps); a step is an index from 0 into the timesteps of a run.

    Attributes:
        alphas_cumprod: `alpha_bar_t` for every training timestep, float64.
        final_alpha_cumprod: `alpha_bar` of the clean end, used below timestep 0.
        prediction_type: What the network returns: the noise ("epsilon") or the velocity ("v_prediction").
        timestep_spacing: How a run's timesteps are laid out: "leading", "trailing" or "linspace".
        steps_offset: Added to the timesteps of the "leading" layout.
    """

    alphas_cumprod: Float[Tensor, " t"]
    final_alpha_cumprod: float
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    steps_offset: int = 0

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Timesteps of a run of `steps` steps, noisiest first.

        Raises:
            ConfigError: `steps` is not in 1..train timesteps.
        """
        train = len(self.alphas_cumprod)
        if not 1 <= steps <= train:
            raise ConfigError(f"steps: expected 1 to {train} (the model's training timesteps), got {steps}")
        values: np.ndarray
        if self.timestep_spacing == "linspace":
            values = np.linspace(0, train - 1, steps).round()[::-1]
        elif self.timestep_spacing == "trailing":
            values = np.round(np.arange(train, 0, -train / steps)) - 1
        else:
            values = (np.arange(steps) * (train // steps))[::-1] + self.steps_offset
        # An offset may push the noisiest timestep past the table when steps divide it exactly.
        if values[0] >= train:
            raise ConfigError(
                f"steps: {steps} with steps_offset {self.steps_offset} asks for timestep {int(values[0])}, "
                f"but the model knows 0 to {train - 1}; take fewer steps"
            )
        return tuple(int(value) for value in values)

    def previous(self, timestep: int, steps: int) -> int:
        """The less noisy timestep that follows in a run of `steps` steps; negative: the clean end."""
        return timestep - len(self.alphas_cumprod) // steps

    def alpha_bar(self, timestep: int) -> float:
        """`alpha_bar_t`; `final_alpha_cumprod` for a negative timestep."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final_alpha_cumprod

    def to_epsilon(
        self, prediction: Float[Tensor, "n c h w"], x_t: Float[Tensor, "n c h w"], timestep: int
    ) -> Float[Tensor, "n c h w"]:
        """The noise in `x_t` according to the network's raw output, so that no sampler asks what that is."""
        if self.prediction_type == "epsilon":
            return prediction
        alpha_bar_t = self.alpha_bar(timestep)
        return alpha_bar_t**0.5 * prediction + (1 - alpha_bar_t) ** 0.5 * x_t


def clean_latents(
    x_t: Float[Tensor, "n c h w"], epsilon: Float[Tensor, "n c h w"], alpha_bar_t: float
) -> Float[Tensor, "n c h w"]:
    """`x_0` predicted from `x_t` and its noise (DDIM, arXiv 2010.02502, eq. 9)."""
    return (x_t - (1 - alpha_bar_t) ** 0.5 * epsilon) / alpha_bar_t**0.5


def schedule_from_config(config: Mapping[str, Any]) -> NoiseSchedule:
    """Reads a diffusers `scheduler_config.json`, whichever scheduler class wrote it.

    Three values are forced as `StableDiffusionPipeline` does: latents are never clipped and
    `steps_offset` is 1. `set_alpha_to_one` is taken from the file, else it is what the class that
    wrote the file assumes.

    Raises:
        ConfigError: The schedule is of a kind this project does not know.
    """
    beta_schedule = str(config.get("beta_schedule", "linear"))
    prediction = str(config.get("prediction_type", "epsilon"))
    spacing = str(config.get("timestep_spacing", "leading"))
    known = (
        ("beta_schedule", beta_schedule, BETA_SCHEDULES),
        ("prediction_type", prediction, PREDICTIONS),
        ("timestep_spacing", spacing, SPACINGS),
    )
    for key, value, options in known:
        if value not in options:
            raise ConfigError(
                f"scheduler_config.json: {key} is {value!r}, expected one of {', '.join(options)}."
                + nearest(value, options)
            )
    if config.get("rescale_betas_zero_snr"):
        raise ConfigError(
            "scheduler_config.json: rescale_betas_zero_snr leaves a timestep without signal, "
            "which cannot be inverted; use a checkpoint without it"
        )
    alphas_cumprod = _alphas_cumprod(config, beta_schedule)
    to_one = config.get("set_alpha_to_one", config.get("_class_name") == "DDIMScheduler")
    return NoiseSchedule(
        alphas_cumprod=alphas_cumprod,
        final_alpha_cumprod=1.0 if to_one else float(alphas_cumprod[0]),
        prediction_type=prediction,  # type: ignore[arg-type]  # checked above against the literals
        timestep_spacing=spacing,  # type: ignore[arg-type]  # checked above against the literals
        steps_offset=1,
    )


def _alphas_cumprod(config: Mapping[str, Any], beta_schedule: str) -> Float[Tensor, " t"]:
    # In float32, as diffusers computes it, so that the noise levels are equal to the last bit.
    trained = config.get("trained_betas")
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    count = int(config.get("num_train_timesteps", 1000))
    if trained is not None:
        betas = torch.tensor(trained, dtype=torch.float32)
    elif beta_schedule == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float32)
    else:
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0).double()
