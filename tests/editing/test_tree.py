"""The prefix tree: rows are shared exactly as long as edits agree."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from p2p_bench.editing.tree import groups_at, prefix_tree


def _row_steps(tables: Sequence[Sequence[int]], first: int = 0) -> int:
    tree = prefix_tree([table.__getitem__ for table in tables], first, len(tables[0]))
    return sum((stretch.stop - stretch.start) * len(stretch.groups) for stretch in tree)


def test_eleven_taus_of_fifty_steps_take_325_target_steps() -> None:
    ends = [int(tau / 10 * 51) for tau in range(11)]
    assert _row_steps([[step < end for step in range(50)] for end in ends]) == 325


def test_six_by_six_taus() -> None:
    cross, own = ([int(i / 5 * length) for i in range(6)] for length in (51, 50))
    tables = [[2 * (step < a) + (step < b) for step in range(50)] for a in cross for b in own]
    # 36 rows alone with their sources would be 3600 row steps.
    assert (_row_steps(tables) + 50) / 3600 < 0.28


def test_without_targets_there_is_no_tree() -> None:
    assert prefix_tree([], 0, 5)[0].groups == ()


@given(
    st.integers(1, 6).flatmap(
        lambda count: st.lists(
            st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=count, max_size=count
        )
    ),
    st.integers(0, 5),
)
def test_targets_share_a_row_exactly_while_their_prefixes_agree(tables: list[list[int]], first: int) -> None:
    tree = prefix_tree([table.__getitem__ for table in tables], first, 6)
    assert tree[0].start == first
    assert tree[-1].stop == 6
    assert all(a.stop == b.start for a, b in itertools.pairwise(tree))
    for step in range(first, 6):
        groups = groups_at(tree, step)
        assert sorted(index for group in groups for index in group) == list(range(len(tables)))
        together = {frozenset((i, j)) for group in groups for i in group for j in group if i != j}
        for i in range(len(tables)):
            for j in range(i):
                same = tables[i][first : step + 1] == tables[j][first : step + 1]
                assert (frozenset((i, j)) in together) == same
    changes = [[s for s in range(1, 6) if table[s] != table[s - 1]] for table in tables]
    assert prefix_tree([table.__getitem__ for table in tables], first, 6, changes) == tree
