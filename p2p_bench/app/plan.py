"""`run.plan=true`: shows what a run or a sweep would compute, and leaves nothing on the disk."""

from collections.abc import Sequence
from dataclasses import replace

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from p2p_bench.app.build import build, chosen_options, without_hydra
from p2p_bench.app.compose import compose, one_job_each, searches, swept_keys
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.sweep import group_key
from p2p_bench.bench.open_run import read_facts
from p2p_bench.bench.plan import Plan, plan_run, rows_per_second, upscaler_rows_per_second
from p2p_bench.bench.task import Task
from p2p_bench.errors import ConfigError, P2PError

_LAUNCHER = "hydra/launcher"


def show_plans(overrides: Sequence[str], multirun: bool) -> int:
    """Prints the plan of every group of jobs that share their work.

    Args:
        overrides: As returned by `checked_overrides`, with the sweeper's own.
        multirun: Whether they describe a sweep.

    Returns:
        The exit code.

    Raises:
        P2PError: What would stop the run stops the plan.
    """
    jobs = _jobs(overrides) if multirun else [list(overrides)]
    groups: dict[str, list[tuple[str, DictConfig]]] = {}
    swept = swept_keys(overrides)
    for number, job in enumerate(jobs):
        config = compose(job, keep_hydra=True)
        name = ", ".join(text for text in job if text.split("=", 1)[0] in swept)
        shared = chosen_options(config.hydra).get(_LAUNCHER, "").startswith("shared")
        groups.setdefault(group_key(config) if shared else str(number), []).append((name, config))
    for members in groups.values():
        _show(members)
    return 0


def _jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every job of a sweep."""
    if searches(compose(one_job_each(overrides)[0], keep_hydra=True).hydra):
        raise ConfigError("run.plan: the jobs of a search are not known before it runs")
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(overrides)), None)
    return jobs


def _show(members: Sequence[tuple[str, DictConfig]]) -> None:
    task = _joined(members)
    status, result = status_console(), result_console()
    status.print("planning")
    plan = plan_run(task, read_facts(task))
    if len(members) > 1:
        result.print(f"{len(members)} jobs in one pass", markup=False)
    if plan.example is not None:
        result.print(plan.example, markup=False)
    apart = f", {plan.left_out} cannot be made" if plan.left_out else ""
    result.print(f"{plan.edits} edits of {plan.pairs} pairs{apart}; {plan.steps} steps", markup=False)
    result.print(
        f"UNet rows: {plan.rows} spent, {plan.alone} if every edit ran alone: {plan.saving:.0%} saved",
        markup=False,
    )
    if plan.upscaler_rows:
        result.print(f"{plan.upscaler_rows} of them are the upscaler's, which are larger", markup=False)
    if plan.inverted:
        result.print(f"besides: {plan.inverted} inversions, as far as the cache lacks them", markup=False)
    result.print(_time(task, members[0][1], plan), markup=False)


def _joined(members: Sequence[tuple[str, DictConfig]]) -> Task:
    """The task of several jobs that share their work: that of the first, with the variants of all."""
    tasks = [build(without_hydra(config), chosen_options(config.hydra)).task for _, config in members]
    if len(tasks) == 1:
        return tasks[0]
    variants = tuple(
        replace(variant, name=f"{name}: {variant.name}")
        for (name, _), task in zip(members, tasks, strict=True)
        for variant in task.variants
    )
    return replace(tasks[0], variants=variants)


def _time(task: Task, config: DictConfig, plan: Plan) -> str:
    """The time that sampling would take, or why it is not known."""
    if not plan.rows:
        return "time: nothing to sample"
    try:
        model = task.checkpoint.load(_device(config))
    except P2PError as error:
        return f"time: not estimated, since the model could not be loaded ({error})"
    at_once = max(plan.widest, min(task.sampler.rows, plan.widest * config.run.batch_size))
    rate = rows_per_second(model, at_once)
    seconds, besides = (plan.rows - plan.upscaler_rows) / rate, ""
    if model.upscaler is not None:
        of_upscaler = upscaler_rows_per_second(model, model.upscaler)
        seconds += plan.upscaler_rows / of_upscaler
        besides = f", {of_upscaler:.2g} of the upscaler"
    return (
        f"time: about {_duration(seconds)} of sampling, at {rate:.0f} rows a second{besides}, measured here "
        f"with {at_once} rows at once; loading, inversions, decoding and metrics come on top"
    )


def _device(config: DictConfig) -> str:
    """The device that the trainer would take."""
    from p2p_bench.models.device import device_of

    return device_of(str(config.trainer.get("accelerator", "auto")))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
