"""The runs below some directories, and why others are left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2p_bench.bench.directory import CONFIG
from p2p_bench.errors import DataError, ErrorList, P2PError
from p2p_bench.report.runs import Run, has_rows, read_run


@dataclass(frozen=True)
class LeftOut:
    """A run directory that a report does not show.

    Attributes:
        path: The directory.
        reason: Why, for readers.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Gathered:
    """What was found.

    Attributes:
        runs: Finished runs of one schema, each directory once, in the order given.
        left_out: Directories of runs that cannot be shown.
    """

    runs: tuple[Run, ...]
    left_out: tuple[LeftOut, ...]


def gather(paths: Iterable[Path | str]) -> Gathered:
    """Read the runs at some paths.

    Args:
        paths: Run directories, or directories whose sub-directories are runs (a sweep).

    Raises:
        DataError: A path holds no run at all, or no run is left to show; an `ErrorList` for several.
    """
    directories: dict[Path, Path] = {}
    errors: list[P2PError] = []
    for path in paths:
        try:
            directories.update((run.resolve(), run) for run in find_runs(Path(path)))
        except DataError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorList(errors)
    if not directories:
        raise DataError(
            "no run directory given; name at least one, as in: p2p-bench report outputs/demo/2025-01-01"
        )
    runs: list[Run] = []
    left_out: list[LeftOut] = []
    for directory in directories.values():
        try:
            run = _readable(directory)
        except DataError as error:
            left_out.append(LeftOut(directory, str(error).removeprefix(f"{directory}: ")))
        else:
            runs.append(run)
    if not runs:
        faults = [DataError(f"{one.path}: {one.reason}") for one in left_out]
        raise faults[0] if len(faults) == 1 else ErrorList(faults)
    shown, foreign = _of_one_schema(runs)
    return Gathered(shown, (*left_out, *foreign))


def find_runs(path: Path) -> list[Path]:
    """The run directories at `path`: itself, or those directly below it in their natural order.

    A directory that a run was started in counts, also if the run has left no row yet.

    Raises:
        DataError: There is none.
    """
    if _started(path):
        return [path]
    try:
        children = list(path.iterdir()) if path.is_dir() else []
        below = [child for child in children if child.is_dir() and _started(child)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not below:
        what = "no rows here or one level below" if path.is_dir() else "no such directory"
        raise DataError(
            f"{path}: {what}; give run directories, which hold results.parquet or rows/part-*.parquet"
        )
    return sorted(below, key=lambda child: (not child.name.isdigit(), child.name.zfill(12)))


def _started(path: Path) -> bool:
    return (path / CONFIG).is_file() or has_rows(path)


def _readable(directory: Path) -> Run:
    if not has_rows(directory):
        raise DataError(f"{directory}: the run has left no row yet; start it again in the same directory")
    return read_run(directory)


def _of_one_schema(runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[LeftOut, ...]]:
    """The runs of the most common schema (of equals the newest), and the others with the reason."""
    schemas = Counter(run.summary["schema_version"] for run in runs)
    common = max(schemas, key=lambda schema: (schemas[schema], str(schema)))
    return (
        tuple(run for run in runs if run.summary["schema_version"] == common),
        tuple(
            LeftOut(
                run.path,
                f"has schema {run.summary['schema_version']}, the others have {common}; report on it apart",
            )
            for run in runs
            if run.summary["schema_version"] != common
        ),
    )
