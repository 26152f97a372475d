"""Terms: what an edit does at one site, as data.

Notation: `A_s`, `A_t` are the softmax maps of the source and the target row. An edit of Prompt-to-Prompt
(Hertz et al. 2022) is `A_edit = A_s L + A_t R`; its output `A_edit V_t` is a sum of *terms*
`softmax(Q[q] K[k]^T) (C V[v])`, each one row of a fused attention call.

A joint site has text and pixel columns under one softmax (the hybrid attention of Imagen and DeepFloyd IF).
There an edit of columns acts on the text columns only, as it did in Imagen (Hertz et al., section 3), and
an edit of self-attention on the pixel columns only. Neither rescales what the other block gets: as
elsewhere, rows of an edited map need not add up to 1.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from jaxtyping import Float64
from torch import Tensor

from p2p_bench.attention.columns import ColumnMap, Identity, Zero, add, diagonal, matmul

Role = Literal["source", "target"]

Pixels = Literal["own", "dropped", "source", "keys"]
"""What becomes of the pixel columns of a term at a joint site: "own", keys and values of the same rows as
those of the text; "dropped", the same keys, but values of zero; "source", keys and values of the source;
"keys", keys of the source and values of the same rows, which the rows of the text see as well if it is the
first term of its row."""

Unprompted = Literal["plain", "own", "source"]
"""What becomes of a target's pass without the prompt: it is left alone; or it is edited like the pass with
the prompt, by the source's pass without a prompt ("own") or by that with its prompt ("source")."""

PixelEdit = Literal["own", "injected", "mutual", "queries"]
"""What is done to pixel columns: nothing, injection, mutual attention, or the source's queries and keys."""


@dataclass(frozen=True)
class Term:
    """One summand of a target row's attention output: `softmax(Q K^T) (C V)`.

    Attributes:
        query: Whose queries.
        key: Whose keys.
        value: Whose values.
        columns: The column map `C`; at a joint site of the text columns.
        pixels: The pixel columns, see `Pixels`; means nothing at other sites.
        normalised: Whether rows of the edited map, the sum of the terms, are normalised again.
    """

    query: Role
    key: Role
    value: Role
    columns: ColumnMap
    pixels: Pixels = "own"
    normalised: bool = False


SiteEdit = tuple[Term, ...]
"""What replaces the attention of one target row at one site: the sum of the terms."""


class ColumnEdit(NamedTuple):
    """The edit `A_s L + A_t R` as the pair (L, R)."""

    L: ColumnMap
    R: ColumnMap


NO_EDIT = ColumnEdit(Zero(), Identity())


def compose(first: ColumnEdit, second: ColumnEdit) -> ColumnEdit:
    """`first`, then `second` applied to its result: `(L2 + L1 R2, R1 R2)`."""
    return ColumnEdit(add(second.L, matmul(first.L, second.R)), matmul(first.R, second.R))


def gate(edit: ColumnEdit, alpha: Float64[Tensor, " w"]) -> ColumnEdit:
    """The edit where `alpha` is 1, the target's own columns where it is 0, mixed in between."""
    open_, shut = diagonal(alpha), diagonal(1 - alpha)
    return ColumnEdit(matmul(edit.L, open_), add(matmul(edit.R, open_), shut))


def p2p_terms(L: ColumnMap, R: ColumnMap) -> SiteEdit:
    """Terms of `(A_s L + A_t R) V_t`. Terms that are zero are left out.

    Raises:
        ValueError: Both maps are zero, so that nothing would be attended to.
    """
    terms = (Term("source", "source", "target", L), Term("target", "target", "target", R))
    kept = tuple(term for term in terms if term.columns != Zero())
    if not kept:
        raise ValueError("L, R: expected a column that is not zero, got an edit that removes every column")
    return kept


def self_injection() -> SiteEdit:
    """Terms of `A_s V_t`: the target's values under the source's map."""
    return p2p_terms(Identity(), Zero())


def mutual_attention() -> SiteEdit:
    """Terms of mutual self-attention (MasaCtrl): the target's queries on the source's keys and values."""
    return (Term("target", "source", "source", Identity()),)


def query_terms(L: ColumnMap, R: ColumnMap) -> SiteEdit:
    """Terms at a site of text columns alone where the target's queries are the source's.

    `A_s (L V) + A_q (R V)`, with `A_q` the map of the source's queries on the target's keys.

    Raises:
        ValueError: See `p2p_terms`.
    """
    return tuple(replace(term, query="source") for term in p2p_terms(L, R))


def joint_terms(edit: ColumnEdit, pixels: PixelEdit = "own") -> SiteEdit | None:
    """Terms of an edit at a joint site.

    With V = [V_text | V_pixels] of the target, unless said otherwise:

        own         A_s (L V_text | 0)  +  A_t (R V_text | V_pixels)
        injected    A_s (L V_text | V_pixels)  +  A_t (R V_text | 0)
        mutual      A_s (L V_text | 0)  +  A_t' (R V_text | V_pixels of the source)
        queries     A_s (L V_text | 0)  +  A_q (R V_text | V_pixels)

    where `A_t'` is the target's map over its own text keys and the source's pixel keys (MasaCtrl at a layer
    that is its self-attention and its cross-attention at once), and `A_q` that of the source's queries over
    the target's text keys and the source's pixel keys. Terms that are zero are left out: an injection with
    R = 0 is one term, as it is at separate sites.

    Args:
        edit: What is done to the text columns.
        pixels: What is done to the pixel columns.

    Returns:
        The terms; None where nothing is edited.
    """
    if edit == NO_EDIT and pixels == "own":
        return None
    injected = pixels == "injected"
    if pixels == "queries":
        first = Term("source", "source", "target", edit.L, "dropped")
        second = Term("source", "target", "target", edit.R, "keys")
        # The term that speaks for the rows of the text, which see the source's pixel keys, comes first.
        return (second,) if Zero() == edit.L else (second, first)
    own: Pixels = "source" if pixels == "mutual" else "dropped" if injected else "own"
    terms = (
        Term("source", "source", "target", edit.L, "own" if injected else "dropped"),
        Term("target", "target", "target", edit.R, own),
    )
    return tuple(term for term in terms if (term.columns, term.pixels) != (Zero(), "dropped"))
