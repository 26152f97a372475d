"""One page over several runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from p2p_bench.errors import DataError, ErrorList, P2PError
from p2p_bench.report.columns import Column, metric_columns
from p2p_bench.report.page import write_page
from p2p_bench.report.runs import Run, flatten, has_rows, read_run, text_of

_MAX_SETTINGS = 3
"""Most settings named in a prefix; more would be no label but a page."""


_MAX_TEXT = 40
"""Longest value in a prefix."""


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

    Of settings that always change together only one is named. Where the settings are none, too many or
    not enough to tell two runs apart, the directory's name is used.
    """
    if len(runs) == 1:
        return [""]
    found = [_short_settings(run) for run in runs]
    different: dict[tuple[str, ...], str] = {}
    for key in sorted(dict.fromkeys(key for settings in found for key in settings), key=len):
        values = tuple(settings.get(key, "–") for settings in found)
        if len(set(values)) > 1 and not any(
            key.startswith(f"{component}.") for component in different.values()
        ):
            different.setdefault(values, key)
    labels = [" ".join(f"{key}={values[i]}" for values, key in different.items()) for i in range(len(runs))]
    if not different or len(different) > _MAX_SETTINGS or len(set(labels)) < len(runs):
        labels = [_directory_name(run, runs) for run in runs]
    return [f"{label} · " for label in labels]


def _short_settings(run: Run) -> dict[str, str]:
    """Settings by dotted key; a component goes by the name of its group and its name in the rows."""
    settings = {}
    for key, value in flatten(run.summary.get("settings") or {}):
        text = text_of(value)
        if key.endswith("._target_"):
            key, text = key.removesuffix("._target_"), text.rpartition(".")[2]
            names = dict.fromkeys(str(row[key]) for row in run.rows if row.get(key) not in (None, "", "none"))
            text = ", ".join(names) or ("none" if key in run.rows[0] else text)
        settings[key] = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
    return settings


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
