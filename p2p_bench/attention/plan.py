"""What one step does at every site of a network, as index tensors that are ready to use.

A plan speaks of absolute rows of the network batch. Rows that no edit names attend as usual; by convention an
edit names conditional rows only, so the unconditional half of a guided batch stays plain.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from p2p_bench.attention.columns import ColumnMap, Dense, Diagonal, Identity, Zero, as_matrix
from p2p_bench.attention.maps import MapReader
from p2p_bench.attention.mass import MassPlan, mass_plan
from p2p_bench.attention.recorder import Recorder
from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import Pixels, SiteEdit


@runtime_checkable
class SiteController(Protocol):
    """An edit of one target row by one source row: a pure function of the step and the site."""

    def site_edit(self, step: int, site: Site) -> SiteEdit | None:
        """Terms that replace the target's attention at `site`, or None to leave it alone."""

    def signature(self, step: int) -> Hashable:
        """Equal at two steps exactly where `site_edit` is equal at every site."""


@runtime_checkable
class FeatureController(SiteController, Protocol):
    """An edit that may put features of the source's row in the place of the target's as well."""

    def features(self, step: int) -> bool:
        """Whether it does at a step; part of the signature."""


@dataclass(frozen=True)
class RowEdit:
    """Places a controller in the network batch.

    Attributes:
        row: The target's row.
        source: The source's row.
        controller: What is done to the target.
    """

    row: int
    source: int
    controller: SiteController


@dataclass(frozen=True)
class Gather:
    """Which rows a projection is computed for, and how its result is laid out; None: all, in order.

    Attributes:
        rows: Rows of the network batch that are projected.
        index: For each term, a position among the projected rows.
    """

    rows: Int64[Tensor, " rows"] | None = None
    index: Int64[Tensor, " terms"] | None = None


@dataclass(frozen=True)
class Folding:
    """Column maps that are not the identity.

    Attributes:
        terms: Positions of the terms that have them.
        maps: The column maps, written out.
    """

    terms: Int64[Tensor, " mapped"]
    maps: Float[Tensor, "mapped w w"]


@dataclass(frozen=True)
class JointPlan:
    """What becomes of the pixel columns at a joint site, and of text columns that are zero.

    Attributes:
        key: Pixel keys of the terms.
        value: Pixel values of the terms.
        no_text: Positions of the terms whose text values are zero.
        no_pixels: Positions of the terms whose pixel values are zero.
        seen: Rows whose pixel keys the text of each row sees; None: its own.
        whole: Whether pixels and text of each row ask the same keys for the same values, all its own but for
            the pixel keys, so that one call serves both.
    """

    key: Gather = Gather()
    value: Gather = Gather()
    no_text: Int64[Tensor, " without_text"] | None = None
    no_pixels: Int64[Tensor, " without_pixels"] | None = None
    seen: Int64[Tensor, " rows"] | None = None
    whole: bool = False


@dataclass(frozen=True)
class RecordPlan:
    """Recording at one site: attention with columns of a column map as values.

    Attributes:
        recorder: Receives the maps.
        terms: For each entry, the position of its term.
        values: Up to `d` columns of the entry's column map (`d`: the site's head dimension).
        kept: Positions, entries times `d`, that hold a column; the others are padding.
        slots: For each kept position, where the recorder adds it.
    """

    recorder: Recorder
    terms: Int64[Tensor, " entries"]
    values: Float[Tensor, "entries 1 w d"]
    kept: Int64[Tensor, " kept"]
    slots: Int64[Tensor, " kept"]


@dataclass(frozen=True)
class SitePlan:
    """One fused attention call: terms along the batch axis, the first of each row in the row's place.

    Attributes:
        query: Queries of the terms.
        key: Keys of the terms.
        value: Values of the terms.
        key_rows: For each term, the row of the network batch its keys come from (None: its own).
        folding: Column maps that values go through.
        extra_rows: Rows that the terms after the first `num_rows` are added to.
        records: What is recorded here, for each recorder.
        joint: The pixel columns; used at a joint site, where the other gathers are those of the text.
        mass: Rows that are normalised again.
    """

    query: Gather = Gather()
    key: Gather = Gather()
    value: Gather = Gather()
    key_rows: Int64[Tensor, " terms"] | None = None
    folding: Folding | None = None
    extra_rows: Int64[Tensor, " extra"] | None = None
    records: tuple[RecordPlan, ...] = ()
    joint: JointPlan = JointPlan()
    mass: MassPlan | None = None


