"""Prompt-to-Prompt with the settings of its released scripts, slips included."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from p2p_bench.controllers.base import BlendWords, BoundController, Controller, EditContext
from p2p_bench.controllers.local_blend import LocalBlend
from p2p_bench.controllers.refine import Refine
from p2p_bench.controllers.replace import Replace
from p2p_bench.controllers.reweight import Reweight
from p2p_bench.fields import Between, Factors, OneOf, check_fields
from p2p_bench.tau import SelfTau, Tau

Edit = Annotated[str, OneOf(("by_count", "by_length", "replace", "refine"))]
"""How the prompts of a pair are put into correspondence."""


@dataclass(frozen=True)
class Released(Controller):
    """What the released scripts do with a pair of prompts; made by `paper`, `notebook` and `pie`.

    Replacement or refinement, aligned as in the released code; around it re-weighting, if words are weighted;
    around that local blend, if there are blend words. Weights and blend words usually come from the pair.

    Args:
        cross: When cross-attention is edited and re-weighted.
        self_attn: When self-attention is injected.
        self_fraction: Size limit of that, as a fraction of the latent side; it overrides the model's.
        blend_start: Share of the steps before local blend begins.
        edit: "by_count" replaces where both prompts have equally many words and refines otherwise;
            "by_length" asks for equally many letters too, which is all that PIE-Bench's script of
            StyleDiffusion asks for (it stops at a pair with as many letters and not as many words);
            "replace" or "refine" always do that.
        blend_weight: Factor for the target's blend words where nothing is weighted.
        weights: Factor by target word.
        blend_words: Words of the source and of the target that mark the place of the edit.

    Raises:
        ConfigError: A value out of range, or an unknown edit.
    """

    cross: Tau
    self_attn: SelfTau
    self_fraction: Annotated[float | int, Between(0, 1, "a part", open_low=True)]
    blend_start: Annotated[float | int, Between(0, 1, "a share")]
    edit: Edit = "by_count"
    blend_weight: float | int = 1.0
    weights: Annotated[Mapping[str, float | int] | None, Factors()] = field(default=None, hash=False)
    blend_words: BlendWords | None = None

    def __post_init__(self) -> None:
        check_fields(self, "preset ")

    def bind(self, context: EditContext) -> BoundController:
        """See `Controller`.

        Raises:
            PromptError: The prompts do not fit the edit, or lack a weighted word or a blend word.
        """
        controller: Controller = (Replace if self._swaps(context) else Refine)(
            self.cross, self.self_attn, "paper"
        )
        old, new = self.blend_words or ((), ())
        weights = self.weights or (dict.fromkeys(new, self.blend_weight) if self.blend_weight != 1 else {})
        if weights:
            controller = Reweight(weights, self.cross, 0.0, controller)
        if old or new:
            controller = LocalBlend(controller, words=old, target_words=new, start=float(self.blend_start))
        return controller.bind(replace(context, self_fraction=float(self.self_fraction)))

    def _swaps(self, context: EditContext) -> bool:
        """Whether words are replaced."""
        if self.edit in ("replace", "refine"):
            return self.edit == "replace"
        source, target = context.source, context.target
        counts = len(source.words) == len(target.words)
        lengths = len(source.text.strip(" ")) == len(target.text.strip(" "))
        return counts and (lengths or self.edit == "by_count")

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> "Released":
        """The same with the pair's word weights and blend words, where it has some."""
        weights = word_weights if word_weights else self.weights
        return replace(self, weights=weights, blend_words=blend_words or self.blend_words)


def paper(
    cross: Tau = 0.8,
    self_attn: SelfTau = 0.4,
    edit: Edit = "by_count",
    weights: Annotated[Mapping[str, float | int] | None, Factors()] = None,
    blend_words: BlendWords | None = None,
) -> Released:
    """The first released notebook: self-attention up to 1/4 of the latent side, local blend from the start.

    Args:
        cross: See `Released`.
        self_attn: See `Released`.
        edit: See `Released`.
        weights: See `Released`.
        blend_words: See `Released`.
    """
    return Released(cross, self_attn, 0.25, 0.0, edit, 1.0, weights, blend_words)


def notebook(
    cross: Tau = 0.8,
    self_attn: SelfTau = 0.5,
    edit: Edit = "by_count",
    weights: Annotated[Mapping[str, float | int] | None, Factors()] = None,
    blend_words: BlendWords | None = None,
) -> Released:
    """The null-text notebook: self-attention up to 1/2 of the latent side, blend after 20 % of the steps.

    Args:
        cross: See `Released`; that of the notebook's first example.
        self_attn: Likewise.
        edit: See `Released`.
        weights: See `Released`.
        blend_words: See `Released`.
    """
    return Released(cross, self_attn, 0.5, 0.2, edit, 1.0, weights, blend_words)


def pie(
    cross: Tau = 0.4,
    self_attn: SelfTau = 0.6,
    weights: Annotated[Mapping[str, float | int] | None, Factors()] = None,
    blend_words: BlendWords | None = None,
) -> Released:
    """The PIE-Bench scripts (arXiv 2310.01506): always refinement, the target's blend word times 2.

    Self-attention and local blend are as in `notebook`.

    Args:
        cross: See `Released`.
        self_attn: See `Released`.
        weights: See `Released`.
        blend_words: See `Released`.
    """
    return Released(cross, self_attn, 0.5, 0.2, "refine", 2.0, weights, blend_words)
