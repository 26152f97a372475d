"""FlowEdit (Kulikov et al., arXiv 2412.08629): from the image to its edit along a difference of velocities.

Nothing is inverted. The source's row stays at the image; a target's moves by how its velocity differs from
the source's, both asked for at latents under one noise. The noise is a function of the sample's seed and the
step, where the released code draws from a generator of the process, so that batches change results there.

Notation:
    x                the image
    z_edit           the target's latents, which begin at the image
    z_src, z_tar     x and z_edit under noise: (1 - sigma) x + sigma epsilon, and z_edit + z_src - x
    v_src, v_tar     their velocities
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick, part_of, tick_all
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability
from p2p_bench.sampling.noise import step_noise
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper


@dataclass(frozen=True)
class FlowEditStepper(Stepper):
    """The step of the method (algorithm 1, one noise a step)."""

    @property
    def stochastic(self) -> bool:
        """Every step has a noise of its own."""
        return True

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        (z_edit,) = state
        assert context.noise is not None
        x = z_edit.index_select(0, context.sources)
        z_tar = z_edit + here.noised(x, context.noise) - x
        v = context.predict(z_tar, here).velocity
        return (z_edit + (there.sigma - here.sigma) * (v - v.index_select(0, context.sources)),)


@dataclass(frozen=True, eq=False)
class FlowEditReplay(Replay):
    """Starts at the image, at a later step.

    Attributes:
        latents: The image's latents.
        method: Settings of the method.
        first: The first step taken.
        seed: Seed of the sample.
    """

    latents: Float[Tensor, "c h w"]
    method: "FlowEdit"
    first: int
    seed: int

    @property
    def start(self) -> tuple[Float[Tensor, "c h w"], ...]:
        """The image's latents."""
        return (self.latents,)

    @property
    def first_step(self) -> int:
        """The step at which the edit begins."""
        return self.first

    def stepper(self) -> Stepper:
        """That of the method."""
        return FlowEditStepper()

    def guidance(self, step: int, role: Role, default: float) -> float:
        """The method's own, one for the source and one for targets."""
        own = self.method.source_guidance if role == "source" else self.method.guidance
        return default if own is None else own

    def noise(self, step: int) -> Float[Tensor, "c h w"]:
        """A function of the sample's seed and the step."""
        shape = self.latents.shape
        return step_noise(self.seed, step, (shape[0], shape[1], shape[2]))


@dataclass(frozen=True)
class FlowEdit(Inversion):
    """Edits without inversion; any controller may act on the target besides.

    Published: Stable Diffusion 3 with 50 steps of which 33 are taken, guidance 3.5 and 13.5; FLUX with 28 of
    which 24 are taken, 1.5 and 5.5. One noise a step and no plain steps at the end, as there.

    Attributes:
        strength: Part of the steps that are taken, in [0, 1]: the last ones.
        source_guidance: Guidance scale of the source; None: that of the request.
        guidance: Guidance scale of targets; None: that of the request.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"flow"})
    own_scale: ClassVar[str] = "guidance"
    strength: Annotated[float, Between(0, 1)] = 0.66
    source_guidance: Annotated[float | None, AtLeast(0)] = 3.5
    guidance: Annotated[float | None, AtLeast(0)] = 13.5

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        check_fields(self, "inversion.")

    @property
    def draws_noise(self) -> bool:
        """The noise of every step is the seed's."""
        return True

    def steps_taken(self, steps: int) -> int:
        """See `Inversion.steps_taken`."""
        return part_of(self.strength, steps)

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`; takes the image as it is."""
        tick_all(tick, steps)
        first = steps - self.steps_taken(steps)
        pairs = zip(sources.latents, sources.seeds, strict=True)
        return [FlowEditReplay(one, self, first, seed) for one, seed in pairs]
