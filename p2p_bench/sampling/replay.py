"""What an inversion may say to the sampling loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.models.conditioning import Conditioning
from p2p_bench.models.level import Denoised, Prediction
from p2p_bench.models.model import DiffusionModel
from p2p_bench.sampling.noise import initial_noise, step_noise
from p2p_bench.sampling.stepper import Stepper


class Replay(ABC):
    """How one source image is sampled again while its targets are sampled beside it.

    The loop asks these hooks and knows nothing else of a method. Every hook but `start` has a default
    that does nothing, which is plain sampling; a method states only the hooks it needs. A `step` is an
    index from 0; a `role` says whether the row is the source or a target. All rows of a request share
    one replay, and hooks are pure: they may be asked in any order and more than once.
    """

    @property
    @abstractmethod
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """State of every row before the first step: start latents, then what `stepper` needs besides."""

    @property
    def first_step(self) -> int:
        """The step at which every row starts: `start` lies at its timestep, earlier steps are not taken.

        Steps keep their indices, so a schedule, a recorder or a blend sees the steps of a whole run. The
        number of steps of the run takes none, and the start is the result.
        """
        return 0

    @property
    def unet_rows(self) -> int:
        """UNet rows that making this replay takes."""
        return 0

    @property
    def unet_rows_backward(self) -> int:
        """Rows that went through the network backward, for methods that optimise; none of `unet_rows`."""
        return 0

    def stepper(self) -> Stepper | None:
        """The step function of this method's rows; None: that of the run."""
        return None

    def unconditional(self, step: int, role: Role) -> Conditioning | None:
        """What a row's unconditional pass is told at a step; None: what the empty prompt says.

        A single row; names that it leaves out are the empty prompt's.
        """
        return None

    def values(self, step: int, role: Role, text: Float[Tensor, "l d"]) -> Float[Tensor, "l d"] | None:
        """What cross-attention takes a row's values from in its pass with the prompt; None: the text.

        For models with cross-attention to the text alone. Keys are the text's in any case.

        Args:
            step: Index from 0.
            role: Of the row.
            text: What its prompt says.
        """
        return None

    def guidance(self, step: int, role: Role, default: float) -> float:
        """Guidance scale of a row at a step.

        Args:
            step: Index from 0.
            role: Of the row.
            default: Guidance of the request at this step: 1 outside of the interval in which it acts.
        """
        return default

    def needs_unconditional(self, step: int, role: Role, guidance: float) -> bool:
        """Whether a row takes an unconditional pass at a step.

        Without one, `combine` is given the conditional prediction in the place of the unconditional one.
        """
        return guidance != 1

    def combine(
        self,
        step: int,
        roles: tuple[Role, ...],
        unconditional: Denoised,
        conditional: Denoised,
        guidance: Float[Tensor, "n 1 1 1"],
    ) -> Denoised:
        """What is stepped with, from the two predictions.

        Args:
            step: Index from 0.
            roles: Role of each row; the rows are all those of one request.
            unconditional: Predicted without the prompt.
            conditional: Predicted with the prompt, after the edit.
            guidance: Scale of each row.
        """
        return classifier_free(unconditional, conditional, guidance)

    @property
    def draws(self) -> int:
        """Noises of a stochastic step: `noise` holds so many, channels under channels."""
        return 1

    def noise(self, step: int) -> Float[Tensor, "c h w"] | None:
        """Noise of a stochastic step, shared by all rows; None: this method has none."""
        return None

    def correct(
        self, step: int, roles: tuple[Role, ...], latents: Float[Tensor, "n c h w"], prediction: Prediction
    ) -> Float[Tensor, "n c h w"]:
        """The rows' latents after a step, put right before anything else is done with them.

        Args:
            step: Index from 0.
            roles: Role of each row.
            latents: Of the rows after the step.
            prediction: That of the step's last pass of the network, of the same rows.
        """
        return latents


def classifier_free(
    unconditional: Denoised, conditional: Denoised, guidance: float | Float[Tensor, "n 1 1 1"]
) -> Denoised:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598), in the form public code uses."""
    output = unconditional.output + guidance * (conditional.output - unconditional.output)
    return conditional.with_output(output)


@dataclass(frozen=True, eq=False)
class NoiseReplay(Replay):
    """Plain sampling from noise.

    Attributes:
        latents: What sampling starts from.
        seed: Seed of the sample, from which the noise of stochastic steps comes.
    """

    latents: Float[Tensor, "c h w"]
    seed: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """The latents."""
        return (self.latents,)

    def noise(self, step: int) -> Float[Tensor, "c h w"]:
        """A function of the sample's seed and the step."""
        shape = self.latents.shape
        return step_noise(self.seed, step, (shape[0], shape[1], shape[2]))


def noise_replay(
    model: DiffusionModel, seed: int, steps: int, noise: Float[Tensor, "c h w"] | None = None
) -> NoiseReplay:
    """Plain sampling from noise.

    Args:
        model: The model.
        seed: Seed of the sample.
        steps: Of the run.
        noise: Standard normal noise; None takes the seed's.
    """
    if noise is None:
        noise = initial_noise(seed, (model.spec.latent_channels, *model.spec.latent_size))
    return NoiseReplay(model.start(noise, steps), seed)
