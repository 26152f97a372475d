"""The study of a search: what is searched over, what was told so far, and what is tried next.

What is tried next is a function of the settings and of the trials that were told, so a search that was
killed goes on as if it had not been. The study lies in a journal of JSON lines that optuna's own tools can
open; a trial is written when it has ended, as one line.
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial

from p2p_bench.bench.finished import flat
from p2p_bench.errors import ConfigError, DataError, nearest
from p2p_bench.hashing import digest

STUDY = "search.jsonl"
"""Name of the journal in the directory of a search."""

SAMPLERS = ("auto", "nsgaii", "tpe", "random")
Direction = Literal["minimize", "maximize"]

_NAME = "search"
_SETTINGS = "settings"
_LOCK = ".lock"
"""Ending of optuna's own lock, which outlives a process that was killed; ours on the directory does not."""
_SHOWN = 5

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class SearchSettings:
    """How a search chooses.

    Attributes:
        sampler: "nsgaii", "tpe", "random", or "auto": NSGA-II for several objectives, TPE for one.
        n_trials: Number of trials; a finished search goes on if it is raised.
        n_jobs: Trials that are chosen, and launched, together.
        seed: Seed of the choices.
        population_size: Trials in a generation of NSGA-II; None is `n_jobs`, at least 2.
    """

    sampler: str = "auto"
    n_trials: int = 64
    n_jobs: int = 16
    seed: int = 0
    population_size: int | None = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ConfigError(
                f"hydra.sweeper.sampler: expected one of {', '.join(SAMPLERS)}, got {self.sampler!r}."
                f"{nearest(str(self.sampler), SAMPLERS)}"
            )
        least = {"n_trials": 1, "n_jobs": 1, "seed": 0, "population_size": 2}
        for name, low in least.items():
            value = getattr(self, name)
            optional = name == "population_size" and value is None
            if not optional and (type(value) is not int or value < low):
                raise ConfigError(
                    f"hydra.sweeper.{name}: expected a whole number of at least {low}, got {value!r}"
                )


@dataclass(frozen=True)
class Parameter:
    """A key that is searched over.

    Attributes:
        key: Key of the override.
        distribution: The values, as optuna takes them.
        options: The values as text, in order, of a range; empty for others.
    """

    key: str
    distribution: BaseDistribution
    options: tuple[str, ...] = ()

    def override(self, value: Any) -> str:
        """The override for a value of the distribution."""
        if not self.options:
            return f"{self.key}={value}"
        numbers = [float(option) for option in self.options]
        at = min(range(len(numbers)), key=lambda index: abs(numbers[index] - value))
        return f"{self.key}={self.options[at]}"


