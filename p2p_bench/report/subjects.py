"""Samples of several runs: an id is one sample only where prompts and pictures are the same.

Ids are unique within a data set and nothing more: two data sets may both number their pairs, and a picture
may be replaced between two runs. What is compared pair by pair must be the same pair.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from p2p_bench.report.runs import Row, Run

Subject = Mapping[int, tuple[str, str, str]]
"""By target: source prompt, target prompt, and checksum of the source image, "" where it is not known."""


def told_apart(runs: Sequence[Run]) -> tuple[tuple[Run, ...], list[str]]:
    """The runs, with another sample of an id that is taken renamed `id (2)` and so on.

    Returns:
        The runs, and a sentence where any was renamed.
    """
    known: dict[str, list[dict[int, tuple[str, str, str]]]] = {}
    found: list[Run] = []
    renamed, taken = 0, {row["sample_id"] for run in runs for row in run.rows}
    for run in runs:
        names: dict[str, str] = {}
        for sample, subject in _subjects(run).items():
            same = known.setdefault(sample, [])
            place = next((i for i, other in enumerate(same) if _agree(other, subject)), len(same))
            if place == len(same):
                same.append({})
            same[place].update({at: one for at, one in subject.items() if one[2] or at not in same[place]})
            if place:
                names[sample] = _new(f"{sample} ({place + 1})", taken)
        renamed += len(names)
        found.append(_renamed(run, names) if names else run)
    notice = (
        f"{renamed} sample ids stand for other prompts or pictures than in an earlier run; they are kept "
        "apart, with a number behind the id, and not compared"
    )
    return tuple(found), [notice] if renamed else []


def _new(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "'"
    return name


def _subjects(run: Run) -> Mapping[str, Subject]:
    subjects: dict[str, dict[int, tuple[str, str, str]]] = {}
    for row in run.rows:
        own = subjects.setdefault(row["sample_id"], {})
        checksum = str(row.get("source_checksum") or own.get(row["target_index"], ("", "", ""))[2])
        own[row["target_index"]] = row["source_prompt"], row["target_prompt"], checksum
    return subjects


def _agree(one: Subject, other: Subject) -> bool:
    """Whether two runs may be of the same sample; targets that one of them lacks say nothing."""
    shared = [(one[at], other[at]) for at in one if at in other]
    sums = {text for subject in (one, other) for *_, text in subject.values() if text}
    return len(sums) < 2 and all(a[:2] == b[:2] for a, b in shared)


def _renamed(run: Run, names: Mapping[str, str]) -> Run:
    def row_of(row: Row) -> dict[str, Any]:
        return {**row, "sample_id": names.get(row["sample_id"], row["sample_id"])}

    return replace(run, rows=tuple(map(row_of, run.rows)), references=tuple(map(row_of, run.references)))
