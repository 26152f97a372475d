"""A Weights & Biases workspace over logged runs: trade-off, curves, categories, gallery, costs."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2p_bench.errors import ConfigError, DataError
from p2p_bench.report.columns import Column, main_metrics, metric_counts
from p2p_bench.report.entries import joint_columns
from p2p_bench.report.gather import gather
from p2p_bench.report.runs import Run
from p2p_bench.report.tradeoff import choose_axes, level_metrics

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Layout
    from wandb_workspaces.workspaces import Section, Workspace

TABLE = "edits"
"""Key of the table of pictures that `WandbLogger` writes."""

_MAX_BARS = 24


def make_workspace(run_dirs: Iterable[Path | str], project: str, entity: str, name: str) -> "Workspace":
    """The workspace for some runs, not yet saved: nothing is sent.

    Its panels name what `p2p_bench.bench.wandb_logger.WandbLogger` logs: a metric under its plain name,
    `category/<category>/<metric>`, `tau_cross`, costs, and the table `edits`.

    Args:
        run_dirs: Run directories, or directories whose sub-directories are runs; they say which metrics
            and categories there are.
        project: Project the runs were logged to.
        entity: User or team.
        name: Name of the workspace.

    Raises:
        ConfigError: `wandb-workspaces` is not installed.
        DataError: A directory has no run, the runs do not agree what a metric is, or none has a value.
    """
    if find_spec("wandb_workspaces") is None:
        raise ConfigError("the package wandb-workspaces is not installed; add the extra p2p_bench[dashboard]")
    from wandb_workspaces import workspaces  # imported late: an extra

    runs = gather(run_dirs).runs
    columns, notes = joint_columns(runs)
    if notes:
        raise DataError(f"one panel cannot show several numbers of one name: {'; '.join(notes)}")
    counts: Counter[str] = Counter()
    for run in runs:
        counts.update(metric_counts(run.summary))
    metrics = [column for column in columns if counts[column.name]]
    if not metrics:
        raise DataError("no metric of these runs has a value, so there is nothing to show")
    categories = sorted({row["category"] for run in runs for row in run.rows if row["category"]})
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=_sections(metrics, counts, level_metrics(run.summary for run in runs), categories),
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Metric("Group")] if _several_groups(runs) else []
        ),
    )


def _several_groups(runs: Sequence[Run]) -> bool:
    """Whether the runs come from several sweeps, which then are groups of the workspace."""
    return len({run.path.resolve().parent for run in runs}) > 1


def _sections(
    metrics: Sequence[Column], counts: Counter[str], level: Collection[str], categories: Sequence[str]
) -> "list[Section]":
    from wandb_workspaces.reports import v2
    from wandb_workspaces.workspaces import Section

    by_name = {column.name: column for column in metrics}
    main = [by_name[name] for name in main_metrics(by_name)]
    axes = choose_axes(metrics, counts, level)
    assert axes is not None, "some metric has a value"
    wide = v2.Layout(w=24, h=12)
    sections = [
        Section(
            name="Trade-off",
            is_open=True,
            panels=[
                v2.ScatterPlot(
                    title=f"{by_name[axes.x].short} against {by_name[axes.y].short}",
                    x=v2.SummaryMetric(axes.x),
                    y=v2.SummaryMetric(axes.y),
                    layout=wide,
                )
            ],
        ),
        Section(
            name="Curves over tau",
            is_open=True,
            panels=[
                v2.ScatterPlot(
                    title=_title(column),
                    x=v2.SummaryMetric("tau_cross"),
                    y=v2.SummaryMetric(column.name),
                    running_ymean=True,
                    layout=place,
                )
                for column, place in zip(main, _places(len(main)), strict=True)
            ],
        ),
    ]
    if categories:
        bars = _category_bars(main, categories[:_MAX_BARS])
        sections.append(Section(name="By category", is_open=True, panels=bars))
    costs = ("seconds", "unet_rows", "unet_rows_spent")
    return [
        *sections,
        Section(
            name="Gallery",
            is_open=True,
            panels=[v2.WeavePanelSummaryTable(table_name=TABLE, layout=v2.Layout(w=24, h=16))],
        ),
        Section(
            name="Cost",
            is_open=False,
            panels=[
                v2.BarPlot(title=cost.replace("_", " "), metrics=[cost], layout=place)
                for cost, place in zip(costs, _places(len(costs)), strict=True)
            ],
        ),
    ]


def _category_bars(columns: Sequence[Column], categories: Sequence[str]) -> list[Any]:
    """A panel a metric, a bar a category."""
    from wandb_workspaces.reports import v2

    return [
        v2.BarPlot(
            title=_title(column),
            metrics=[f"category/{category}/{column.name}" for category in categories],
            layout=place,
        )
        for column, place in zip(columns, _places(len(columns)), strict=True)
    ]


def _title(column: Column) -> str:
    return f"{column.title} {column.arrow}".rstrip()


def _places(number: int) -> "list[Layout]":
    """Three panels side by side, on a grid 24 wide."""
    from wandb_workspaces.reports.v2 import Layout

    return [Layout(x=8 * (i % 3), y=8 * (i // 3), w=8, h=8) for i in range(number)]
