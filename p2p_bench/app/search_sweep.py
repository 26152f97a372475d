"""`hydra/sweeper=search`: jobs are chosen in batches by what earlier ones scored, launched, and told back."""

import json
import math
import shlex
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from p2p_bench.app.build import build, chosen_options, recorded_settings, without_hydra
from p2p_bench.app.compose import one_job_each, with_sweeper_params
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.jobs import job_output
from p2p_bench.app.study import STUDY, SearchSettings, Study, parameter_of
from p2p_bench.app.sweep import Sweep
from p2p_bench.bench.directory import locked
from p2p_bench.bench.mirror import fetch, mirrored
from p2p_bench.bench.open_run import MASKS
from p2p_bench.bench.rows import RESULTS, write_atomically
from p2p_bench.bench.summary import SUMMARY
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.metrics.base import all_columns

_SWEEP = "multirun.yaml"
"""What Hydra's own sweeper leaves too, for `p2p-bench resume`."""

_SHOWN = 5


def run_search(
    settings: Mapping[str, Any], sweep: Sweep, launcher: Launcher, arguments: Sequence[str]
) -> list[JobReturn]:
    """Searches until there are as many trials as asked for; what was told before is not run again.

    Trials that failed before are run again, so that their failed edits are tried again; to the search they
    stay what they were told to be.

    Args:
        settings: Arguments of `SearchSettings`.
        sweep: The sweep.
        launcher: Runs jobs.
        arguments: Overrides of the sweep, without those of the sweeper's own `params`.

    Raises:
        ConfigError: A setting is wrong, or the directory holds another search.
        Exception: What a job in a process of its own died of, once the search has ended.
    """
    chosen = SearchSettings(**settings)
    everything = with_sweeper_params(arguments, sweep.config.hydra)
    parsed = OverridesParser.create(config_loader=sweep.context.config_loader).parse_overrides(everything)
    parameters = [parameter_of(one) for one in parsed if one.is_sweep_override()]
    fixed = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
    if not parameters:
        raise ConfigError("a search needs something to choose from, such as tau.cross=interval(0,1)")
    example = sweep.composed(0, one_job_each(everything)[0])
    sweep.made.clear()
    url, console = example.run.output, status_console()
    with (
        locked(sweep.directory),
        mirrored(sweep.directory, url, lambda line: console.print(line, markup=False), only=(STUDY, _SWEEP)),
    ):
        if not (sweep.directory / STUDY).exists():
            _write_sweep(sweep)  # first of all, so that whatever is begun can be resumed
        shared = _shared_settings(example, [one.key for one in parameters])
        study = Study(sweep.directory, chosen, parameters, _directions(example), shared)
        _write_sweep(sweep)
        if url is not None:
            _fetch_told(study, sweep.directory, url)
        returned = _run_again(study, launcher, fixed)
        while len(study.trials) < chosen.n_trials:
            ended = _run_batch(study, launcher, fixed, sweep.directory)
            returned += ended
            if not study.trials:
                break
        _tell_end(study, sweep.directory)
    for one in returned:
        _ = one.return_value  # raises what a job died of
    return returned


def _fetch_told(study: Study, directory: Path, url: str) -> None:
    """Fetches the jobs of trials that were told on another machine: they are not run again here."""
    for trial in study.trials:
        run_dir = directory / str(trial.number)
        if trial.state != TrialState.FAIL and not (run_dir / SUMMARY).is_file():
            fetch(run_dir, job_output(url, run_dir))


def _run_batch(study: Study, launcher: Launcher, fixed: Sequence[str], directory: Path) -> list[JobReturn]:
    """Chooses jobs, runs them, and tells how they ended; a first batch that failed as a whole is not told."""
    batch = study.batch()
    jobs = [[*fixed, *study.overrides(trial)] for trial in batch.trials]
    first = batch.trials[0].number
    console = status_console()
    console.print(
        f"search: trials {first} to {first + len(jobs) - 1} of {study.settings.n_trials}", markup=False
    )
    ended = list(launcher.launch(jobs, initial_job_idx=first))
    values = [_values(one) for one in ended]
    if study.trials or any(values):
        _refuse_changed(directory, [first + place for place, one in enumerate(values) if one])
        study.tell(batch, values)
    else:
        console.print("search: no trial of the first batch has its objectives; the search stops", style="red")
    return ended


