"""One run of the benchmark: check, edit what is missing, summarise."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning import Trainer
from rich.console import Console

from p2p_bench.bench.directory import write_config
from p2p_bench.bench.finished import FinishedRun
from p2p_bench.bench.launched import Lead
from p2p_bench.bench.makers import differences, maker_of, makers
from p2p_bench.bench.merging import StoredRows, compact
from p2p_bench.bench.notes import warn_of_unknown_words
from p2p_bench.bench.open_run import Facts, OpenRun, all_checksums, joined, opened, read_facts, told
from p2p_bench.bench.references import compact_references
from p2p_bench.bench.shared_pass import ALONE, Execution, edit_pending
from p2p_bench.bench.status import telling
from p2p_bench.bench.stopping import TooManyErrorsError
from p2p_bench.bench.summary import summarise, write_summary
from p2p_bench.bench.task import Keep, Task
from p2p_bench.errors import OtherProcessError, P2PError, ProcessLostError
from p2p_bench.metrics.base import column_weights
from p2p_bench.sampling.sampler import warn_of_steps


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
    execution: Execution = ALONE,
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
        execution: Who does it, and when to give up.

    Returns:
        The finished run; its rows say which edits failed, and `whole.shortfall` whether all are there.

    Raises:
        MissingWeightsError: The model or the weights of a metric are absent.
        P2PError: A fault that concerns the whole run: found before the model is loaded.
        TooManyErrorsError: More edits failed than the limits allow.
        ProcessLostError: A process of several, or the device, is gone.
        OtherProcessError: Something went wrong in another process of the run.
        KeyboardInterrupt: Interrupted. As with these three errors, finished batches are on the disk, and
            there are tables and a summary of them.
    """
    console = Console(quiet=True) if console is None else console
    config = task.settings if config is None else config
    keep = Keep() if keep is None else keep

    console.print("checking the model, the metrics and the data set")
    with _led(execution) as lead:
        facts = read_facts(task)
        warn_of_unknown_words(facts.spec, facts.pairs)
        warn_of_steps(task.sampler, facts.spec)
        with (
            opened(task, facts, run_dir, config, keep, resume=execution.resume) as run,
            telling(run_dir, name, run, facts),
        ):
            if run.there:
                console.print(f"{run.there} of {len(run.subjects)} edits are there already")
            if run.others:
                console.print(
                    f"edits that are there were made with {differences(run.others, maker_of(task))}, which "
                    "the summary says; run.resume=force makes all of them anew",
                    style="yellow",
                )
            try:
                _edit(
                    {0: run}, facts, lead, execution, trainer=trainer, batch_size=batch_size, console=console
                )
            except (KeyboardInterrupt, ProcessLostError, OtherProcessError, TooManyErrorsError):
                with suppress(OSError, P2PError):  # the parts are there, whatever becomes of the tables
                    _conclude(task, facts, run, run_dir, name, config)
                raise
            rows, summary = _conclude(task, facts, run, run_dir, name, config)
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


def _conclude(
    task: Task, facts: Facts, run: OpenRun, run_dir: Path, name: str, config: Mapping[str, Any]
) -> tuple[StoredRows, dict[str, Any]]:
    """Writes the tables and the summary of what is finished; the rows and the summary."""
    rows = compact(run_dir, facts.names, run.subjects)
    references = compact_references(run_dir, facts.names, ((key[0], key[2]) for key in run.subjects))
    summary = summarise(
        rows,
        references,
        name=name,
        variants=task.variants,
        columns=facts.columns,
        weights=column_weights(task.metrics, facts.checksums),
        settings=task.settings,
        checksums=all_checksums(task, facts),
        seed=task.seed,
        objectives=(config.get("run") or {}).get("objectives") or (),
        promised=len(run.subjects),
        pictures=task.editor.facts(task.dataset),
        made_by=makers(run_dir) if run.others else (),
    )
    write_summary(run_dir, summary)
    write_config(run_dir, config)  # whoever removed the directory meanwhile removed what `resume` reads
    return rows, summary


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
    members: Sequence[Member],
    *,
    trainer: Callable[..., Trainer],
    batch_size: int,
    console: Console,
    execution: Execution = ALONE,
) -> None:
    """Edits what several runs lack in one pass over the data, in which their variants share rows.

    Each run's directory then holds the rows that the run itself would have made, so that `run_benchmark`
    finds nothing left to edit. A run that cannot start is left out; its own `run_benchmark` says why.

    Args:
        members: Runs whose tasks agree in all but variants and settings.
        trainer: Makes the trainer from `callbacks=[...]`.
        batch_size: Pairs edited together.
        console: Where to say what is happening.
        execution: Who does it, and when to give up.

    Raises:
        P2PError: A fault that concerns all of them.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    first = members[0].task
    with _led(execution) as lead, ExitStack() as stack:
        facts = read_facts(first)
        runs: dict[int, OpenRun] = {}
        for place, member in enumerate(members):
            # One set of metrics, and whatever else is loaded, serves all.
            task = replace(first, variants=member.task.variants, settings=member.task.settings)
            number, where = len(runs), member.run_dir
            run = opened(
                task, facts, where, member.config, member.keep, number=number, resume=execution.resume
            )
            with suppress(P2PError):
                runs[place] = stack.enter_context(run)
                stack.enter_context(telling(where, where.parent.name, runs[place], facts))
        _edit(runs, facts, lead, execution, trainer=trainer, batch_size=batch_size, console=console)


def help_along(
    members: Sequence[Member], *, trainer: Callable[..., Trainer], batch_size: int, execution: Execution
) -> None:
    """Does this process's share of what the first of several processes runs; see `Launched`.

    Args:
        members: One run, or several whose tasks agree in all but variants and settings.
        trainer: Makes the trainer from `callbacks=[...]`.
        batch_size: Pairs edited together.
        execution: This process among the others, and when to give up.

    Raises:
        P2PError: A fault here, or in the first process.
        KeyboardInterrupt: Interrupted; finished batches are on the disk.
    """
    assert execution.launched is not None, "the first process of several is not alone"
    first = members[0].task
    with execution.launched.helping() as (told, ended):
        facts = read_facts(first)
        runs: list[OpenRun] = []
        for one in told:
            member = members[one["member"]]
            task = replace(first, variants=member.task.variants, settings=member.task.settings)
            runs.append(joined(task, facts, member.run_dir, member.keep, one, number=len(runs)))
        if any(run.pending for run in runs):
            edit_pending(
                runs,
                facts,
                trainer=trainer,
                batch_size=batch_size,
                console=Console(quiet=True),
                execution=execution,
                ended=ended,
            )


def _led(execution: Execution) -> AbstractContextManager[Lead | None]:
    """Leads the other processes, if there are any."""
    return nullcontext() if execution.launched is None else execution.launched.leading()


def _edit(
    runs: Mapping[int, OpenRun], facts: Facts, lead: Lead | None, execution: Execution, **options: Any
) -> None:
    """Edits what the runs lack, with the help of the other processes if there are any.

    Args:
        runs: By their number among the members of a pass.
        facts: What they read.
        lead: The other processes.
        execution: Who does it.
        **options: See `edit_pending`.
    """
    if lead is not None:
        lead.tell([{**told(run), "member": member} for member, run in runs.items()])
    try:
        if any(run.pending for run in runs.values()):
            edit_pending(list(runs.values()), facts, execution=execution, **options)
    except BaseException:
        if lead is not None:
            lead.stop()
            lead.ends()
        raise
    if lead is not None:
        lead.wait()
