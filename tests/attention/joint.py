"""What tests of folded attention share: their edits, and how these compare with written-out maps."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from p2p_bench.attention.columns import Zero, as_matrix, dense
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import NO_EDIT
from p2p_bench.controllers.bound import BoundP2P
from p2p_bench.controllers.self_edit import NO_SELF_EDIT
from tests.attention.rig import STEPS, WIDTH, context
from tests.controllers.cases import CASES, Setting
from tests.oracle import MapRow

EXACT = 1e-10
COLUMNS = [name for name in CASES if name != "none" and not name.startswith(("masactrl", "self-attention"))]
"""Cases that edit text columns."""
PIXELS = ["replace", "notebook", *(name for name in CASES if "masactrl" in name or "self-attention" in name)]
"""Cases that edit pixel columns."""

Edits = Sequence[tuple[int, int, BoundP2P]]
"""Row, source and controller of each target."""


def bound(name: str) -> BoundP2P:
    """The controller of a case, bound to its prompts."""
    case = CASES[name]
    made = case.controller.bind(context(case.source, case.target))
    assert isinstance(made, BoundP2P)
    return made


def last_steps(edits: Iterable[Any]) -> list[int]:
    """One step for each edit there is; when they begin and end is no matter of the attention."""
    return list({edit: step for step, edit in enumerate(edits)}.values())


def one_percent_off(controller: BoundP2P) -> Iterator[tuple[int, BoundP2P]]:
    """For each edit of text columns and each of its factors: a step that has it, and the same 1 % off."""
    steps = [step for step in last_steps(controller.cross) if controller.cross[step] != NO_EDIT]
    assert steps
    for step in steps:
        for part in ("L", "R"):
            edit = controller.cross[step]
            if isinstance(getattr(edit, part), Zero):
                continue
            wrong = edit._replace(**{part: dense(as_matrix(getattr(edit, part), WIDTH) * 1.01)})
            cross = tuple(wrong if at == step else other for at, other in enumerate(controller.cross))
            yield step, replace(controller, cross=cross)


@dataclass(frozen=True)
class Comparison:
    """Folded attention of a network against written-out maps.

    Attributes:
        compare: Largest difference at each site, of edits, of what they have to do, at a step, in a batch of
            so many rows.
        setting: What the oracle is told of the network.
        sites: The network's.
    """

    compare: Callable[..., dict[str, float]]
    setting: Callable[[], Setting]
    sites: Callable[[], Sequence[Site]]

    def of(self, name: str, controller: BoundP2P, step: int, **options: Any) -> dict[str, float]:
        """Differences of one target: two unconditional rows, the source, and the target."""
        expected = [MapRow(3, 2, CASES[name].chain(self.setting()))]
        return self.compare([(3, 2, controller)], expected, step, 4, **options)

    def assert_equal(self, name: str, steps: Sequence[int] | None = None) -> None:
        """Every site computes what the written-out maps do, at each step; None: one for each edit."""
        controller = bound(name)
        for step in steps or last_steps(zip(controller.cross, controller.self_edits, strict=True)):
            found = self.of(name, controller, step)
            assert found.keys() == {site.name for site in self.sites()}
            assert max(found.values()) < EXACT, (step, found)

    def assert_one_percent_is_seen(self, name: str) -> None:
        """Both factors of an edit of text columns count at every site that has some."""
        for step, wrong in one_percent_off(bound(name)):
            found = self.of(name, wrong, step)
            assert min(found[site] for site in self.setting().layers) > 1e4 * EXACT

    def assert_missing_pixel_edits_are_seen(self, name: str) -> None:
        """An edit of pixel columns counts at the sites that have it, and there alone."""
        controller = bound(name)
        without = replace(controller, self_edits=(NO_SELF_EDIT,) * STEPS)
        seen = False
        for step in last_steps(controller.self_edits):
            found = self.of(name, without, step)
            for site in self.sites():
                edited = controller.self_edits[step].pixels(site) != "own"
                seen = seen or edited
                assert (found[site.name] > 1e4 * EXACT) == edited, (step, site)
        assert seen

    def assert_batches_are_equal(self) -> None:
        """Three unconditional rows, two sources, then targets of either source, not in order."""
        names = ("replace", "none", "refine, then reweight, then masactrl", "notebook", "refine")
        places = ((4, 3), (5, 3), (7, 6), (8, 6), (9, 3))
        edits = [(*place, bound(name)) for place, name in zip(places, names, strict=True)]
        expected = [
            MapRow(*place, CASES[name].chain(self.setting()))
            for place, name in zip(places, names, strict=True)
        ]
        for step in (0, 4, 7):
            assert max(self.compare(edits, expected, step, 10).values()) < EXACT
