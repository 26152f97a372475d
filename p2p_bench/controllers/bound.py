"""The one bound controller of the algebra: a timetable of column edits and of self-attention edits."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from itertools import groupby
from typing import Literal

from jaxtyping import Float64
from PIL import Image
from torch import Tensor

from p2p_bench.attention.columns import Zero, map_fault
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import (
    NO_EDIT,
    ColumnEdit,
    SiteEdit,
    Unprompted,
    compose,
    gate,
    joint_terms,
    p2p_terms,
    query_terms,
)
from p2p_bench.controllers.base import BoundController, EditContext
from p2p_bench.controllers.local_blend import blended, unblended
from p2p_bench.controllers.self_edit import NO_SELF_EDIT, SelfEdit, injection, override
from p2p_bench.controllers.tau import cross_gate, schedule_gate, self_steps
from p2p_bench.controllers.timetable import Timetable, draw, ranges, write
from p2p_bench.errors import ConfigError
from p2p_bench.tau import PerWord, Schedule, Tau, is_on, parse_tau

Part = Literal["cross-attention", "self-attention", "features"]
"""What of a network is edited."""

_PASSES: dict[Unprompted, str] = {
    "own": "the source's pass without a prompt",
    "source": "the source's pass with its prompt",
}


@dataclass(frozen=True, repr=False)
class BoundP2P(BoundController):
    """A timetable of edits.

    Attributes:
        title: The kind of edit, for people.
        context: What it was bound to.
        cross: For each step, the cross-attention edit (L, R).
        self_edits: For each step, what is done to self-attention.
        normalised: Whether rows of edited cross-attention maps are normalised again.
        feature_steps: Steps at which the source's features take the place of the target's, half-open.
        pass_edit: What becomes of the target's pass without the prompt, where self-attention or features are
            edited; cross-attention is left alone there.
        pass_steps: Steps at which that is so, half-open; None: all.
        map_amount: How far latents go toward the source's cross-attention maps before each step.
        asked: What its settings ask to edit, in whatever share of the steps; few steps may leave none to it.
        lost: In words, what it asks for and is not: edits undone by others, words with others' maps.
    """

    title: str
    context: EditContext
    cross: tuple[ColumnEdit, ...]
    self_edits: tuple[SelfEdit, ...]
    normalised: bool = False
    feature_steps: tuple[int, int] = (0, 0)
    pass_edit: Unprompted = "plain"
    pass_steps: tuple[int, int] | None = None
    map_amount: float = 0.0
    asked: tuple[Part, ...] = field(default=(), compare=False)
    lost: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Checks the edits, which are anybody's.

        Raises:
            ConfigError: They are not as many as the steps, or a map does not fit the target's columns.
        """
        steps, width = self.context.steps, self.context.target.width
        if (len(self.cross), len(self.self_edits)) != (steps, steps):
            raise ConfigError(
                f"{self.title}: expected an edit for each of {steps} steps, got {len(self.cross)} of "
                f"cross-attention and {len(self.self_edits)} of self-attention"
            )
        for edit in {id(edit): edit for edit in self.cross}.values():
            for name, columns in zip("LR", edit, strict=True):
                if fault := map_fault(columns, width):
                    raise ConfigError(f"{self.title}: {name}: {fault}")

    @property
    def control(self) -> str:
        """The kind of edit."""
        return self.title

    def site_edit(self, step: int, site: Site) -> SiteEdit | None:
        """See `BoundController`."""
        terms = self._terms(step, site)
        if terms is None or site.kind == "self" or not self._normalises(step):
            return terms
        return tuple(replace(term, normalised=True) for term in terms)

    def unprompted(self, step: int) -> Unprompted:
        """See `BoundController`."""
        edited = self.self_edits[step] != NO_SELF_EDIT or self.features(step)
        start, stop = self.pass_steps or (0, self.context.steps)
        edited = edited and start <= step < stop
        return self.pass_edit if edited else "plain"

    def unprompted_edit(self, step: int, site: Site) -> SiteEdit | None:
        """See `BoundController`."""
        if self.unprompted(step) == "plain":
            return None
        if site.joint:
            return joint_terms(NO_EDIT, self.self_edits[step].pixels(site))
        return self.self_edits[step].terms(site) if site.kind == "self" else None

    def features(self, step: int) -> bool:
        """See `BoundController`."""
        start, stop = self.feature_steps
        return start <= step < stop

    def map_guidance(self, step: int) -> float:
        """See `BoundController`."""
        return self.map_amount

    def edits(self, part: Part, step: int, sites: Sequence[Site] | None = None) -> bool:
        """Whether a part of a network is edited at a step, if it has these sites; None: whatever it has."""
        if part == "cross-attention":
            return self.cross[step] != NO_EDIT
        if part == "features":
            return self.features(step)
        own = self.self_edits[step]
        if sites is None:
            return own != NO_SELF_EDIT
        pixels = (site for site in sites if site.kind == "self" or site.joint or own.queries(site))
        return any(own.pixels(site) != "own" for site in pixels)

    def _normalises(self, step: int) -> bool:
        """Whether rows are normalised at a step: where columns are edited, the others add up to 1."""
        return self.normalised and self.cross[step] != NO_EDIT

    def _terms(self, step: int, site: Site) -> SiteEdit | None:
        if site.joint:
            return joint_terms(self.cross[step], self.self_edits[step].pixels(site))
        if site.kind == "self":
            return self.self_edits[step].terms(site)
        if self.self_edits[step].queries(site):
            return query_terms(*self.cross[step])
        return None if self.cross[step] == NO_EDIT else p2p_terms(*self.cross[step])

    def edits_pixels(self) -> bool:
        """Whether it edits self-attention or features at any step."""
        return any(edit != NO_SELF_EDIT for edit in self.self_edits) or any(self.feature_steps)

    def signature(self, step: int) -> Hashable:
        """See `BoundController`."""
        edits: tuple[Hashable, ...] = self.cross[step], self.self_edits[step]
        if self._normalises(step):
            edits = (*edits, "normalised")
        if self.features(step):
            edits = (*edits, "features")
        if self.map_amount:
            edits = (*edits, ("maps", self.map_amount))
        halves = self.unprompted(step)
        return edits if halves == "plain" else (*edits, halves)

    def changes(self) -> Sequence[int]:
        """See `BoundController`."""
        cross, own = self.cross, self.self_edits
        return [
            step
            for step in range(1, len(cross))
            if cross[step] is not cross[step - 1]
            or own[step] is not own[step - 1]
            or step in self.feature_steps
            or step in (self.pass_steps or ())
        ]

    def __repr__(self) -> str:
        """The edit in one line."""
        prompts = f"{self.context.source.text!r} -> {self.context.target.text!r}"
        return f"<{self.title}: {prompts}, {self.context.steps} steps>"

    def __str__(self) -> str:
        """The edit as a table: where each target word's columns come from, and in which steps."""
        lines = [repr(self)[1:-1], *write(self.timetable())]
        on = [self.features(step) for step in range(self.context.steps)]
        if any(on):
            lines.append(f"  features of the source at {ranges(on)}")
        if self.map_amount:
            lines.append(f"  latents toward the source's cross-attention maps, times {self.map_amount:g}")
        passes = [self.unprompted(step) != "plain" for step in range(self.context.steps)]
        if any(passes):
            when = "" if self.pass_steps is None else f" at {ranges(passes)}"
            lines.append(f"  the pass without the prompt likewise{when}, by {_PASSES[self.pass_edit]}")
        return "\n".join(lines)

    def timetable(self) -> Timetable:
        """What is done to which token in which step."""
        return Timetable(self.context.source, self.context.target, self.cross, self.self_edits)


