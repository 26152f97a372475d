"""One run of the benchmark: check, edit what is missing, summarise."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console

from p2p_bench.bench.callbacks import ShowProgress, WriteRows
from p2p_bench.bench.directory import claim, locked
from p2p_bench.bench.lint import lint_pairs, refuse_if_hopeless
from p2p_bench.bench.loggers import FinishedRun
from p2p_bench.bench.module import EditModule
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.bench.records import RowMaker
from p2p_bench.bench.rows import Key, RowWriter, compact, key_of, read_rows
from p2p_bench.bench.summary import summarise, write_summary
from p2p_bench.bench.task import Keep, Task, Variant
from p2p_bench.data.module import PairDataModule
from p2p_bench.errors import ConfigError, ErrorList, P2PError
from p2p_bench.hashing import digest
from p2p_bench.inversion.base import unserved
from p2p_bench.metrics.base import MetricColumn, all_columns
from p2p_bench.models import ModelSpec
from p2p_bench.types import EditPair


def run_benchmark(
    task: Task,
    run_dir: Path,
    *,
    trainer: Callable[..., Trainer],
    name: str = "run",
    group: str = "",
    job: str = "",
    config: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
    batch_size: int = 8,
    console: Console | None = None,
) -> FinishedRun:
    """Edits every pair with every variant, as far as the directory does not hold the result already.

    A pair that cannot be edited becomes rows with `status=error`.

    Args:
        task: What is measured.
        run_dir: Directory of the results; made if need be.
        trainer: Makes the trainer from `callbacks=[...]`.
        name: Name of the run.
        group: Sweep that the run belongs to.
        job: What sets it apart in the sweep.
        config: The configuration for `config.yaml`; the task's settings where not given.
        keep: Which pictures are kept; None is `Keep()`.
        batch_size: Pairs edited together.
        console: Where to say what is happening; None says nothing.

    Returns:
        The finished run; its rows say which edits failed.

    Raises:
        MissingWeightsError: The model or the weights of a metric are absent.
        P2PError: A fault that concerns the whole run: found before the model is loaded.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    console = Console(quiet=True) if console is None else console
    config = task.settings if config is None else config
    keep = Keep() if keep is None else keep
    with locked(run_dir):
        console.print("checking the model, the metrics and the data set")
        spec, columns, pairs = _checked(task)
        faults = _faults(task, spec, pairs)
        checksums = {"model": spec.checksum, "pairs": digest([_content(pair) for pair in pairs])}
        run_id = digest({"settings": task.settings, "checksums": checksums})[:12]
        before = read_rows(run_dir)
        claim(run_dir, run_id, before, config)

        subjects = {key: (pair, variant) for pair in pairs for key, variant in _edits(task, pair)}
        there = {key_of(row): row["status"] for row in before}
        pictured = frozenset(pair.id for pair in pairs[: keep.images])
        names = [column.name for column in columns]
        maker = RowMaker(task, spec, run_id, run_dir, pictured, keep.heatmaps)
        writer = RowWriter(run_dir, names)
        new_faults = [key for key in faults if key not in there]
        writer.append([maker.failed(*subjects[key], key[2], faults[key]) for key in new_faults])
        pending = [key for key in subjects if key not in faults and there.get(key) != "ok"]
        if there:
            console.print(f"{len(subjects) - len(pending)} of {len(subjects)} edits are there already")
        if pending:
            _edit(maker, writer, pairs, pending, trainer, batch_size, console)
        rows = compact(run_dir, names, subjects)
        summary = summarise(
            rows,
            name=name,
            variants=task.variants,
            columns=columns,
            settings=task.settings,
            checksums=checksums,
            seed=task.seed,
        )
        write_summary(run_dir, summary)
        return FinishedRun(run_dir, run_id, name, group, job, config, summary, rows)


def _checked(task: Task) -> tuple[ModelSpec, tuple[MetricColumn, ...], list[EditPair]]:
    """Facts, columns and pairs, once all files that the run needs are known to be there."""
    faults: list[P2PError] = []
    spec = _tried(task.checkpoint.spec, faults)
    columns = _tried(lambda: all_columns(task.metrics), faults)
    for metric in task.metrics.values():
        _tried(metric.check, faults)
    pairs = _tried(task.dataset.pairs, faults)
    if spec is not None and pairs is not None and any(pair.has_image for pair in pairs):
        faults += filter(None, [unserved(task.inversion, spec)])
    if spec is None or columns is None or pairs is None or faults:
        raise ErrorList(faults)
    return spec, columns, pairs


def _tried(check: Callable[[], Any], faults: list[P2PError]) -> Any:
    """What a check returns; its faults are added to the list."""
    try:
        return check()
    except ErrorList as error:
        faults += error.errors
    except P2PError as error:
        faults.append(error)
    return None


def _faults(task: Task, spec: ModelSpec, pairs: Sequence[EditPair]) -> dict[Key, str]:
    faults = lint_pairs(
        pairs,
        task.variants,
        task.checkpoint.tokenizer(),
        steps=spec.steps if task.sampler.steps is None else task.sampler.steps,
        self_fraction=spec.self_fraction,
        truncate=task.truncate,
    )
    refuse_if_hopeless(pairs, task.variants, faults)
    return faults


def _content(pair: EditPair) -> dict[str, Any]:
    """What a pair says, without where its files lie."""
    content = asdict(pair)
    content.update(image=pair.image and pair.image.name, mask=pair.mask and pair.mask.name)
    return content


def _edits(task: Task, pair: EditPair) -> list[tuple[Key, Variant]]:
    targets = range(len(pair.target_prompts))
    return [((pair.id, variant.name, index), variant) for variant in task.variants for index in targets]


def _edit(
    maker: RowMaker,
    writer: RowWriter,
    pairs: Sequence[EditPair],
    pending: Sequence[Key],
    trainer: Callable[..., Trainer],
    batch_size: int,
    console: Console,
) -> None:
    """Edits what is pending, batch by batch."""
    samples = {key[0] for key in pending}
    todo = [pair for pair in pairs if pair.id in samples]
    record = maker.heatmaps and not maker.pictured.isdisjoint(samples)
    console.print(f"{len(pending)} edits of {len(todo)} pairs to make; loading model {maker.spec.name}")
    with ProgressDisplay(console, len(todo)) as display:
        module = EditModule(maker.task, pending, record, display.step)
        data = PairDataModule(maker.task.dataset, batch_size, maker.spec.image_size, todo)
        runner = _trainer(trainer, [WriteRows(maker, writer), ShowProgress(display)])
        try:
            runner.test(module, dataloaders=data.test_dataloader(), verbose=False)
        except SystemExit as error:
            if not runner.interrupted:
                raise
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored
            raise KeyboardInterrupt from error


def _trainer(make: Callable[..., Trainer], callbacks: list[Callback]) -> Trainer:
    try:
        trainer = make(callbacks=callbacks)
    except (ValueError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {error}") from error
    if trainer.world_size > 1:
        raise ConfigError(
            f"trainer.devices: a run uses one device, got {trainer.world_size}; split the work with -m"
        )
    return trainer
