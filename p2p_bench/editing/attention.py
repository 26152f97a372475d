"""The attention that an edit keeps for people to look at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from p2p_bench.attention.recorder import Detail, Recorder, RecordSpec
from p2p_bench.editing.rows import RowTable
from p2p_bench.errors import ConfigError
from p2p_bench.models import DiffusionModel
from p2p_bench.prompts.words import told_columns


@dataclass(frozen=True)
class Record:
    """Which attention maps an edit keeps; what is not asked for costs nothing.

    Attributes:
        fractions: Sides of the cross-attention maps as fractions of the latent side, such as (0.5, 0.25);
            empty: the model's `record_fraction`.
        apart: What is kept apart, any of "steps", "layers" and "heads"; maps are averaged over the others.
        self_images: Images whose self-attention is kept, 0 is the source.
        self_fraction: Side of the self-attention maps; None: the model's own, where injection ends.
    """

    fractions: tuple[float, ...] = ()
    apart: tuple[str, ...] = ()
    self_images: tuple[int, ...] = ()
    self_fraction: float | None = None

    def __post_init__(self) -> None:
        """Checks the names.

        Raises:
            ConfigError: `apart` names something else.
        """
        unknown = set(self.apart) - set(get_args(Detail))
        if unknown:
            raise ConfigError(
                f"record apart: expected any of {', '.join(get_args(Detail))}, got {sorted(unknown)}"
            )


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Recorded maps of one kind and size.

    Attributes:
        kind: "cross" has a column per text token, "self" one per position.
        fraction: Side of the maps as a fraction of the latent side.
        apart: What was kept apart.
        maps: By image, 0 is the source: mean maps after the edit; axes not kept apart have length 1. Those of
            padding are zero where attention is joint, see `recorders`.
    """

    kind: Literal["cross", "self"]
    fraction: float
    apart: frozenset[Detail]
    maps: Mapping[int, Float[Tensor, "steps layers heads columns s t"]]


def recorders(model: DiffusionModel, record: Record | None, table: RowTable) -> tuple[Recorder, ...]:
    """Recorders of a batch, for the rows of its first table.

    Raises:
        ConfigError: A fraction is not 1, 1/2, 1/4, ...; or self-attention maps are too large to keep.
    """
    if record is None:
        return ()
    return _recorders(model, record, *_kept_rows(model, record, table))


def forked(
    model: DiffusionModel, recorders: Iterable[Recorder], record: Record | None, table: RowTable
) -> tuple[Recorder, ...]:
    """The same, going on with the rows of the next table."""
    if record is None:
        return ()
    cross, own = _kept_rows(model, record, table)
    kinds = {"cross": cross, "self": own}
    return tuple(recorder.forked(table.parents, kinds[recorder.spec.kind]) for recorder in recorders)


def _kept_rows(
    model: DiffusionModel, record: Record, table: RowTable
) -> tuple[Sequence[int] | Mapping[int, tuple[int, ...]], list[int]]:
    """Rows whose cross-attention is kept, with their columns where not all are, and of self-attention.

    At joint sites text has several columns for every one of a prompt's, and each costs: padding is left out.
    """
    rows: Sequence[int] | Mapping[int, tuple[int, ...]] = range(len(table.rows))
    if any(site.joint for site in model.sites):
        rows = {row: told_columns(table.rows[row].prompt) for row in rows}
    images = [pair for sample in table.samples for pair in sample.row_of.items()]
    return rows, sorted({row for image, row in images if image in record.self_images})


def _recorders(
    model: DiffusionModel,
    record: Record,
    rows: Sequence[int] | Mapping[int, tuple[int, ...]],
    self_rows: Sequence[int],
) -> tuple[Recorder, ...]:
    spec, width = model.spec, model.spec.max_tokens
    fractions = dict.fromkeys(record.fractions or (spec.record_fraction,))
    apart: frozenset[Detail] = frozenset(name for name in get_args(Detail) if name in record.apart)
    columns: tuple[tuple[int, ...], ...] | Literal["all"] = (
        tuple(rows.values()) if isinstance(rows, Mapping) else "all"
    )
    specs = [RecordSpec(tuple(rows), columns, fraction, "cross", apart) for fraction in fractions]
    if self_rows:
        fraction = spec.self_fraction if record.self_fraction is None else record.self_fraction
        specs.append(RecordSpec(tuple(self_rows), "all", fraction, "self"))
    return tuple(Recorder(one, width, spec.latent_size) for one in specs)


def check_record(model: DiffusionModel, record: Record) -> None:
    """See that the model has what is to be kept.

    Raises:
        ConfigError: It has not; says what it has.
    """
    try:
        for recorder in _recorders(model, record, [0], [0] if record.self_images else []):
            recorder.check(model.sites)
    except ConfigError as error:
        raise ConfigError(
            f"record: {error}; model {model.spec.name!r} has record_fraction={model.spec.record_fraction:g} "
            f"and self_fraction={model.spec.self_fraction:g}; set another (model.record_fraction=...), or "
            "record nothing (run.heatmaps=false; record=False in Python)"
        ) from error


def kept_maps(recorders: Iterable[Recorder], row_of: Mapping[int, int]) -> tuple[AttentionMaps, ...]:
    """What recorders hold of one request, on the CPU in float32.

    Args:
        recorders: Those of the batch; one that recorded nothing, since no step was taken, is left out.
        row_of: Row of each image.
    """
    return tuple(
        AttentionMaps(
            recorder.spec.kind,
            recorder.spec.fraction,
            recorder.spec.apart,
            {
                image: recorder.detailed(row).float().cpu()
                for image, row in row_of.items()
                if row in recorder.spec.rows
            },
        )
        for recorder in recorders
        if recorder.sums
    )