def bind_p2p(
    title: str,
    context: EditContext,
    edit: ColumnEdit = NO_EDIT,
    cross: Tau = 0.0,
    self_attn: Tau = 0.0,
    self_edit: SelfEdit | None = None,
) -> BoundP2P:
    """One edit of cross-attention and one of self-attention, each at its steps.

    Args:
        title: The kind of edit, for people.
        context: What it is bound to.
        edit: The cross-attention edit.
        cross: When it is on, and for which columns.
        self_attn: When self-attention is edited.
        self_edit: What is done to it; None injects the source's maps up to the context's size limit.

    Raises:
        PromptError: A schedule names a word that the target does not have.
    """
    steps = context.steps
    tau = parse_tau(cross)
    if isinstance(tau, PerWord):
        runs = _runs(cross_gate(tau, context.target, steps))
    else:
        # Every variant of a sweep binds anew, so what the prompts do not decide is computed once.
        runs = _shared_runs(tau, context.target.width, steps)
    edits: list[ColumnEdit] = []
    for run in runs:
        edits += [run.gated(edit)] * run.steps
    start, stop = self_steps(self_attn, steps)
    there = injection(context.self_fraction) if self_edit is None else self_edit
    self_edits = (NO_SELF_EDIT,) * start + (there,) * (stop - start) + (NO_SELF_EDIT,) * (steps - stop)
    asked: list[Part] = ["cross-attention"] if edit != NO_EDIT and is_on(tau) else []
    asked += ["self-attention"] if is_on(parse_tau(self_attn)) else []
    return BoundP2P(title, context, tuple(edits), self_edits, asked=tuple(asked))