def _run_again(study: Study, launcher: Launcher, fixed: Sequence[str]) -> list[JobReturn]:
    """Runs the trials again that were told to have failed."""
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    returned: list[JobReturn] = []
    for trial in failed:
        returned += launcher.launch([[*fixed, *study.overrides(trial)]], initial_job_idx=trial.number)
    return returned


def _values(ended: JobReturn) -> tuple[float, ...] | None:
    """What a job returned as its objectives; None if it failed."""
    if ended.status != JobStatus.COMPLETED or ended.return_value is None:
        return None
    value = ended.return_value
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values if all(map(math.isfinite, values)) else None


def _directions(example: DictConfig) -> dict[str, bool]:
    """By objective, whether more is better: as its metric says."""
    task = build(without_hydra(example), chosen_options(example.hydra)).task
    higher = {column.name: column.higher_is_better for column in all_columns(task.metrics)}
    return {str(name): bool(higher[name]) for name in example.run.objectives}


def _shared_settings(example: DictConfig, searched: Sequence[str]) -> dict[str, Any]:
    """The settings that decide numbers, without those that are searched over."""
    plain = OmegaConf.create(recorded_settings(without_hydra(example), resolve=False))
    for key in searched:
        bare = key.lstrip("+").partition("@")[0].replace("/", ".")
        parent, _, last = bare.rpartition(".")
        node = OmegaConf.select(plain, parent) if parent else plain
        if isinstance(node, DictConfig) and last in node:
            del node[last]
    shared = OmegaConf.to_container(plain)
    assert isinstance(shared, dict)
    return {str(key): value for key, value in shared.items()}


def _write_sweep(sweep: Sweep) -> None:
    text = OmegaConf.to_yaml(sweep.config)
    write_atomically(sweep.directory / _SWEEP, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _refuse_changed(directory: Path, trials: Sequence[int]) -> None:
    """Compares what trials read with what the first trial of the search read.

    Raises:
        DataError: Weights, the data set, an image or a mask have changed while the search was interrupted.
    """
    known: dict[Hashable, object] = {}
    for number in dict.fromkeys([0, *trials]):
        for what, checksum in _read_by(directory / str(number)):
            if known.setdefault(what, checksum) != checksum:
                raise DataError(
                    f"{directory}: the model's weights, the data set, its images or masks have changed since "
                    "the search began; start it anew in another directory with run.dir=DIR"
                )


def _read_by(run_dir: Path) -> Iterator[tuple[Hashable, object]]:
    """What a trial read, and its checksum; nothing where it left none."""
    if not (run_dir / SUMMARY).is_file():
        return
    summary = json.loads((run_dir / SUMMARY).read_text(encoding="utf-8"))
    checksums = summary["checksums"]
    masks = checksums.pop(MASKS, None)
    yield "all", checksums
    if masks is not None:  # trials may choose among masks
        yield (MASKS, *_mask_names(summary["settings"].get("controller"))), masks
    if (run_dir / RESULTS).is_file():
        table = pq.read_table(run_dir / RESULTS, columns=["sample_id", "source_checksum"], use_threads=False)
        for row in table.to_pylist():
            if row["source_checksum"]:
                yield ("image", row["sample_id"]), row["source_checksum"]


def _mask_names(settings: object) -> Iterator[str]:
    """Files of masks in the settings of a controller and of those that it is composed of."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from [str(value)] if key == "mask" else _mask_names(value)
    elif isinstance(settings, list):
        for one in settings:
            yield from _mask_names(one)


def _tell_end(study: Study, directory: Path) -> None:
    trials = study.trials
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    best = study.best if failed < len(trials) else []
    shown = "; ".join(f"{trial.number}: {', '.join(study.overrides(trial))}" for trial in best[:_SHOWN])
    more = f"; and {len(best) - _SHOWN} more" if len(best) > _SHOWN else ""
    result_console().print(
        f"search: {len(trials)} trials, {failed} failed; beaten by no other: {shown or 'none'}{more}\n"
        f"front and importance: p2p-bench report {shlex.quote(str(directory))}",
        markup=False,
    )
