"""The report over many runs: a folder that opens from disk, its data in script files."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_bench.bench.rows import write_atomically
from p2p_bench.errors import DataError
from p2p_bench.report.columns import column_notes, number
from p2p_bench.report.entries import joint_columns, make_entries
from p2p_bench.report.folder_payload import PICTURES, JointData, summary_payload
from p2p_bench.report.gather import Gathered, LeftOut, gather
from p2p_bench.report.genuine import marks_of
from p2p_bench.report.numbers import finite
from p2p_bench.report.origins import origin_notices
from p2p_bench.report.page import script_json
from p2p_bench.report.runs import Row
from p2p_bench.report.subjects import told_apart
from p2p_bench.report.templates import asset, environment
from p2p_bench.report.thumbnails import ThumbnailStore

_SCRIPTS = (
    "helpers.js", "references.js", "folder/state.js", "folder/statistics.js", "folder/chart.js",
    "folder/overview.js", "folder/published.js", "folder/tables.js", "folder/pictures.js",
    "folder/gallery.js", "folder/difference.js", "folder/viewer.js", "folder/main.js",
)  # fmt: skip
_STYLES = ("report.css", "folder/folder.css")
_OWN_FILES = re.compile(r"rows-\d+\.js|[0-9a-f]{16}\.(png|jpg|webp)")
_ROWS_PER_FILE = 2000
OWN_PAGE = "p2p_bench</title>"
"""What every page of a report holds."""


@dataclass(frozen=True)
class FolderReport:
    """A report that was written.

    Attributes:
        page: The page to open.
        runs: Number of runs it shows.
        left_out: Directories of runs that it does not show.
        notices: What a reader has to know before comparing numbers.
    """

    page: Path
    runs: int
    left_out: tuple[LeftOut, ...]
    notices: tuple[str, ...]


def write_folder_report(run_dirs: Iterable[Path | str], out: Path | str) -> FolderReport:
    """Write one report over the variants of several runs, as a folder that can be moved and opened anywhere.

    Metrics of one name but another version or network stand in columns of their own, with a notice.

    Args:
        run_dirs: Run directories, or directories whose sub-directories are runs (a sweep).
        out: The folder; files of an earlier report in it are replaced.

    Raises:
        DataError: A directory has no run, none of the runs can be shown, or `out` is a file or holds a page
            that is no report. An `ErrorList` if several directories are at fault.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, and a report over several runs is a folder; choose another --out")
    _refuse_foreign(out / "index.html")
    gathered = gather(run_dirs)
    data = _joint_data(gathered)
    for folder in (out / "assets", out / "data", out / "thumbs"):
        folder.mkdir(parents=True, exist_ok=True)
    store = ThumbnailStore(out / "thumbs", out)
    chunks = list(_chunks(data, store))
    for i, rows in enumerate(chunks):
        _write_script(out / "data" / f"rows-{i:03d}.js", "rows", rows)
    _write_script(out / "data" / "pictures.js", "pictures", [list(pair) for pair in store.files])
    _write_script(out / "data" / "summary.js", "summary", summary_payload(data, out, len(chunks)))
    _remove_stale(out, len(chunks), {name for name, _ in store.files})
    _write(out / "assets" / "report.css", "\n".join(asset(name) for name in _STYLES))
    script = "\n".join(asset(name) for name in _SCRIPTS)
    _write(out / "assets" / "report.js", f'"use strict";\n(() => {{\n{script}\n}})();\n')
    _write(out / "index.html", _page(data))
    return FolderReport(out / "index.html", len(gathered.runs), gathered.left_out, data.notices)


def _refuse_foreign(page: Path) -> None:
    """Raises a `DataError` where a page would be overwritten that no report wrote."""
    try:
        own = not page.exists() or OWN_PAGE in page.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{page}: cannot be read ({error}); choose another folder with --out") from error
    if not own:
        raise DataError(f"{page}: is no report, and is not overwritten; choose another folder with --out")


def _joint_data(gathered: Gathered) -> JointData:
    runs, kept_apart = told_apart(gathered.runs)
    columns, notices = joint_columns(runs)
    names = list(dict.fromkeys(run.name for run in runs))
    return JointData(
        title=" · ".join(names[:3]) + (" · …" if len(names) > 3 else ""),
        entries=make_entries(runs),
        columns=columns,
        notices=(*notices, *kept_apart, *origin_notices(runs)),
        left_out=gathered.left_out,
        runs=runs,
    )


def _chunks(data: JointData, store: ThumbnailStore) -> Iterator[list[list[Any]]]:
    """The rows in files of bounded size: entry, sample, error or null, scores, pictures."""
    samples = data.sample_numbers
    names = [column.name for column in data.columns]
    chunk: list[list[Any]] = []
    marks = {run.path: marks_of(run) for run in data.runs}
    for i, entry in enumerate(data.entries):
        for key, row in entry.rows.items():
            chunk.append(
                [
                    i,
                    samples[key],
                    None if row["status"] == "ok" else row.get("error") or "no reason given",
                    [finite(number(row.get(name))) for name in names],
                    _pictures(row, entry.run.path, store, marks[entry.run.path]),
                ]
            )
            if len(chunk) == _ROWS_PER_FILE:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _pictures(
    row: Row, root: Path, store: ThumbnailStore, mark: Callable[[Row, str], str | None]
) -> list[int | None]:
    return [_picture(root, row.get(field), store, mark(row, field)) for field in PICTURES.values()]


def _picture(root: Path, relative: str | None, store: ThumbnailStore, mark: str | None) -> int | None:
    """Number of a picture; None also for one outside its run directory, which is nobody's to show."""
    try:
        return store.add(root, relative, mark)
    except DataError:
        return None


def _page(data: JointData) -> str:
    return (
        environment()
        .get_template("folder/index.html.j2")
        .render(
            title=data.title,
            runs=len(data.runs),
            variants=len(data.entries),
            samples=len(data.sample_numbers),
            edits=sum(len(entry.rows) for entry in data.entries),
            notices=data.notices,
            left_out=data.left_out,
            world=any(column.backbone == "world" for column in data.columns),
            notes=column_notes(data.columns),
            schema_version=data.runs[0].summary["schema_version"],
        )
    )


def _write_script(path: Path, name: str, value: Any) -> None:
    _write(path, f"P2P.{name}({script_json(value)});\n")


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def _remove_stale(out: Path, num_chunks: int, thumbnails: set[str]) -> None:
    """Removes what an earlier report left, and nothing that a report did not write."""
    current = {f"rows-{i:03d}.js" for i in range(num_chunks)} | thumbnails
    for folder in ("data", "thumbs"):
        for path in (out / folder).iterdir():
            if _OWN_FILES.fullmatch(path.name) and path.name not in current:
                path.unlink()