@dataclass(frozen=True, eq=False)
class _Run:
    """Consecutive steps with one gate; `whole` where it is all on or all off."""

    steps: int
    alpha: Float64[Tensor, " w"]
    whole: bool | None

    def gated(self, edit: ColumnEdit) -> ColumnEdit:
        """The edit during these steps."""
        if self.whole is None:
            return gate(edit, self.alpha)
        return edit if self.whole else NO_EDIT


def _runs(gates: Float64[Tensor, "steps w"]) -> tuple[_Run, ...]:
    found = []
    for _, members in groupby(gates, key=lambda alpha: alpha.numpy().tobytes()):
        alphas = list(members)
        first = alphas[0]
        whole = bool(first[0]) if bool((first == first[0]).all()) and float(first[0]) in (0.0, 1.0) else None
        found.append(_Run(len(alphas), first, whole))
    return tuple(found)


@lru_cache(maxsize=1024)
def _shared_runs(schedule: Schedule, width: int, steps: int) -> tuple[_Run, ...]:
    """Runs of a schedule that names no word."""
    return _runs(schedule_gate(schedule, width, steps))


def then(first: BoundP2P, second: BoundP2P) -> BoundP2P:
    """`second` applied to the result of `first` at each step.

    Cross edits follow the law of composition; of two edits of self-attention at one site the second counts,
    and of two injections of features the second, as of two descents toward the source's maps.

    Raises:
        ConfigError: They edit the pass without the prompt in different ways.
    """
    passes = {(one.pass_edit, one.pass_steps) for one in (first, second) if one.edits_pixels()}
    if len(passes) > 1:
        raise ConfigError(
            f"controllers: {first.title} and {second.title} both edit self-attention, and the pass without "
            "the prompt in different ways; let both edit it, or neither"
        )
    pass_edit, pass_steps = passes.pop() if passes else ("plain", None)
    return BoundP2P(
        f"{first.title}, {second.title}",
        second.context,
        cross=tuple(map(compose, first.cross, second.cross)),
        self_edits=tuple(map(override, first.self_edits, second.self_edits)),
        normalised=first.normalised or second.normalised,
        feature_steps=second.feature_steps if any(second.feature_steps) else first.feature_steps,
        pass_edit=pass_edit,
        pass_steps=pass_steps,
        map_amount=second.map_amount or first.map_amount,
        asked=tuple(dict.fromkeys((*first.asked, *second.asked))),
        lost=(*first.lost, *second.lost, *_lost(first, second)),
    )


def _lost(first: BoundP2P, second: BoundP2P) -> tuple[str, ...]:
    """Says so where nothing is left of the first of two edits: the second has R = 0 at all of its steps."""
    edited = [step for step, edit in enumerate(first.cross) if edit != NO_EDIT]
    if not edited or not all(isinstance(second.cross[step].R, Zero) for step in edited):
        return ()
    return (f"{second.title} takes the source's maps anew, which leaves nothing of {first.title} before it",)


def compose_bound(bounds: Sequence[BoundController], where: str) -> BoundController:
    """Bound controllers applied in order. Of several local blends the last counts.

    Args:
        bounds: At least one; timetables, or local blends around them.
        where: Names the argument they were given as, for the message.

    Raises:
        ConfigError: One is not a timetable of edits, so that it cannot be composed, or normalises its rows
            beside another that edits columns.
        PromptError: The edit leaves the words of a local blend no map to blend by.
    """
    blends = [bound.blend for bound in bounds if bound.blend is not None]
    timetables = []
    for bound in map(unblended, bounds):
        if not isinstance(bound, BoundP2P):
            raise ConfigError(f"{where}: expected an edit of columns, got {bound!r}")
        timetables.append(bound)
    if any(bound.normalised for bound in timetables) and sum(map(_edits_columns, timetables)) > 1:
        # Divided rows that are edited again would not add up to 1, and behind its edit none is divided.
        raise ConfigError(
            f"{where}: normalised divides rows by what all edits of columns leave of them; put normalised "
            "around all of them, not around one"
        )
    composed = reduce(then, timetables)
    return blended(composed, blends[-1], composed.context) if blends else composed


def _edits_columns(bound: BoundP2P) -> bool:
    return any(edit != NO_EDIT for edit in bound.cross)


def timetable_image(bound: BoundController) -> Image.Image:
    """A bound controller as a picture: a column per step, a row per target token and one for self-attention.

    Blue is taken from the source, grey is the target's own, white is nothing; darker is more than one map's
    worth, red is negative.

    Raises:
        ConfigError: It is not a timetable of edits.
    """
    bound = unblended(bound)
    if not isinstance(bound, BoundP2P):
        raise ConfigError(f"timetable_image: expected an edit of columns, got {bound!r}")
    return draw(bound.timetable())
