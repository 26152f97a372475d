"""The stage of a cascade of pixels that enlarges the images of the stage before it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from p2p_bench.models.calls import NetworkCall
from p2p_bench.models.conditioning import TEXT, Conditioning, joined
from p2p_bench.models.level import Denoised, Level, Thresholding
from p2p_bench.models.schedule import NoiseSchedule, Variance
from p2p_bench.models.spec import Upscaling


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Upscaler:
    """Stage II of DeepFloyd IF with its weights, as `IFSuperResolutionPipeline` calls it.

    Its network is shown the small image, enlarged and with some noise, beside the one that it denoises. No
    attention of it is edited. Images are pixels in [-1, 1].

    Attributes:
        settings: Steps, guidance and noise.
        schedule: Noise levels, and the meaning of the network's output.
        noising: Levels of the noise in what it is shown.
        variance: Of the noise that its steps add.
        thresholding: What is done to predicted images; None: nothing.
        unet: The network, a `UNet2DConditionModel`.
        size: Height and width of what it makes, in pixels.
        device: Where it computes.
        dtype: Number format of the network.
        call: How the network is called; None: as it is.
    """

    settings: Upscaling
    schedule: NoiseSchedule
    noising: NoiseSchedule
    variance: Variance
    thresholding: Thresholding | None
    unet: nn.Module
    size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype
    call: NetworkCall | None = None

    def ladder(self) -> tuple[Level, ...]:
        """The noise levels of its steps, noisiest first, then the clean end."""
        return self.schedule.ladder(self.settings.steps)

    def shown(
        self, images: Float[Tensor, "n 3 y x"], noise: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        """What the network is shown: small images, enlarged without it, and standard normal noise in them."""
        large = nn.functional.interpolate(images, self.size, mode="bilinear", align_corners=True)
        return self.noising.level(self.settings.noise_level).noised(large, noise)

    def predict(
        self,
        x_t: Float[Tensor, "n 3 h w"],
        level: Level,
        shown: Float[Tensor, "n 3 h w"],
        conditional: Conditioning,
        unconditional: Conditioning,
    ) -> tuple[Denoised, Float[Tensor, "n 3 h w"]]:
        """The guided prediction, and what the network says of the variance, which is that with the prompt.

        Args:
            x_t: Noisy images.
            level: Their noise level.
            shown: What `shown` gave.
            conditional: The prompts, a row each.
            unconditional: The same rows without a prompt; not read where no guidance asks for it.
        """
        passes, scale = self.settings.passes, self.settings.guidance
        told = joined([conditional, unconditional][:passes])[TEXT]
        inputs = torch.cat([torch.cat([x_t, shown], 1)] * passes)
        noise_level = torch.full((len(inputs),), self.settings.noise_level, device=x_t.device)
        output = self._ask(
            inputs.to(self.dtype),
            level.timestep,
            encoder_hidden_states=told.to(self.dtype),
            class_labels=noise_level,
            return_dict=False,
        )[0].to(x_t.dtype)
        predicted, variance = output.split(x_t.shape[1], 1)
        guided = predicted[: len(x_t)]
        if passes == 2:
            without = predicted[len(x_t) :]
            guided = without + scale * (guided - without)
        epsilon = self.schedule.to_epsilon(guided, x_t, level)
        return Denoised(x_t, level, epsilon, thresholding=self.thresholding), variance[: len(x_t)]

    def _ask(self, *arguments: Any, **named: Any) -> Any:
        return (self.unet if self.call is None else self.call)(*arguments, **named)
