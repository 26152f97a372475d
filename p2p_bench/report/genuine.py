"""Which pictures of a run are the files that it wrote, by the marks in them."""

from itertools import islice

from p2p_bench.bench.rows import SCORED_IMAGES
from p2p_bench.errors import DataError
from p2p_bench.marks import fits
from p2p_bench.report.pictures import path_inside
from p2p_bench.report.runs import Row, Run

_LOOKED_AT = 20
"""Edits whose pictures tell whether a run marks what it writes; any one of them does."""


def marks_pictures(run: Run) -> bool:
    """Whether a run marked its pictures; older versions did not, and nothing is known of theirs."""
    edits = islice((row for row in run.rows if row.get("image_target")), _LOOKED_AT)
    return any(_is_marked(run, row["image_target"], mark_of(row, "image_target")) for row in edits)


def mark_of(row: Row, column: str) -> str | None:
    """What a picture was marked as; None for those that are not: they show no edit that was scored."""
    name = row.get(column)
    original = column == "image_source" and name == row.get("image_original")
    return f"{row.get('run_id')}/{name}" if name and column in SCORED_IMAGES and not original else None


def _is_marked(run: Run, name: str, mark: str | None) -> bool:
    try:
        return mark is not None and fits(path_inside(run.path, name).read_bytes(), mark) is not None
    except (DataError, OSError):
        return False
