"""A controller that somebody else writes, with a slip in it: it is named before anything is computed."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from p2p_bench.attention.columns import Dense, Diagonal, Identity, Zero
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import ColumnEdit, SiteEdit, Term
from p2p_bench.controllers import Controller, EditContext
from p2p_bench.controllers.base import BoundController
from p2p_bench.controllers.binding import bind_edit
from p2p_bench.controllers.bound import bind_p2p
from p2p_bench.errors import ConfigError
from tests.attention.rig import STEPS, WIDTH, context
from tests.unchecked import unchecked

HALF = torch.full((WIDTH,), 0.5, dtype=torch.float64)
KEPT = (Term("source", "source", "target", Identity()),)


@dataclass(frozen=True)
class Mine(Controller):
    """Binds to whatever it is told to."""

    make: Callable[[EditContext], Any]

    def bind(self, context: EditContext) -> Any:
        return self.make(context)


@dataclass(frozen=True)
class Own(BoundController):
    """Says the same terms in every step, or no terms after the first."""

    terms: Any
    first_alone: bool = False
    named: bool = True

    def site_edit(self, step: int, site: Site) -> SiteEdit | None:
        terms: SiteEdit = self.terms
        return None if self.first_alone and step else terms

    def signature(self, step: int) -> Hashable:
        return step if self.named else "one"


def bound(make: Callable[[EditContext], Any]) -> BoundController:
    return bind_edit(Mine(make), context("a red circle", "a blue circle"))


def edit(columns: Any) -> Callable[[EditContext], Any]:
    return lambda context: bind_p2p("mine", context, ColumnEdit(columns, Zero()), 0.8)


def test_what_fits_is_bound() -> None:
    assert bound(edit(Diagonal(HALF))).control == "mine"
    assert bound(lambda context: Own(KEPT)).signature(0) == 0
    assert bound(lambda context: Own(KEPT, first_alone=True)).signature(1) == 1
    assert bound(lambda context: Own(KEPT, named=False)).signature(1) == "one"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (Diagonal(HALF[1:]), rf"mine: L: expected values of shape \({WIDTH},\).* got \({WIDTH - 1},\)"),
        (Diagonal(HALF[:1]), r"got \(1,\)"),
        (Dense(torch.ones(WIDTH - 1, WIDTH - 1, dtype=torch.float64)), rf"\({WIDTH}, {WIDTH}\), a column"),
        (unchecked(Diagonal(HALF), values=torch.ones(1, WIDTH)), rf"got \(1, {WIDTH}\)"),
        (Diagonal(HALF * math.nan), "finite"),
        (torch.eye(WIDTH), "expected a column map.* got a Tensor"),
    ],
)
def test_a_map_that_does_not_fit_the_prompt_is_refused(columns: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bound(edit(columns))


def test_an_edit_is_wanted_for_every_step() -> None:
    def short(context: EditContext) -> Any:
        made = bind_p2p("mine", context, ColumnEdit(Identity(), Zero()), 0.8)
        return replace(made, cross=made.cross[:-1])

    with pytest.raises(ConfigError, match=f"each of {STEPS} steps, got {STEPS - 1} of cross-attention"):
        bound(short)


@pytest.mark.parametrize("made", [None, ColumnEdit(Identity(), Zero())])
def test_a_controller_that_binds_to_something_else_is_named(made: Any) -> None:
    with pytest.raises(ConfigError, match=f"Mine.bind returned a {type(made).__name__}"):
        bound(lambda context: made)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (list(KEPT), "a tuple of terms, got a list"),
        (KEPT[0], "a tuple of terms, got a Term"),
        ((replace(KEPT[0], columns=Diagonal(HALF[1:])),), f"got .{WIDTH - 1},"),
        ((unchecked(KEPT[0], query="src"),), "'source' or 'target'.*'src'"),
    ],
)
def test_terms_of_its_own_are_looked_at(terms: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bound(lambda context: Own(terms))


def test_a_signature_that_does_not_tell_steps_apart_is_refused() -> None:
    with pytest.raises(ConfigError, match="steps 0 and 1 have one signature and different edits"):
        bound(lambda context: Own(KEPT, first_alone=True, named=False))
