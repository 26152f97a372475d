"""Which pictures of a run are the files that it wrote, by the marks in them."""

from collections.abc import Callable
from itertools import islice

from p2p_bench.bench.rows import SCORED_IMAGES
from p2p_bench.errors import DataError
from p2p_bench.marks import fits, mark_name
from p2p_bench.report.pictures import path_inside
from p2p_bench.report.runs import Row, Run

_LOOKED_AT = 20
"""Edits whose pictures tell whether a run marks what it writes; any one of them does."""


def marks_of(run: Run) -> Callable[[Row, str], str | None]:
    """What the picture in a row's column was marked as; always None for a run of an older version.

    Those marked nothing, and nothing is known of theirs.
    """
    edits = islice((row for row in run.rows if row.get("image_target")), _LOOKED_AT)
    marking = any(_is_marked(run, row["image_target"], _mark(row, "image_target")) for row in edits)
    return _mark if marking else lambda row, column: None


def _mark(row: Row, column: str) -> str | None:
    """What a picture was marked as; None for those that are not: they show no edit that was scored."""
    name = row.get(column)
    original = column == "image_source" and name == row.get("image_original")
    if not name or original or column not in SCORED_IMAGES:
        return None
    return mark_name(str(row.get("run_id")), str(name))


def _is_marked(run: Run, name: str, mark: str | None) -> bool:
    try:
        return mark is not None and fits(path_inside(run.path, name).read_bytes(), mark) is not None
    except (DataError, OSError):
        return False
