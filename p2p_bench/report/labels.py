"""Names for runs among others: the settings in which they differ."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from p2p_bench.report.runs import Run, flatten, text_of

_MAX_SETTINGS = 3
"""Most settings named in a label; more would be no label but a page."""

_MAX_TEXT = 40
"""Longest value in a label."""

_SCHEDULE = ("cross", "self_attn")


def run_labels(runs: Sequence[Run]) -> list[str]:
    """For each run the settings in which the runs differ; "" for a run alone.

    Of settings that always change together only one is named. Where the settings are none, too many or
    not enough to tell two runs apart, the directory's name is used.
    """
    if len(runs) == 1:
        return [""]
    labels = setting_labels([short_settings(run) for run in runs])
    return labels or [directory_name(run, runs) for run in runs]


def setting_labels(settings: Sequence[Mapping[str, str]]) -> list[str] | None:
    """For each mapping the keys and values in which it differs from the others.

    Returns:
        None where they are none, too many, or not enough to tell any two apart.
    """
    different: dict[tuple[int, ...], tuple[str, list[str]]] = {}
    for key in sorted(dict.fromkeys(key for one in settings for key in one), key=len):
        values = _shown([one.get(key, "–") for one in settings])
        known = list(dict.fromkeys(values))
        if len(known) > 1 and not any(key.startswith(f"{one}.") for one, _ in different.values()):
            different.setdefault(tuple(known.index(value) for value in values), (key, values))
    labels = [
        " ".join(f"{key}={values[place]}" for key, values in different.values())
        for place in range(len(settings))
    ]
    distinct = len(set(labels)) == len(settings)
    return labels if different and len(different) <= _MAX_SETTINGS and distinct else None


def short_settings(run: Run) -> dict[str, str]:
    """Settings by dotted key; a component goes by the name of its group and its name in the rows."""
    settings = {}
    for key, value in flatten(run.summary.get("settings") or {}):
        text = text_of(value)
        if key.endswith("._target_"):
            key, text = key.removesuffix("._target_"), text.rpartition(".")[2]
            names = dict.fromkeys(str(row[key]) for row in run.rows if row.get(key) not in (None, "", "none"))
            text = ", ".join(names) or ("none" if key in run.rows[0] else text)
        settings[key] = text
    return settings


def _shown(values: Sequence[str]) -> list[str]:
    """Values for a label, long ones cut at an end that leaves them apart; whole where none does."""
    heads = [text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…" for text in values]
    tails = [text if len(text) <= _MAX_TEXT else "…" + text[1 - _MAX_TEXT :] for text in values]
    known = len(set(values))
    return next((short for short in (heads, tails) if len(set(short)) == known), list(values))


def without_schedule(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings but those of the tau schedule: equal for runs that differ in tau alone."""
    return {
        key: text
        for key, text in settings.items()
        if not key.startswith("tau.") and key.rpartition(".")[2] not in _SCHEDULE
    }


def directory_name(run: Run, runs: Sequence[Run]) -> str:
    """The shortest end of the path that only this run has."""
    return shortest_end(run.path, [other.path for other in runs])


def shortest_end(path: Path, paths: Iterable[Path]) -> str:
    """The shortest end of a path that no other of some paths has."""
    others = {other.resolve().parts for other in paths}
    own = path.resolve().parts
    for size in range(1, len(own) + 1):
        if sum(parts[-size:] == own[-size:] for parts in others) == 1:
            return "/".join(own[-size:])
    return path.as_posix()
