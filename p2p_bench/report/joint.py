"""One page over several runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from p2p_bench.errors import DataError, ErrorList, P2PError
from p2p_bench.report.columns import Column, metric_columns
from p2p_bench.report.page import write_page
from p2p_bench.report.runs import Run, flatten, has_rows, read_run, text_of

_MAX_SETTINGS = 3
"""Most settings named in a prefix; more would be no label but a page."""


def write_joint_report(run_dirs: Iterable[Path | str], out: Path | str) -> Path:
    """Write one page over the variants of several runs.

    Args:
        run_dirs: Run directories, or directories whose sub-directories are runs (a sweep).
        out: File to write.

    Returns:
        `out`.

    Raises:
        DataError: A directory has no rows, or the runs cannot stand on one page because they differ in
            schema or in the version of a metric. An `ErrorList` if several directories are at fault.
    """
    found: list[Run] = []
    errors: list[P2PError] = []
    for path in run_dirs:
        try:
            found += [read_run(run) for run in find_runs(Path(path))]
        except DataError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorList(errors)
    runs = list({run.path.resolve(): run for run in found}.values())
    if not runs:
        raise DataError(
            "no run directory given; name at least one, as in: p2p-bench report outputs/demo/2025-01-01"
        )
    _check_comparable(runs)
    names = list(dict.fromkeys(run.name for run in runs))
    title = " · ".join(names[:3]) + (" · …" if len(names) > 3 else "")
    return write_page(list(zip(prefixes(runs), runs, strict=True)), title, Path(out))


def find_runs(path: Path) -> list[Path]:
    """The run directories at `path`: itself, or those directly below it in their natural order.

    Raises:
        DataError: There is none.
    """
    if has_rows(path):
        return [path]
    below = [child for child in path.iterdir() if child.is_dir() and has_rows(child)] if path.is_dir() else []
    if not below:
        what = "no rows here or one level below" if path.is_dir() else "no such directory"
        raise DataError(
            f"{path}: {what}; give run directories, which hold results.parquet or rows/part-*.parquet"
        )
    return sorted(below, key=lambda child: (not child.name.isdigit(), child.name.zfill(12)))


def prefixes(runs: Sequence[Run]) -> list[str]:
    """For each run what its variants' names begin with: the settings in which the runs differ.

    Where these are none, too many or not enough to tell two runs apart, the directory's name is used.
    """
    if len(runs) == 1:
        return [""]
    flat = [dict(flatten(run.summary.get("settings") or {})) for run in runs]
    keys = [
        key
        for key in dict.fromkeys(key for one in flat for key in one)
        if len({_cut(one, key) for one in flat}) > 1
    ]
    labels = [" ".join(f"{key.removesuffix('.name')}={_cut(one, key)}" for key in keys) for one in flat]
    if not keys or len(keys) > _MAX_SETTINGS or len(set(labels)) < len(runs):
        labels = [_directory_name(run, runs) for run in runs]
    return [f"{label} · " for label in labels]


def _cut(settings: dict[str, Any], key: str) -> str:
    text = text_of(settings.get(key))
    return text if len(text) <= 40 else text[:39] + "…"


def _directory_name(run: Run, runs: Sequence[Run]) -> str:
    """The shortest end of the path that only this run has."""
    paths = [other.path.resolve().parts for other in runs]
    own = run.path.resolve().parts
    for size in range(1, len(own) + 1):
        if sum(parts[-size:] == own[-size:] for parts in paths) == 1:
            return "/".join(own[-size:])
    return run.path.as_posix()


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0]
    known: dict[str, tuple[Column, Run]] = {}
    for run in runs:
        if run.summary["schema_version"] != first.summary["schema_version"]:
            raise DataError(
                f"{run.path} has schema {run.summary['schema_version']}, {first.path} has "
                f"{first.summary['schema_version']}; report on them apart"
            )
        for column in metric_columns(run.summary["metrics"]):
            other, where = known.setdefault(column.name, (column, run))
            if other != column:
                raise DataError(
                    f"{column.name} is not the same number in {run.path} (version {column.version}, backbone "
                    f"{column.backbone or 'none'}) and in {where.path} (version {other.version}, backbone "
                    f"{other.backbone or 'none'}); report on them apart"
                )
