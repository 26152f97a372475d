"""Several controllers, one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from p2p_bench.controllers.base import (
    BlendWords,
    BoundController,
    Controller,
    EditContext,
    check_controller,
)
from p2p_bench.controllers.bound import compose_bound
from p2p_bench.fields import NotEmpty, check_fields


@dataclass(frozen=True)
class Compose(Controller):
    """Controllers applied in order, each to the result of those before it.

    Cross edits follow the law of composition, edit 1 then edit 2 is (L2 + L1 R2, R1 R2), so that an edit with
    R = 0 leaves nothing of those before it; where it is so at all of their steps, results note it. At each
    self-attention site the last controller that edits it counts, and of several local blends the last one.

    Args:
        controllers: At least one; each keeps its own tau.

    Raises:
        ConfigError: There is none, or one is no controller.
    """

    controllers: Annotated[Sequence[Controller], NotEmpty("at least one controller")]

    def __post_init__(self) -> None:
        check_fields(self, "compose ")
        for one in self.controllers:
            check_controller("compose controllers", one)
        object.__setattr__(self, "controllers", tuple(self.controllers))

    def bind(self, context: EditContext) -> BoundController:
        """See `Controller`.

        Raises:
            ConfigError: A controller is not an edit of columns, so that it cannot be composed.
            PromptError: The prompts do not fit one of them.
        """
        return compose_bound([one.bind(context) for one in self.controllers], "compose controllers")

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> "Compose":
        """The same of the controllers for the pair."""
        return replace(
            self, controllers=[one.for_pair(word_weights, blend_words) for one in self.controllers]
        )
