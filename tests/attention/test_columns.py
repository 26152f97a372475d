import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from p2p_bench.attention.columns import (
    ColumnMap,
    Dense,
    Diagonal,
    Identity,
    Zero,
    add,
    as_matrix,
    dense,
    diagonal,
    matmul,
)
from p2p_bench.attention.terms import (
    NO_EDIT,
    ColumnEdit,
    Term,
    compose,
    gate,
    mutual_attention,
    p2p_terms,
    self_injection,
)

W = 4
weights = st.sampled_from([0.0, 1.0, -0.5, 2.0, 0.25])
vectors = st.lists(weights, min_size=W, max_size=W).map(lambda v: torch.tensor(v, dtype=torch.float64))
matrices = st.lists(vectors, min_size=W, max_size=W).map(torch.stack)
column_maps = st.one_of(st.just(Zero()), st.just(Identity()), vectors.map(diagonal), matrices.map(dense))
# At most one summand of a sum may be the identity without a width.
# Two identities cannot be added, see `add`; no edit is that.
edits = (
    st.tuples(st.one_of(st.just(Zero()), vectors.map(diagonal), matrices.map(dense)), column_maps)
    .map(lambda pair: ColumnEdit(*pair))
    .filter(lambda edit: edit != ColumnEdit(Identity(), Identity()))
)


def applied(edit: ColumnEdit, A_s: Tensor, A_t: Tensor) -> Tensor:
    return A_s @ as_matrix(edit.L, W) + A_t @ as_matrix(edit.R, W)


def attention_maps() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(6, W, generator=generator, dtype=torch.float64) for _ in range(2))


@given(column_maps, column_maps)
@settings(deadline=None)
def test_matmul_is_the_matrix_product(left: ColumnMap, right: ColumnMap) -> None:
    assert torch.equal(as_matrix(matmul(left, right), W), as_matrix(left, W) @ as_matrix(right, W))


@given(column_maps, column_maps)
@settings(deadline=None)
def test_add_is_the_matrix_sum(left: ColumnMap, right: ColumnMap) -> None:
    if left == right == Identity():
        with pytest.raises(ValueError, match="two identities"):
            add(left, right)
    else:
        assert torch.equal(as_matrix(add(left, right), W), as_matrix(left, W) + as_matrix(right, W))


@given(matrices)
@settings(deadline=None)
def test_equal_maps_have_one_form_and_one_hash(matrix: Tensor) -> None:
    columns = dense(matrix)
    again = dense(matrix.clone())
    assert columns == again
    assert hash(columns) == hash(again)
    assert torch.equal(as_matrix(columns, W), matrix)
    assert dense(-matrix) == dense(0.0 - matrix)
    assert hash(dense(-matrix)) == hash(dense(0.0 - matrix))


def test_structure_is_found() -> None:
    eye = torch.eye(W, dtype=torch.float64)
    assert dense(eye) == Identity()
    assert dense(0 * eye) == Zero()
    assert isinstance(dense(2 * eye), Diagonal)
    assert isinstance(dense(eye.roll(1, 0)), Dense)
    assert dense(2 * eye) != dense(3 * eye)
    assert matmul(dense(eye.roll(1, 0)), dense(eye.roll(-1, 0))) == Identity()


@given(edits, edits)
@settings(deadline=None)
def test_compose_applies_the_second_edit_to_the_first_ones_result(
    first: ColumnEdit, second: ColumnEdit
) -> None:
    A_s, A_t = attention_maps()
    expected = applied(second, A_s, applied(first, A_s, A_t))
    torch.testing.assert_close(applied(compose(first, second), A_s, A_t), expected, rtol=0, atol=1e-12)


@given(edits, edits, edits)
@settings(deadline=None)
def test_composition_is_associative_and_no_edit_is_its_unit(
    a: ColumnEdit, b: ColumnEdit, c: ColumnEdit
) -> None:
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(as_matrix(one, W), as_matrix(other, W), rtol=0, atol=1e-12)
    assert compose(NO_EDIT, a) == a
    assert compose(a, NO_EDIT) == a


@given(edits, vectors)
@settings(deadline=None)
def test_gate_mixes_the_edit_with_the_targets_own_maps(edit: ColumnEdit, alpha: Tensor) -> None:
    A_s, A_t = attention_maps()
    expected = applied(edit, A_s, A_t) * alpha + A_t * (1 - alpha)
    torch.testing.assert_close(applied(gate(edit, alpha), A_s, A_t), expected, rtol=0, atol=1e-12)


@given(edits)
@settings(deadline=None)
def test_open_and_shut_gates(edit: ColumnEdit) -> None:
    ones = torch.ones(W, dtype=torch.float64)
    assert gate(edit, ones) == edit
    assert gate(edit, 0 * ones) == NO_EDIT


@given(edits, vectors, vectors)
@settings(deadline=None)
def test_a_gate_behind_a_gate_is_their_product(edit: ColumnEdit, alpha: Tensor, beta: Tensor) -> None:
    twice, once = gate(gate(edit, alpha), beta), gate(edit, alpha * beta)
    for one, other in zip(twice, once, strict=True):
        torch.testing.assert_close(as_matrix(one, W), as_matrix(other, W), rtol=0, atol=1e-12)


@given(edits, st.lists(st.booleans(), min_size=W, max_size=W))
@settings(deadline=None)
def test_a_hard_gate_picks_columns_exactly(edit: ColumnEdit, on: list[bool]) -> None:
    alpha = torch.tensor(on, dtype=torch.float64)
    gated = gate(edit, alpha)
    for part, own in ((0, 0.0), (1, 1.0)):
        expected = own * torch.eye(W, dtype=torch.float64)
        expected[:, on] = as_matrix(edit[part], W)[:, on]
        assert torch.equal(as_matrix(gated[part], W), expected)


@given(st.lists(st.floats(0, 1), min_size=W, max_size=W))
@settings(deadline=None)
def test_no_edit_stays_no_edit_behind_any_gate(alpha: list[float]) -> None:
    assert gate(NO_EDIT, torch.tensor(alpha, dtype=torch.float64)) == NO_EDIT


def test_terms_leave_out_what_is_zero() -> None:
    half = diagonal(torch.full((W,), 0.5, dtype=torch.float64))
    assert p2p_terms(half, Zero()) == (Term("source", "source", "target", half),)
    assert p2p_terms(*NO_EDIT) == (Term("target", "target", "target", Identity()),)
    assert len(p2p_terms(half, half)) == 2
    assert self_injection() == (Term("source", "source", "target", Identity()),)
    assert mutual_attention() == (Term("target", "source", "source", Identity()),)
    with pytest.raises(ValueError, match="removes every column"):
        p2p_terms(Zero(), Zero())
