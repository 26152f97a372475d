"""Auto-tau: the best tau of each sample by a stated criterion, beside the best fixed one and the oracle."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2p_bench.report.columns import Column
from p2p_bench.report.entries import Entry, Key
from p2p_bench.report.methods import Method, oriented
from p2p_bench.stats import Paired, compare_paired


@dataclass(frozen=True)
class Criterion:
    """How a tau is chosen: the highest editability among the taus that keep enough of the source.

    Enough is a share of the way from the sample's least to its most faithful tau, so the rule has no
    unit and serves every metric. Of equals the more faithful is taken, then the larger tau.

    Attributes:
        x: Metric of editability, made as good as can be.
        y: Metric of fidelity, kept.
        share: 0 asks for nothing, 1 takes the most faithful tau.
    """

    x: Column
    y: Column
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: expected a number in [0, 1], got {self.share}")

    @property
    def text(self) -> str:
        """The rule in words."""
        return (
            f"per sample the tau with the best {self.x.title} among those whose {self.y.title} is at least "
            f"{self.share:.0%} of the way from that sample's worst tau to its best"
        )


@dataclass(frozen=True)
class Selection:
    """Which entry of a method serves each sample.

    Attributes:
        chosen: Number of the entry by sample and target.
        columns: Values of the chosen edits, by metric.
        taus: How often each entry was chosen, by its number.
    """

    chosen: Mapping[Key, int]
    columns: Mapping[str, Mapping[Key, float]]
    taus: Mapping[int, int]


@dataclass(frozen=True)
class AutoTau:
    """A method under three ways to choose its tau, on the samples where all of them are defined.

    Attributes:
        method: The method.
        fixed: The one tau with the best mean of the judge.
        auto: The tau of the criterion.
        oracle: The tau with the best judge, an upper bound for any choice among these taus; None
            without a judge.
        gain: The judge of `auto` minus that of `fixed`; None without a judge.
    """

    method: Method
    fixed: Selection
    auto: Selection
    oracle: Selection | None
    gain: Paired | None


def auto_tau(
    entries: Sequence[Entry],
    method: Method,
    criterion: Criterion,
    judge: Column | None,
    columns: Sequence[Column],
) -> AutoTau | None:
    """Choose the tau of each sample of a method.

    Args:
        entries: All entries.
        method: With at least two entries.
        criterion: How `auto` chooses.
        judge: A metric that knows the right answer and that the criterion does not see; None where the
            rows have none. The fixed tau is then the one with the best mean editability whose mean
            fidelity meets the criterion.
        columns: Metrics whose values are wanted.

    Returns:
        None where no sample has every metric under at least two taus.
    """
    needed = [criterion.x, criterion.y, *([judge] if judge else [])]
    scores = {i: {column.name: entries[i].values(column.name) for column in needed} for i in method.entries}
    usable = {
        key: [i for i in method.entries if all(key in scores[i][column.name] for column in needed)]
        for key in dict.fromkeys(key for i in method.entries for key in entries[i].rows)
    }
    usable = {key: options for key, options in usable.items() if len(options) == len(method.entries) > 1}
    if not usable:
        return None

    def score(i: int, key: Key, column: Column) -> float:
        return oriented(column) * scores[i][column.name][key]

    def mean(i: int, column: Column) -> float:
        return math.fsum(score(i, key, column) for key in usable) / len(usable)

    def best(options: Sequence[int], column: Column, key: Key) -> int:
        return max(options, key=lambda i: (score(i, key, column), options.index(i)))

    by_rule = {
        key: options[choose([(score(i, key, criterion.x), score(i, key, criterion.y)) for i in options],
                            criterion.share)]
        for key, options in usable.items()
    }  # fmt: skip
    if judge is None:
        means = [(mean(i, criterion.x), mean(i, criterion.y)) for i in method.entries]
        one = method.entries[choose(means, criterion.share)]
    else:
        one = max(method.entries, key=lambda i: mean(i, judge))
    fixed = _selection(entries, dict.fromkeys(usable, one), columns)
    auto = _selection(entries, by_rule, columns)
    if judge is None:
        return AutoTau(method, fixed, auto, None, None)
    by_judge = {key: best(options, judge, key) for key, options in usable.items()}
    keys = list(usable)
    gain = compare_paired(
        [scores[by_rule[key]][judge.name][key] for key in keys],
        [scores[one][judge.name][key] for key in keys],
        [sample for sample, _ in keys],
    )
    return AutoTau(method, fixed, auto, _selection(entries, by_judge, columns), gain)


def choose(points: Sequence[tuple[float, float]], share: float) -> int:
    """Index of the point with the best first number among those with enough of the second.

    Args:
        points: Editability and fidelity by rising tau, larger is better.
        share: See `Criterion`.
    """
    fidelity = [y for _, y in points]
    enough = min(fidelity) + share * (max(fidelity) - min(fidelity))
    slack = 1e-9 * (max(fidelity) - min(fidelity))
    allowed = [i for i, y in enumerate(fidelity) if y >= enough - slack]
    return max(allowed, key=lambda i: (*points[i], i))


def _selection(entries: Sequence[Entry], chosen: Mapping[Key, int], columns: Sequence[Column]) -> Selection:
    values: dict[str, dict[Key, float]] = {}
    for column in columns:
        defined = {i: entries[i].values(column.name) for i in set(chosen.values())}
        values[column.name] = {key: defined[i][key] for key, i in chosen.items() if key in defined[i]}
    return Selection(chosen, values, Counter(chosen.values()))
