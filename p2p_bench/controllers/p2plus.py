"""An edit whose self-attention is exchanged in the pass without the prompt too."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from p2p_bench.controllers.base import (
    BlendWords,
    BoundController,
    Controller,
    EditContext,
    check_controller,
)
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.local_blend import BoundLocalBlend
from p2p_bench.controllers.self_edit import NO_SELF_EDIT
from p2p_bench.controllers.tau import self_steps
from p2p_bench.errors import ConfigError
from p2p_bench.fields import check_fields
from p2p_bench.tau import SelfTau


@dataclass(frozen=True)
class P2Plus(Controller):
    """P2Plus (Li et al. 2023, arXiv 2303.15649, section 3.3): Prompt-to-Prompt in both passes.

    What an edit does to self-attention is done in the target's pass without the prompt as well, by the
    source's pass without it, at some of the steps. Cross-attention of that pass is left alone.

    Args:
        inner: The edit.
        unprompted: When the pass without the prompt is edited (tau_u); the edit has to exchange
            self-attention at all of these steps.

    Raises:
        ConfigError: `inner` is no controller, or a tau outside [0, 1].
    """

    inner: Controller
    unprompted: SelfTau = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "p2plus ")
        check_controller("p2plus inner", self.inner)

    def bind(self, context: EditContext) -> BoundController:
        """See `Controller`.

        Raises:
            ConfigError: The inner edit is no edit of columns, edits that pass itself, or leaves
                self-attention alone where it is to be exchanged in that pass.
            PromptError: The prompts do not fit it.
        """
        return self._widened(self.inner.bind(context), self_steps(self.unprompted, context.steps))

    def _widened(self, bound: BoundController, steps: tuple[int, int]) -> BoundController:
        if isinstance(bound, BoundLocalBlend):
            return replace(bound, inner=self._widened(bound.inner, steps))
        if not isinstance(bound, BoundP2P) or bound.pass_edit != "plain":
            raise ConfigError(f"p2plus inner: expected an edit of the pass with the prompt, got {bound!r}")
        if any(bound.self_edits[step] == NO_SELF_EDIT for step in range(*steps)):
            raise ConfigError(
                f"p2plus unprompted: {bound.title} leaves self-attention alone in some of steps {steps[0]} "
                f"to {steps[1] - 1}; raise its self_attn (tau.self_attn), or lower controller.unprompted"
            )
        if steps[0] >= steps[1]:
            return bound
        return replace(bound, title=f"{bound.title}, both passes", pass_edit="own", pass_steps=steps)

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> "P2Plus":
        """The same around the inner edit for the pair."""
        return replace(self, inner=self.inner.for_pair(word_weights, blend_words))
