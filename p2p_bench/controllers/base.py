"""What a controller is: a description that, bound to a prompt pair, says what each step does at each site."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from p2p_bench.attention.columns import Zero, as_matrix
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import NO_EDIT, ColumnEdit, SiteEdit, compose, p2p_terms, self_injection
from p2p_bench.controllers.blend import BoundBlend
from p2p_bench.controllers.tau import Tau, cross_steps, self_steps
from p2p_bench.prompts.words import TokenizedPrompt

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
    def needs_source(self, step: int) -> bool:
        """Whether any site, or the blend, reads the source's row at this step."""

    @abstractmethod
    def signature(self, step: int) -> Hashable:
        """Equal, also between controllers, exactly where the step's edits (and blends) are equal."""

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


@dataclass(frozen=True, repr=False)
class BoundP2P(BoundController):
    """A timetable of Prompt-to-Prompt edits.

    Attributes:
        title: The kind of edit, for people.
        context: What it was bound to.
        cross: For each step, the cross-attention edit (L, R).
        injects: For each step, whether the source's self-attention maps are injected.
    """

    title: str
    context: EditContext
    cross: tuple[ColumnEdit, ...]
    injects: tuple[bool, ...]

    def site_edit(self, step: int, site: Site) -> SiteEdit | None:
        """See `BoundController`."""
        if site.kind == "cross":
            return None if self.cross[step] == NO_EDIT else p2p_terms(*self.cross[step])
        small = site.fraction <= self.context.self_fraction
        return self_injection() if self.injects[step] and small else None

    def needs_source(self, step: int) -> bool:
        """See `BoundController`."""
        return self.injects[step] or not isinstance(self.cross[step].L, Zero)

    def signature(self, step: int) -> Hashable:
        """See `BoundController`."""
        return self.cross[step], self.context.self_fraction if self.injects[step] else 0.0

    def __repr__(self) -> str:
        """The edit in one line."""
        prompts = f"{self.context.source.text!r} -> {self.context.target.text!r}"
        return f"<{self.title}: {prompts}, {self.context.steps} steps>"

    def __str__(self) -> str:
        """The edit, the steps it is on, and where each target word's columns come from."""
        lines = [
            repr(self)[1:-1],
            f"  self-attention: injected at {_ranges(self.injects)}"
            f" (maps up to {self.context.self_fraction:g} of the latent side)",
        ]
        for edit in dict.fromkeys(self.cross):
            lines.append(f"  cross-attention at {_ranges([other == edit for other in self.cross])}:")
            lines += _alignment(self.context, edit) if edit != NO_EDIT else ["    not edited"]
        return "\n".join(lines)


def bind_p2p(title: str, context: EditContext, edit: ColumnEdit, cross: Tau, self_attn: Tau) -> BoundP2P:
    """One cross-attention edit during `cross`, and self-attention injection during `self_attn`."""
    cross_on, self_on = cross_steps(cross, context.steps), self_steps(self_attn, context.steps)
    return BoundP2P(
        title,
        context,
        cross=tuple(edit if cross_on[0] <= step < cross_on[1] else NO_EDIT for step in range(context.steps)),
        injects=tuple(self_on[0] <= step < self_on[1] for step in range(context.steps)),
    )


def then(first: BoundP2P, second: BoundP2P) -> BoundP2P:
    """`second` applied to the result of `first` at each step; self-attention is injected if either does."""
    return BoundP2P(
        f"{first.title}, {second.title}",
        second.context,
        cross=tuple(compose(*edits) for edits in zip(first.cross, second.cross, strict=True)),
        injects=tuple(a or b for a, b in zip(first.injects, second.injects, strict=True)),
    )


def _alignment(context: EditContext, edit: ColumnEdit) -> list[str]:
    """One line per target word: the source words and own columns its columns are made of."""
    L, R = as_matrix(edit.L, context.target.width), as_matrix(edit.R, context.target.width)
    lines = []
    for word in context.target.words:
        columns = list(word.columns)
        origins = [old.text for old in context.source.words if L[list(old.columns)][:, columns].any()]
        origins += ["own columns"] if R[columns][:, columns].any() else []
        lines.append(f"    {word.text} <- {' + '.join(origins) or 'nothing'}")
    return lines


def _ranges(on: Sequence[bool]) -> str:
    """Steps that are on, as "0..19" or "no step"."""
    states = [False, *on, False]
    edges = [step for step in range(len(on) + 1) if states[step] != states[step + 1]]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return "steps " + ", ".join(f"{start}..{stop - 1}" for start, stop in pairs) if edges else "no step"
