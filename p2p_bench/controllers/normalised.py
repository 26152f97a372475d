"""Edited maps whose rows add up to 1 again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from p2p_bench.attention.columns import as_matrix
from p2p_bench.controllers.base import BlendWords, Controller, EditContext, check_controller
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.errors import ConfigError


@dataclass(frozen=True)
class Normalised(Controller):
    """An edit of columns after which the rows of its maps are normalised again.

    Published code leaves rows as the edit makes them, and so do all other controllers here: at a joint site
    they then add up to 0.8 to 1.2 or so, since text columns of the source stand beside pixel columns of the
    target. Here each row is divided by its sum, text and pixels together, in every head. It takes one more
    fused call for the edited rows. Recorded maps, and so blends, are those before the division.

    Args:
        inner: The edit; local blend goes around this controller, not within.

    Raises:
        ConfigError: `inner` is no controller.
    """

    inner: Controller

    def __post_init__(self) -> None:
        check_controller("normalised inner", self.inner)

    def bind(self, context: EditContext) -> BoundP2P:
        """See `Controller`.

        Raises:
            ConfigError: The inner edit is no edit of columns, or weights one below 0, so that a row could
                add up to nothing.
            PromptError: The prompts do not fit it.
        """
        bound = self.inner.bind(context)
        if not isinstance(bound, BoundP2P):
            raise ConfigError(
                f"normalised inner: expected an edit of columns, got {bound!r}; put local_blend around it"
            )
        parts = {part for edit in bound.cross for part in edit}
        width = context.target.width
        if any(bool((as_matrix(part, width) < 0).any()) for part in parts):
            raise ConfigError(
                "normalised inner: a weight below 0 can leave a row that adds up to nothing; weight words by "
                "0 or more"
            )
        return replace(bound, title=f"{bound.title}, normalised", normalised=True)

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> "Normalised":
        """The same around the inner edit for the pair."""
        return replace(self, inner=self.inner.for_pair(word_weights, blend_words))
