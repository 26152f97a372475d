"""The specification of the W&B workspace, without a server."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from p2p_bench.bench.loggers import COSTS
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.report import workspace
from p2p_bench.report.workspace import make_workspace
from tests.report.fake_run import METRICS, fake_run
from tests.report.test_folder import change_summary, sweep

# wandb-workspaces 0.4 declares its validators in the older way of pydantic.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")
needs_extra = pytest.mark.skipif(
    find_spec("wandb_workspaces") is None, reason="needs wandb-workspaces, the extra p2p_bench[dashboard]"
)


def metrics_of(node: Any) -> Iterator[str]:
    """Every metric that a panel's specification names."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("xAxis", "yAxis") and isinstance(value, str) and value.startswith("summary:"):
                yield value.removeprefix("summary:")
            elif key == "metrics" and value:
                yield from value
            else:
                yield from metrics_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from metrics_of(value)


@needs_extra
def test_it_has_scatter_curves_categories_gallery_and_costs(tmp_path: Path) -> None:
    made = make_workspace([sweep(tmp_path, pictures=False)], "mine", "me", "trade-off")
    assert (made.entity, made.project, made.name) == ("me", "mine", "trade-off")
    sections = {section.name: section.panels for section in made.sections}
    assert list(sections) == ["Trade-off", "Curves over tau", "By category", "Gallery", "Cost"]
    (scatter,) = sections["Trade-off"]
    assert (scatter.x.name, scatter.y.name) == ("attribute_changed", "psnr_outside")
    assert {panel.x.name for panel in sections["Curves over tau"]} == {"tau_cross"}
    assert len(sections["Curves over tau"]) == len(sections["By category"]) == 6
    assert sections["Gallery"][0].table_name == "edits"
    assert not made.runset_settings.groupby, "one sweep is one group"


@needs_extra
def test_the_specification_names_only_what_the_logger_writes(tmp_path: Path) -> None:
    made = make_workspace([sweep(tmp_path, pictures=False)], "mine", "me", "trade-off")
    specification = json.loads(made._to_model().model_dump_json(by_alias=True))
    categories = ("background", "colour", "refine", "shape")
    by_category = {f"category/{category}/{name}" for category in categories for name in METRICS}
    logged = {*METRICS, *COSTS, *by_category, "tau_cross"}
    named = set(metrics_of(specification))
    assert named <= logged
    assert {"attribute_changed", "psnr_outside", "tau_cross", "category/shape/lpips", "seconds"} <= named
    assert "recon_psnr" not in named, "it has no value"


@needs_extra
def test_several_sweeps_are_groups(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fake_run(tmp_path / name / "0", samples=1, variants={"auto": 0.5}, pictures=False)
    made = make_workspace([tmp_path / "a", tmp_path / "b"], "mine", "me", "x")
    assert [group.name for group in made.runset_settings.groupby] == ["Group"]


@needs_extra
def test_runs_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fake_run(tmp_path / name, samples=1, variants={"auto": 0.5}, pictures=False)
    change_summary(tmp_path / "b", metrics__lpips__version=2)
    with pytest.raises(DataError, match=r"lpips is not the same number .*lpips@2/world"):
        make_workspace([tmp_path], "mine", "me", "x")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; add the extra p2p_bench\[dashboard\]"):
        make_workspace([tmp_path], "mine", "me", "x")
