"""Whether runs side by side were made by the same software."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from p2p_bench.report.runs import Run

_COMMIT = 10


def origin_notices(runs: Sequence[Run]) -> list[str]:
    """A sentence on the versions and commits that made the runs, where they are not the same.

    A difference between two such runs may be one of the software. What a run did not note tells nothing.
    """
    versions: dict[str, Counter[str]] = {}
    for run in runs:
        for name, version in _origins(run):
            versions.setdefault(name, Counter())[version] += 1
    told = [
        f"{name} " + " and ".join(f"{version} ({_runs(count)})" for version, count in found.items())
        for name, found in versions.items()
        if len(found) > 1
    ]
    if not told:
        return []
    return [f"Not all runs were made by the same software, which can move numbers: {', '.join(told)}"]


def _origins(run: Run) -> Iterator[tuple[str, str]]:
    versions, git = run.summary.get("versions"), run.summary.get("git")
    if isinstance(versions, Mapping):
        yield from ((str(name), str(version)) for name, version in versions.items() if version)
    if isinstance(git, Mapping) and git.get("commit"):
        changed = " with changes" if git.get("changed") else ""
        yield "the source's commit", str(git["commit"])[:_COMMIT] + changed


def _runs(count: int) -> str:
    return f"{count} {'run' if count == 1 else 'runs'}"
