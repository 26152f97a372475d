"""What a metric is: named columns, and values for a list of edits."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.fields import Words, check_fields, shown
from p2p_bench.hashing import digest, sha256_file
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.writes import writes

Role = Literal["fidelity", "editability", "other"]

UNDEFINED = float("nan")
"""The value of a metric where it has none; means leave it out and count the rest."""


class Undefined(float):
    """NaN with the reason for it, where a reader should know: rows and summaries say and count it.

    Args:
        reason: The same words for the same reason, whatever the edit, so that it can be counted.

    Attributes:
        reason: As given.
    """

    reason: str

    def __new__(cls, reason: str) -> "Undefined":
        """NaN, whatever the reason."""
        value = super().__new__(cls, UNDEFINED)
        value.reason = reason
        return value


def split_reasons(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Plain values, and the reasons by column where one is undefined for a reason."""
    reasons = {name: value.reason for name, value in values.items() if isinstance(value, Undefined)}
    return {name: float(value) for name, value in values.items()}, reasons


@dataclass(frozen=True)
class MetricColumn:
    """One column of results.

    Attributes:
        name: Name of the column.
        higher_is_better: Direction of improvement.
        unit: Unit of the values, "" for a plain number.
        label: What a reader sees, such as "PSNR outside the mask".
        version: Raised whenever the values of the column change their meaning.
        backbone: The network behind it, such as "world"; "" where there is none. Values of
            different backbones are not comparable.
        role: "fidelity" (keeps what should stay), "editability" (changes what should change) or "other".
        reader_errors: Where a classifier reads pictures for the column: by style of the picture, the share
            of each attribute that it misreads where nothing is wrong. Empty where there is no such reader.
        note: What a reader of the numbers should know of them, such as these errors in words; "" for nothing.
        range: Lowest and highest value possible; None where there is no bound.
        needs_source: Whether the source image decides the value; without one it is undefined.
    """

    name: Annotated[str, Words("a name", needed=True)]
    higher_is_better: bool
    unit: str = ""
    label: str = ""
    version: int = 1
    backbone: str = ""
    role: Role = "other"
    reader_errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    note: str = ""
    range: tuple[int | float | None, int | float | None] = (None, None)
    needs_source: bool = True

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of another kind, or the name is blank.
        """
        check_fields(self, f"metric column {self.name!r}: ")


@dataclass(frozen=True)
class EditView:
    """What metrics may see of one edit. Images are RGB in [0, 1] and of one size.

    Attributes:
        source: The reference: the real image where there is one, else the generated source.
        edited: The edited image.
        source_prompt: Prompt of the source.
        target_prompt: Prompt of the edit.
        reconstruction: The source row as generated, for a real image; None without one.
        vae_reconstruction: The real image through the model's VAE and back; None without one.
        mask: 1 where the edit may change the image; None where unknown.
        answer: The exact result of the edit; None where unknown.
        scene: The world's description of the source scene, if there is one.
        scene_edit: `{"attribute", "value", "index"}`, the change asked for.
        lossy: The edited image comes from a file that was compressed with losses.
        attention: Where the edited image attends to the words that the edit adds, or the source to those that
            it takes away; at the size that was recorded, None where nothing was.
        has_source: Whether `source` is one. Without it the edited image stands in its place, and columns that
            need a source have no value.
    """

    source: Float[Tensor, "3 h w"]
    edited: Float[Tensor, "3 h w"]
    source_prompt: str
    target_prompt: str
    reconstruction: Float[Tensor, "3 h w"] | None = None
    vae_reconstruction: Float[Tensor, "3 h w"] | None = None
    mask: Float[Tensor, "h w"] | None = None
    answer: Float[Tensor, "3 h w"] | None = None
    scene: Mapping[str, Any] | None = None
    scene_edit: Mapping[str, Any] | None = None
    lossy: bool = False
    attention: Float[Tensor, "s t"] | None = None
    has_source: bool = True

    def __post_init__(self) -> None:
        """Checks the shapes: what is of another size would be stretched over the images, and scored.

        Raises:
            ValueError: An image is none of floats, or it, the mask or the answer is of another size.
        """
        shape = tuple(self.source.shape)
        if len(shape) != 3 or shape[0] != 3:
            raise ValueError(f"EditView: source: expected (3, height, width), got {shape}")
        for name in ("source", "edited", "reconstruction", "vae_reconstruction", "answer", "mask"):
            image, wanted = getattr(self, name), shape[1:] if name == "mask" else shape
            if image is None:
                continue
            if tuple(image.shape) != wanted or not image.is_floating_point():
                raise ValueError(
                    f"EditView: {name}: expected floats in [0, 1] of the shape {wanted}, got {image.dtype} "
                    f"{tuple(image.shape)}"
                )


@runtime_checkable
class Metric(Protocol):
    """Scores edits one by one. Networks are loaded at the first call, onto the device of the images."""

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """The columns it fills."""
        ...

    def check(self) -> None:
        """Looks for the files it needs, without loading them.

        Raises:
            MissingWeightsError: One is absent; names it, where it was looked for and how to get it.
        """
        ...

    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """One value per column and view, independent of the other views.

        NaN where undefined, or `Undefined` where a reader should know why.
        """
        ...


@runtime_checkable
class HasNetworks(Protocol):
    """A metric whose networks can be loaded before its first call."""

    def load(self) -> None:
        """Loads them.

        Raises:
            MissingWeightsError: A file is absent, or does not hold the network's weights.
        """
        ...


@runtime_checkable
class HasFiles(Protocol):
    """A metric whose values depend on files."""

    def files(self) -> tuple[Path, ...]:
        """The weights that it reads.

        Raises:
            MissingWeightsError: They are not there.
        """
        ...


def metric_checksums(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """SHA-256 of each file that metrics read, by `metrics.<name>`, or the digest of several."""
    checksums: dict[str, str] = {}
    for name, metric in metrics.items():
        if isinstance(metric, HasFiles):
            sums = [sha256_file(path) for path in metric.files()]
            checksums[f"metrics.{name}"] = sums[0] if len(sums) == 1 else digest(sums)
    return checksums


def column_weights(metrics: Mapping[str, Metric], checksums: Mapping[str, str]) -> dict[str, str]:
    """Checksum of the files behind a column, of those in `metric_checksums`, by the name of the column."""
    return {
        column.name: checksums[key]
        for name, metric in metrics.items()
        if (key := f"metrics.{name}") in checksums
        for column in metric.columns
    }


LOADING = threading.RLock()
"""Held while a metric loads a network, so that threads which share it load it once."""


@with_pinned_settings
def load_networks(metrics: Mapping[str, Metric]) -> None:
    """Loads the networks of metrics, so that damaged weights show before anything is computed.

    Raises:
        MissingWeightsError: See `HasNetworks.load`.
    """
    for metric in metrics.values():
        if isinstance(metric, HasNetworks):
            metric.load()


def all_columns(metrics: Mapping[str, Metric]) -> tuple[MetricColumn, ...]:
    """The columns of several metrics, in order.

    Args:
        metrics: Metric by the name it has in the configuration.

    Raises:
        ConfigError: Two metrics fill a column of the same name, or one says no columns.
    """
    owners: dict[str, str] = {}
    columns: list[MetricColumn] = []
    for name, metric in metrics.items():
        own = metric.columns
        if not isinstance(own, tuple | list) or not all(isinstance(one, MetricColumn) for one in own):
            raise ConfigError(
                f"metrics.{name}: its `columns` are {own!r}; expected a tuple of MetricColumn, such as "
                f"(MetricColumn({name!r}, higher_is_better=True),)"
            )
        for column in own:
            if column.name in owners:
                raise ConfigError(
                    f"metrics: {owners[column.name]!r} and {name!r} both fill the column {column.name!r}; "
                    f"leave one out, for example with ~metrics.{name}"
                )
            owners[column.name] = name
            columns.append(column)
    return tuple(columns)


@with_pinned_settings
def evaluate(metrics: Mapping[str, Metric], views: Sequence[EditView]) -> list[dict[str, float]]:
    """Every metric of every edit.

    Args:
        metrics: Metric by the name it has in the configuration.
        views: The edits.

    Returns:
        One dictionary per view, from column name to value, NaN or `Undefined` where there is none.

    Raises:
        ConfigError: Two metrics fill the same column, or one cannot be used at all.
        MissingWeightsError: The weights of a metric are absent.
        RuntimeError: A metric failed, changed the images that it was shown, or did not return one finite or
            NaN value within the range of each of its columns; names the metric.
    """
    all_columns(metrics)
    rows: list[dict[str, float]] = []
    # Few at a time: what a network made of an image is there still when the next metric asks for it.
    for start in range(0, len(views), _TOGETHER):
        rows += _evaluated(metrics, views[start : start + _TOGETHER])
    return rows


_TOGETHER = 8
"""Edits that all metrics score before the next ones."""


NO_SOURCE = "there is no source image"


def _scored(metric: Metric, views: Sequence[EditView]) -> Any:
    """What a metric says of each view; columns that need a source image are undefined without one."""
    blind = {column.name: Undefined(NO_SOURCE) for column in metric.columns if column.needs_source}
    asked = views if len(blind) < len(metric.columns) else [view for view in views if view.has_source]
    given: Any = metric(asked) if asked else []
    if not isinstance(given, Sequence) or len(given) != len(asked):
        return given
    if not all(isinstance(value, Mapping) for value in given):
        return given
    values = iter(given)
    found = []
    for view in views:
        value = next(values) if view.has_source or asked is views else {}
        found.append(value if view.has_source else {**value, **blind})
    return found


def _evaluated(metrics: Mapping[str, Metric], views: Sequence[EditView]) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [{} for _ in views]
    for name, metric in metrics.items():
        before = _writes(views)
        try:
            values = _scored(metric, views)
        except (ConfigError, MissingWeightsError):
            raise
        except Exception as error:  # whatever a metric of somebody else raises, its name must be told
            raise RuntimeError(f"metric {name!r} failed: {type(error).__name__}: {error}") from error
        if _writes(views) != before:
            raise RuntimeError(
                f"metric {name!r} changed an image that it was shown, so that what comes after it would "
                "score another; compute on a copy"
            )
        if not isinstance(values, Sequence) or not all(isinstance(value, Mapping) for value in values):
            raise RuntimeError(
                f"metric {name!r} returned {_kind(values)}; expected a list with a dictionary for each edit, "
                "from column name to value"
            )
        if len(values) != len(views):
            raise RuntimeError(f"metric {name!r} returned {len(values)} results for {len(views)} edits")
        for row, value in zip(rows, values, strict=True):
            row.update(_checked(name, metric.columns, value))
    return rows


def _checked(name: str, columns: Sequence[MetricColumn], values: Mapping[Any, Any]) -> dict[str, float]:
    """The values of one edit as floats.

    Raises:
        RuntimeError: One is no number, infinite or out of its column's range, or is not there.
    """
    names = [column.name for column in columns]
    if sorted(values, key=str) != sorted(names):
        raise RuntimeError(
            f"metric {name!r} returned {sorted(values, key=str)}, its columns are {sorted(names)}"
        )
    plain: dict[str, float] = {}
    for column in columns:
        value = values[column.name]
        try:
            number = value if isinstance(value, Undefined) else float(value)
        except (TypeError, ValueError, RuntimeError):  # a tensor of several values is the last
            number = None
        if number is None or isinstance(value, str | bytes):
            raise RuntimeError(
                f"metric {name!r} returned {shown(value)} in column {column.name!r}; expected a number, or "
                "NaN where it is undefined"
            )
        if math.isinf(number):
            raise RuntimeError(f"metric {name!r} returned an infinite value, no mean can hold it: {values}")
        low, high = column.range
        if (low is not None and number < low - _slack(low)) or (
            high is not None and number > high + _slack(high)
        ):
            raise RuntimeError(
                f"metric {name!r} returned {number:g} in column {column.name!r}, whose range is "
                f"{column.range}; mend the value, or the range"
            )
        plain[column.name] = number
    return plain


def _slack(bound: float | int) -> float:
    """What rounding may add to a bound: networks run in half precision too."""
    return 1e-2 * max(1.0, abs(bound))


def _kind(values: object) -> str:
    """What something that is no list of dictionaries is, in words."""
    if isinstance(values, list | tuple) and values:
        odd = next(value for value in values if not isinstance(value, Mapping))
        return f"a list that holds a {type(odd).__name__}"
    return f"a {type(values).__name__}"


def _writes(views: Sequence[EditView]) -> list[int]:
    return writes(image for view in views for image in vars(view).values() if isinstance(image, Tensor))