PLAIN = SitePlan()


@dataclass(frozen=True)
class StepPlan:
    """What one step does. Passed to the network as `cross_attention_kwargs={"plan": plan}`.

    Attributes:
        num_rows: Rows of the network batch the plan was made for.
        sites: Plans by site name; a site that is absent attends as usual.
        features: For each row, the row whose features it goes on with, see `injected_features`.
        maps: Reads the maps of cross-attention to the text alone; None: they are not written out.
        values: What values of cross-attention to the text alone are made of; None: the text, as keys are.
    """

    num_rows: int
    sites: Mapping[str, SitePlan]
    features: Int64[Tensor, " rows"] | None = None
    maps: MapReader | None = None
    values: Float[Tensor, "n w e"] | None = None


class _RowTerm(NamedTuple):
    """A term with absolute rows; `row` is where its result goes, `source` the row that is its source."""

    row: int
    query: int
    key: int
    value: int
    columns: ColumnMap
    pixels: Pixels = "own"
    source: int = 0
    normalised: bool = False

    @property
    def pixel_key(self) -> int:
        """The row of the pixel keys at a joint site."""
        return self.source if self.pixels in ("source", "keys") else self.key

    @property
    def pixel_value(self) -> int:
        """The row of the pixel values at a joint site."""
        return self.source if self.pixels == "source" else self.value


