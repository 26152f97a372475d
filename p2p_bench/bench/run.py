"""One run of the benchmark: check, edit what is missing, summarise."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning import Trainer
from rich.console import Console

from p2p_bench.bench.directory import write_config
from p2p_bench.bench.finished import FinishedRun
from p2p_bench.bench.notes import warn_of_unknown_words
from p2p_bench.bench.open_run import OpenRun, opened, read_facts
from p2p_bench.bench.references import compact_references
from p2p_bench.bench.rows import compact
from p2p_bench.bench.shared_pass import edit_pending
from p2p_bench.bench.summary import summarise, write_summary
from p2p_bench.bench.task import Keep, Task
from p2p_bench.errors import P2PError


def run_benchmark(
    task: Task,
    run_dir: Path,
    *,
    trainer: Callable[..., Trainer],
    name: str = "run",
    group: str = "",
    job: str = "",
    config: Mapping[str, Any] | None = None,
    choices: Mapping[str, str] | None = None,
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
        choices: Chosen option per group, for loggers.
        keep: Which pictures are kept; None is `Keep()`.
        batch_size: Pairs edited together.
        console: Where to say what is happening; None says nothing.

    Returns:
        The finished run; its rows say which edits failed, and `whole.shortfall` whether all are there.

    Raises:
        MissingWeightsError: The model or the weights of a metric are absent.
        P2PError: A fault that concerns the whole run: found before the model is loaded.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    console = Console(quiet=True) if console is None else console
    config = task.settings if config is None else config
    keep = Keep() if keep is None else keep
    console.print("checking the model, the metrics and the data set")
    facts = read_facts(task)
    warn_of_unknown_words(facts.spec, facts.pairs)
    with opened(task, facts, run_dir, config, keep) as run:
        if run.there:
            console.print(f"{run.there} of {len(run.subjects)} edits are there already")
        if run.pending:
            edit_pending([run], facts, trainer=trainer, batch_size=batch_size, console=console)
        rows = compact(run_dir, facts.names, run.subjects)
        references = compact_references(run_dir, facts.names, ((key[0], key[2]) for key in run.subjects))
        summary = summarise(
            rows,
            references,
            name=name,
            variants=task.variants,
            columns=facts.columns,
            settings=task.settings,
            checksums=facts.checksums,
            seed=task.seed,
            objectives=(config.get("run") or {}).get("objectives") or (),
            promised=len(run.subjects),
            pictures=task.editor.facts(task.dataset),
        )
        write_summary(run_dir, summary)
        write_config(run_dir, config)  # whoever removed the directory meanwhile removed what `resume` reads
        return FinishedRun(
            run_dir,
            run.maker.run_id,
            name,
            group,
            job,
            config,
            summary,
            rows,
            choices=choices or {},
            variant_settings={variant.name: variant.settings for variant in task.variants},
            promised=tuple(run.subjects),
        )


@dataclass(frozen=True)
class Member:
    """One of several runs that share a pass over the data.

    Attributes:
        task: What is measured.
        run_dir: Directory of its results.
        config: The configuration for its `config.yaml`.
        keep: Which pictures are kept.
    """

    task: Task
    run_dir: Path
    config: Mapping[str, Any]
    keep: Keep


def prefill(
    members: Sequence[Member], *, trainer: Callable[..., Trainer], batch_size: int, console: Console
) -> None:
    """Edits what several runs lack in one pass over the data, in which their variants share rows.

    Each run's directory then holds the rows that the run itself would have made, so that `run_benchmark`
    finds nothing left to edit. A run that cannot start is left out; its own `run_benchmark` says why.

    Args:
        members: Runs whose tasks agree in all but variants and settings.
        trainer: Makes the trainer from `callbacks=[...]`.
        batch_size: Pairs edited together.
        console: Where to say what is happening.

    Raises:
        P2PError: A fault that concerns all of them.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    first = members[0].task
    facts = read_facts(first)
    with ExitStack() as stack:
        runs: list[OpenRun] = []
        for member in members:
            # One set of metrics, and whatever else is loaded, serves all.
            task = replace(first, variants=member.task.variants, settings=member.task.settings)
            run = opened(task, facts, member.run_dir, member.config, member.keep, number=len(runs))
            with suppress(P2PError):
                runs.append(stack.enter_context(run))
        if any(run.pending for run in runs):
            edit_pending(runs, facts, trainer=trainer, batch_size=batch_size, console=console)