def parameter_of(override: Override) -> Parameter:
    """What a swept override lets a search choose: an interval, the numbers of a range, or choices."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        assert low is not None
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):
            return Parameter(key, IntDistribution(low, high, log=log))
        return Parameter(key, FloatDistribution(low, high, log=log))
    options = _numbers(value) if isinstance(value, RangeSweep) else list(override.sweep_string_iterator())
    if isinstance(value, RangeSweep) and len(options) > 1:
        ends = float(options[0]), float(options[-1])
        return Parameter(key, FloatDistribution(*ends, step=abs(value.step)), tuple(options))
    return Parameter(key, CategoricalDistribution(options))


def _numbers(sweep: RangeSweep) -> list[str]:
    """The numbers of a range in rising order, as they are written: 0.15, not 0.15000000000000002."""
    start, stop, step = (Decimal(str(value)) for value in (sweep.start, sweep.stop, sweep.step))
    count = math.ceil((stop - start) / step)
    return [str(start + place * step) for place in sorted(range(count), key=lambda place: place * step)]


class Study:
    """Trials that were told, on the disk; the directory must be held by the caller.

    Args:
        directory: Directory of the search.
        settings: How it chooses.
        parameters: What it chooses.
        directions: By objective, whether more is better.
        run: The settings that all trials share.

    Raises:
        ConfigError: The directory holds a search with other settings.
        DataError: The journal is damaged.
    """

    def __init__(
        self,
        directory: Path,
        settings: SearchSettings,
        parameters: Sequence[Parameter],
        directions: Mapping[str, bool],
        run: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self.parameters = tuple(parameters)
        self._directions: list[Direction | StudyDirection] = [
            "maximize" if higher else "minimize" for higher in directions.values()
        ]
        chosen = {key: value for key, value in asdict(settings).items() if key != "n_trials"}
        space = {one.key: distribution_to_json(one.distribution) for one in self.parameters}
        about = {
            "search": chosen,
            "space": space,
            "objectives": dict(zip(directions, self._directions, strict=True)),
            "optuna": optuna.__version__,
            **run,
        }
        path = directory / STUDY
        try:
            self._study = _opened(path, self._directions)
            there = self._study.user_attrs.get(_SETTINGS)
        except (OSError, ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
            raise DataError(
                f"{path}: not what a search leaves ({error!r}); choose another directory with run.dir=DIR"
            ) from error
        if there is None and not self.trials:
            self._study.set_user_attr(_SETTINGS, json.loads(json.dumps(about)))
        elif there != json.loads(json.dumps(about)):
            raise ConfigError(
                f"{directory} holds a search with other settings ({_differences(there, about)}); repeat "
                "those settings to finish that search, or choose another directory with run.dir=DIR"
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that were told, in order."""
        return self._study.get_trials(deepcopy=False)

    @property
    def best(self) -> list[FrozenTrial]:
        """The trials that no other beats."""
        return self._study.best_trials

    def overrides(self, trial: FrozenTrial | Trial) -> list[str]:
        """What a trial sets."""
        return [one.override(trial.params[one.key]) for one in self.parameters]

    def batch(self) -> "Batch":
        """The trials that come next."""
        told = self.trials
        first = len(told) - len(told) % self.settings.n_jobs
        size = min(self.settings.n_jobs, self.settings.n_trials - first)
        seed = int(digest([self.settings.seed, first])[:8], 16)
        memory = optuna.create_study(directions=self._directions, sampler=self._sampler(seed))
        memory.add_trials(told[:first])
        space = {one.key: one.distribution for one in self.parameters}
        asked = [memory.ask(fixed_distributions=space) for _ in range(size)]
        return Batch(memory, asked, len(told) - first)

    def tell(self, batch: "Batch", values: Sequence[Sequence[float] | None]) -> None:
        """Writes how the trials of a batch that are not there yet ended; None is a failure."""
        for trial, value in zip(batch.trials, values, strict=True):
            if value is None:
                batch.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                batch.study.tell(trial, list(value))
        for told in batch.study.trials[len(self.trials) :]:
            self._study.add_trial(told)

    def _sampler(self, seed: int) -> BaseSampler:
        name = self.settings.sampler
        if name == "auto":
            name = "nsgaii" if len(self._directions) > 1 else "tpe"
        if name == "nsgaii":
            size = self.settings.population_size or max(2, self.settings.n_jobs)
            return NSGAIISampler(population_size=size, seed=seed)
        if name == "random":
            return RandomSampler(seed=seed)
        with (
            warnings.catch_warnings()
        ):  # the liar, which tells the trials of a batch apart, was once an experiment
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=seed, constant_liar=True)


@dataclass(frozen=True, eq=False)
class Batch:
    """Trials that were chosen together.

    Attributes:
        study: A study in memory that holds them and all before them.
        asked: All of them.
        there: How many of them were told before the search was interrupted.
    """

    study: optuna.Study
    asked: Sequence[Trial]
    there: int

    @property
    def trials(self) -> Sequence[Trial]:
        """Those that were not told yet."""
        return self.asked[self.there :]


def _opened(path: Path, directions: Sequence[Direction | StudyDirection]) -> optuna.Study:
    path.with_name(f"{path.name}{_LOCK}").unlink(missing_ok=True)
    if path.exists():
        _cut_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    if _NAME in optuna.get_all_study_names(storage):
        return optuna.load_study(study_name=_NAME, storage=storage)
    return optuna.create_study(storage=storage, study_name=_NAME, directions=list(directions))


def _cut_torn_line(path: Path) -> None:
    """Removes what a process that was killed wrote of its last line."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def _differences(there: Any, here: Mapping[str, Any]) -> str:
    before, now = (dict(flat(node)) for node in (there if isinstance(there, Mapping) else {}, here))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    texts = [f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in keys[:_SHOWN]]
    return "; ".join(texts) + (f"; and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