def build_step_plan(
    sites: Sequence[Site],
    num_rows: int,
    edits: Sequence[RowEdit],
    step: int,
    recorders: Sequence[Recorder] = (),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StepPlan:
    """Resolve the edits of one step into index tensors, shared by all sites that are edited alike.

    Args:
        sites: Sites of the network.
        num_rows: Rows of the network batch.
        edits: At most one edit per row.
        step: Index of the denoising step, from 0.
        recorders: Receive the maps after the edit.
        device: Where the network runs.
        dtype: The network's precision.

    Raises:
        ValueError: An edit names a row outside the batch, or two edits name one row.
        ConfigError: The network has no maps of the size to be recorded.
    """
    _check_rows(num_rows, edits)
    for recorder in recorders:
        recorder.check(sites)
    built: dict[Hashable, SitePlan] = {}
    plans = {}
    for site in sites:
        site_edits = tuple(edit.controller.site_edit(step, site) for edit in edits)
        recording = tuple(recorder for recorder in recorders if recorder.records(site))
        if not recording and all(terms is None for terms in site_edits):
            continue
        key = (site_edits, recording, site.joint, site.head_dim if recording else None)
        if key not in built:
            terms = _row_terms(num_rows, edits, site_edits)
            built[key] = _site_plan(num_rows, terms, recording, site, device, dtype)
        plans[site.name] = built[key]
    return StepPlan(num_rows, plans, _feature_rows(num_rows, edits, step, device))


def _feature_rows(
    num_rows: int, edits: Sequence[RowEdit], step: int, device: torch.device | str
) -> Int64[Tensor, " rows"] | None:
    taken = {
        edit.row: edit.source
        for edit in edits
        if isinstance(edit.controller, FeatureController) and edit.controller.features(step)
    }
    return _indices([taken.get(row, row) for row in range(num_rows)], device) if taken else None


def _check_rows(num_rows: int, edits: Sequence[RowEdit]) -> None:
    rows = [edit.row for edit in edits]
    for row in (*rows, *(edit.source for edit in edits)):
        if not 0 <= row < num_rows:
            raise ValueError(f"edits: row {row} is outside the batch of {num_rows} rows")
    if len(set(rows)) < len(rows):
        raise ValueError(f"edits: expected one edit per row at most, got rows {rows}; compose controllers")


def _row_terms(
    num_rows: int, edits: Sequence[RowEdit], site_edits: Sequence[SiteEdit | None]
) -> list[_RowTerm]:
    """Terms of all rows: the first of every row in row order, then the others."""
    by_row = [[_RowTerm(row, row, row, row, Identity())] for row in range(num_rows)]
    for edit, terms in zip(edits, site_edits, strict=True):
        if terms is not None:
            roles = {"source": edit.source, "target": edit.row}
            by_row[edit.row] = [
                _RowTerm(
                    edit.row, roles[term.query], roles[term.key], roles[term.value],
                    term.columns, term.pixels, edit.source, term.normalised,
                )
                for term in terms
            ]  # fmt: skip
    return [terms[0] for terms in by_row] + [term for terms in by_row for term in terms[1:]]


def _site_plan(
    num_rows: int,
    terms: Sequence[_RowTerm],
    recording: Sequence[Recorder],
    site: Site,
    device: torch.device | str,
    dtype: torch.dtype,
) -> SitePlan:
    # At a joint site a term may have no text columns, and be there for its pixel columns alone.
    unwritten = (Identity(), Zero()) if site.joint else (Identity(),)
    written = {position: term.columns for position, term in enumerate(terms) if term.columns not in unwritten}
    maps = [as_matrix(columns, _width(columns)) for columns in written.values()]
    folding = Folding(_indices(written, device), torch.stack(maps).to(device, dtype)) if maps else None
    extra = [term.row for term in terms[num_rows:]]
    keys = [term.key for term in terms]
    edited = [
        (position, term.row, term.columns, term.pixels == "dropped")
        for position, term in enumerate(terms)
        if term.normalised
    ]
    return SitePlan(
        query=_gather(num_rows, [term.query for term in terms], device),
        key=_gather(num_rows, keys, device),
        value=_gather(num_rows, [term.value for term in terms], device),
        key_rows=None if keys == list(range(num_rows)) else _indices(keys, device),
        folding=folding,
        extra_rows=_indices(extra, device) if extra else None,
        records=tuple(_record_plan(terms, recorder, site.head_dim, device, dtype) for recorder in recording),
        joint=_joint_plan(num_rows, terms, device) if site.joint else JointPlan(),
        mass=mass_plan(edited, device, dtype),
    )


def _joint_plan(num_rows: int, terms: Sequence[_RowTerm], device: torch.device | str) -> JointPlan:
    no_text = [position for position, term in enumerate(terms) if term.columns == Zero()]
    no_pixels = [position for position, term in enumerate(terms) if term.pixels == "dropped"]
    rows = list(range(num_rows))
    seen = [term.pixel_key if term.pixels == "keys" else term.row for term in terms[:num_rows]]
    own = all([getattr(term, name) for term in terms] == rows for name in ("key", "value", "pixel_value"))
    plain = all(term.columns == Identity() for term in terms) and not no_pixels
    return JointPlan(
        key=_gather(num_rows, [term.pixel_key for term in terms], device),
        value=_gather(num_rows, [term.pixel_value for term in terms], device),
        no_text=_indices(no_text, device) if no_text else None,
        no_pixels=_indices(no_pixels, device) if no_pixels else None,
        seen=None if seen == rows else _indices(seen, device),
        whole=own and plain and seen == [term.pixel_key for term in terms],
    )


def _record_plan(
    terms: Sequence[_RowTerm],
    recorder: Recorder,
    head_dim: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> RecordPlan:
    """One entry per recorded term and chunk of `head_dim` columns, so that the call stays fused."""
    entries, kept, slots = list[int](), list[int](), list[int]()
    values: list[Tensor] = []
    for position, term in enumerate(terms):
        columns = recorder.columns(term.row)
        matrix = as_matrix(term.columns, recorder.width)
        for start in range(0, len(columns), head_dim):
            chunk = columns[start : start + head_dim]
            kept += range(len(entries) * head_dim, len(entries) * head_dim + len(chunk))
            slots += [recorder.slot(term.row, column) for column in chunk]
            value = torch.zeros(recorder.width, head_dim, dtype=torch.float64)
            value[:, : len(chunk)] = matrix[:, list(chunk)]
            entries.append(position)
            values.append(value)
    return RecordPlan(
        recorder=recorder,
        terms=_indices(entries, device),
        values=torch.stack(values)[:, None].to(device, dtype),
        kept=_indices(kept, device),
        slots=_indices(slots, device),
    )


def _width(columns: ColumnMap) -> int:
    assert isinstance(columns, Diagonal | Dense), f"a term with {columns} needs no written map"
    return len(columns.values)


def _gather(num_rows: int, rows: Sequence[int], device: torch.device | str) -> Gather:
    projected = sorted(set(rows))
    index = [projected.index(row) for row in rows]
    return Gather(
        rows=None if len(projected) == num_rows else _indices(projected, device),
        index=None if index == list(range(len(projected))) else _indices(index, device),
    )


def _indices(values: Iterable[int], device: torch.device | str) -> Int64[Tensor, " n"]:
    return torch.tensor(list(values), dtype=torch.int64, device=device)
