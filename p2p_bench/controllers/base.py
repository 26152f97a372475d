"""What a controller is: a description that, bound to a prompt pair, says what each step does at each site."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import SiteEdit, Unprompted
from p2p_bench.controllers.blend import BoundBlend
from p2p_bench.errors import ConfigError
from p2p_bench.fields import OneOf
from p2p_bench.prompts.words import TokenizedPrompt

Preset = Annotated[str, OneOf(("correct", "paper"))]
"""Alignment of tokens without slips, or with those of the released code."""

BlendWords = tuple[tuple[str, ...], tuple[str, ...]]
"""Words of the source and words of the target."""


@dataclass(frozen=True)
class EditContext:
    """What a controller is bound to.

    Attributes:
        source: The source prompt.
        target: The target prompt.
        steps: Number of denoising steps.
        self_fraction: Self-attention is injected where maps are at most this fraction of the latent side.
    """

    source: TokenizedPrompt
    target: TokenizedPrompt
    steps: int
    self_fraction: float


class BoundController(ABC):
    """A controller for one source and one target: a pure function of (step, site)."""

    @abstractmethod
    def site_edit(self, step: int, site: Site) -> SiteEdit | None:
        """Terms that replace the target's attention at `site`, or None to leave it alone."""

    @abstractmethod
    def signature(self, step: int) -> Hashable:
        """Equal, also between controllers, exactly where the step's edits (and blends) are equal."""

    def unprompted(self, step: int) -> Unprompted:
        """What becomes of the target's pass without the prompt at a step."""
        return "plain"

    def unprompted_edit(self, step: int, site: Site) -> SiteEdit | None:
        """Terms that replace its attention there; None leaves it alone."""
        return None

    def features(self, step: int) -> bool:
        """Whether features of the source take the place of the target's at a step, in the passes it edits."""
        return False

    def map_guidance(self, step: int) -> float:
        """How far the target's latents go, before a step, toward the source's cross-attention maps.

        A factor of the gradient, see `p2p_bench.editing.map_guidance`; 0: not at all.
        """
        return 0.0

    def changes(self) -> Sequence[int] | None:
        """Steps whose signature may differ from that of the step before; None: any may."""
        return None

    @property
    def control(self) -> str:
        """What it does, in a few words."""
        return type(self).__name__

    @property
    def blend(self) -> BoundBlend | None:
        """What is blended with the source after each step, or None."""
        return None


class Controller(ABC):
    """What a user writes down: a frozen dataclass of plain settings, checked when it is made."""

    @abstractmethod
    def bind(self, context: EditContext) -> BoundController:
        """The controller for one pair of prompts.

        Raises:
            PromptError: The prompts do not fit the controller.
        """

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> "Controller":
        """The controller for a pair of a data set, which may say more than prompts; most ignore that.

        Args:
            word_weights: Factors for some words of the target.
            blend_words: Words of the source and of the target that mark the place of the edit.
        """
        return self


def check_controller(name: str, value: object) -> None:
    """Raises a `ConfigError` unless a value is a controller."""
    if not isinstance(value, Controller):
        raise ConfigError(f"{name}: expected a controller, got {value!r}")
