"""A component that is not of its group is refused with what it lacks, before anything is computed."""

from typing import Any

import pytest

from p2p_bench.app.kinds import check_kind
from p2p_bench.controllers import NoControl
from p2p_bench.editors import ControlledSampling
from p2p_bench.errors import ConfigError
from p2p_bench.inversion import NoInversion
from p2p_bench.metrics import PixelScores
from tests.app.command import Command


class Bare:
    """Nothing of anything."""


class NoCheck:
    """A metric that forgot its check."""

    columns = ()

    def __call__(self, views: Any) -> list[dict[str, float]]:
        return []


@pytest.mark.parametrize(
    ("component", "group"),
    [
        (NoControl(), "controller"), (NoInversion(), "inversion"), (ControlledSampling(), "editor"),
        (PixelScores(), "metrics"), (Bare(), "logger"),
    ],
)  # fmt: skip
def test_components_pass(component: Any, group: str) -> None:
    check_kind(component, group, group)


@pytest.mark.parametrize(
    ("component", "group", "words"),
    [
        (Bare(), "controller", r"Bare does not derive from p2p_bench\.controllers\.base\.Controller"),
        (Bare(), "inversion", r"does not derive from p2p_bench\.inversion\.base\.Inversion"),
        (Bare(), "editor", r"does not derive from p2p_bench\.editors\.base\.EditorSettings"),
        (NoCheck(), "metrics", "NoCheck is not a metric, which has .* it lacks `check`"),
        (Bare(), "dataset", "it lacks `name`, `pairs`, `load`"),
        (Bare(), "model", "it lacks `spec`, `reader`, `load`"),
    ],
)
def test_others_are_told_what_they_lack(component: Any, group: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"here: .*{words}"):
        check_kind(component, group, "here")


def test_a_run_names_the_metric_that_is_none(command: Command) -> None:
    done = command.bench("+metrics.mine._target_=tests.app.test_kinds.NoCheck", "run.trust=true")
    assert done.code == 2
    assert "metrics.mine: NoCheck is not a metric" in done.err


def test_a_column_that_every_row_has_is_refused(command: Command) -> None:
    done = command.bench("+metrics.mine._target_=tests.app.test_kinds.Seeds", "run.trust=true")
    assert done.code == 2
    assert "metrics.mine: every row has a column 'seed' of its own" in done.err
    assert "metrics.mine: its check failed (FileNotFoundError: weights.pt)" in done.err


def test_a_column_that_dashboards_have_is_refused(command: Command) -> None:
    done = command.bench("+metrics.mine._target_=tests.app.test_kinds.Counts", "run.trust=true")
    assert done.code == 2
    assert "metrics.mine: every row has a column 'count' of its own, or every dashboard" in done.err


class Seeds(NoCheck):
    """A metric that calls its column as the rows call theirs, and does not find its weights."""

    @property
    def columns(self) -> Any:  # type: ignore[override]  # the fault is meant
        from p2p_bench.metrics import MetricColumn

        return (MetricColumn("seed", higher_is_better=True),)

    def check(self) -> None:
        raise FileNotFoundError("weights.pt")


class Counts(Seeds):
    """One that calls its column as W&B's runs call the number of edits, which its mean would replace."""

    @property
    def columns(self) -> Any:
        from p2p_bench.metrics import MetricColumn

        return (MetricColumn("count", higher_is_better=True),)
