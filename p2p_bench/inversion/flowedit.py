"""FlowEdit (Kulikov et al., arXiv 2412.08629): from the image to its edit along a difference of velocities.

Nothing is inverted. The source's row stays at the image; a target's moves by how its velocity differs from
the source's, both asked for at latents under one noise. The noise is a function of the sample's seed and the
step, where the released code draws from a generator of the process, so that batches change results there.

The last steps can be plain sampling by the target's prompt (`n_min`): z_edit is given a noise once, and the
source's row lies at the image under that noise, which takes it to the image in the end. In the released code
for Stable Diffusion 3 this part names a variable that is not there; here it is what its code for FLUX does.

Notation:
    x                the image
    z_edit           the target's latents, which begin at the image
    z_src, z_tar     x and z_edit under noise: (1 - sigma) x + sigma epsilon, and z_edit + z_src - x
    v_src, v_tar     their velocities
    n_max, n_min     steps before the end at which the edit begins, and at which plain sampling does
    n_avg            noises of a step, over which the difference of the velocities is averaged
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.terms import Role
from p2p_bench.fields import AtLeast, Between, check_fields
from p2p_bench.inversion.base import Inversion, Sources, StepProgress, no_tick, tick_all
from p2p_bench.models.level import Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import Capability, ModelSpec
from p2p_bench.sampling.noise import step_noise
from p2p_bench.sampling.replay import Replay
from p2p_bench.sampling.stepper import RowState, StepContext, Stepper
from p2p_bench.tau import part_of


@dataclass(frozen=True)
class FlowEditStepper(Stepper):
    """The step of the method (algorithm 1); its state is the latents, and the image.

    Attributes:
        n_avg: Noises of a step.
        n_min: Plain steps at the end.
    """

    n_avg: int = 1
    n_min: int = 0

    @property
    def stochastic(self) -> bool:
        """Every step has noises of its own."""
        return True

    def init(self, start: RowState) -> RowState:
        """The image, twice."""
        return (*start, start[0])

    def step(self, state: RowState, here: Level, there: Level, context: StepContext) -> RowState:
        """See `Stepper.step`."""
        z_edit, x = state
        assert context.noise is not None
        h, plain = there.sigma - here.sigma, context.steps - self.n_min
        if context.step < plain:
            difference = torch.zeros_like(x)
            for noise in context.noise.chunk(self.n_avg, 1):
                v = context.predict(z_edit + here.noised(x, noise) - x, here).velocity
                difference = difference + (v - v.index_select(0, context.sources)) / self.n_avg
            return z_edit + h * difference, x
        noise = context.noise.chunk(self.n_avg, 1)[0]
        z = z_edit + here.noised(x, noise) - x if context.step == plain else z_edit
        moved = z + h * context.predict(z, here).velocity
        is_source = context.sources == torch.arange(len(z), device=z.device)
        return torch.where(is_source[:, None, None, None], there.noised(x, noise), moved), x


@dataclass(frozen=True, eq=False)
class FlowEditReplay(Replay):
    """Starts at the image, at a later step.

    Attributes:
        latents: The image's latents.
        method: Settings of the method.
        first: The first step taken.
        plain: The first plain step; the number of steps if there is none.
        seed: Seed of the sample.
    """

    latents: Float[Tensor, "c h w"]
    method: "FlowEdit"
    first: int
    plain: int
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
        return FlowEditStepper(self.method.n_avg, self.method.n_min)

    def guidance(self, step: int, role: Role, default: float) -> float:
        """The method's own, one for the source and one for targets."""
        own = self.method.source_guidance if role == "source" else self.method.guidance
        return default if own is None else own

    @property
    def draws(self) -> int:
        """Those of the method."""
        return self.method.n_avg

    def noise(self, step: int) -> Float[Tensor, "c h w"]:
        """A function of the sample's seed, the step and the draw: all of a step, channels under channels.

        Plain steps share that of the first of them.
        """
        shape = (self.latents.shape[0], self.latents.shape[1], self.latents.shape[2])
        step = min(step, self.plain)
        return torch.cat([step_noise(self.seed, step, shape, draw) for draw in range(self.method.n_avg)])


@dataclass(frozen=True)
class FlowEdit(Inversion):
    """Edits without inversion; any controller may act on the target besides.

    Published: Stable Diffusion 3 with 50 steps of which 33 are taken, guidance 3.5 and 13.5; FLUX with 28 of
    which 24 are taken, 1.5 and 5.5; one noise a step and no plain steps at the end.

    Attributes:
        strength: Part of the steps that are taken, in [0, 1]: the last ones (n_max by the number of steps).
        source_guidance: Guidance scale of the source; None: that of the request.
        guidance: Guidance scale of targets; None: that of the request.
        n_avg: Noises of a step, each a pass of the network.
        n_min: Number of the last steps that are plain sampling by the target's prompt.
    """

    needs: ClassVar[frozenset[Capability]] = frozenset({"flow"})
    own_scale: ClassVar[str] = "guidance"
    strength: Annotated[float, Between(0, 1)] = 0.66
    source_guidance: Annotated[float | None, AtLeast(0)] = 3.5
    guidance: Annotated[float | None, AtLeast(0)] = 13.5
    n_avg: Annotated[int, AtLeast(1)] = 1
    n_min: Annotated[int, AtLeast(0)] = 0

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

    def refusal(self, spec: ModelSpec, steps: int) -> str:
        """See `Inversion.refusal`."""
        taken = self.steps_taken(steps)
        if self.n_min == 0 or self.n_min < taken:
            return ""
        return (
            f"FlowEdit takes {taken} of the {steps} steps, and with n_min={self.n_min} none of them is its "
            "own; set a lower inversion.n_min, or take inversion=noising, which samples all of them"
        )

    def invert(
        self, model: DiffusionModel, sources: Sources, steps: int, tick: StepProgress = no_tick
    ) -> Sequence[Replay]:
        """See `Inversion.invert`; takes the image as it is."""
        tick_all(tick, steps)
        first = steps - self.steps_taken(steps)
        pairs = zip(sources.latents, sources.seeds, strict=True)
        return [FlowEditReplay(one, self, first, steps - self.n_min, seed) for one, seed in pairs]
