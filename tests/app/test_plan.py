"""`run.plan=true` says what a run costs before it runs, and leaves nothing."""

import re

import pyarrow.parquet as pq
import pytest

from tests.app.command import PAIRS, Command
from tests.app.test_run import assert_same_rows, rows_of
from tests.models.small_if import small_if
from tests.models.small_if_upscaler import small_upscaler
from tests.models.tiny import tiny_checkpoint


def rows_in(text: str) -> list[tuple[int, int]]:
    """Rows spent and alone, of every plan in a text."""
    return [(int(a), int(b)) for a, b in re.findall(r"UNet rows: (\d+) spent, (\d+) if every", text)]


@pytest.mark.parametrize("max_rows", [64, 6])
def test_a_plan_tells_the_rows_that_the_run_takes(command: Command, max_rows: int) -> None:
    settings = ("tau=sweep11", "run.baseline=true", "sampler.steps=5", f"sampler.max_rows={max_rows}")
    plan = command.bench(*settings, "run.plan=true")
    assert plan.code == 0, plan.err
    assert "swap: 'a red circle on grass', source and 12 edits" in plan.out
    assert "step 1: auto 0.4/0.4; auto 0.5/0.4; auto 0.6/0.4; auto 0.7/0.4; and 3 more" in plan.out
    assert "48 edits of 3 pairs; 5 steps" in plan.out
    assert re.search(r"time: about \d+ s of sampling, at \d+ rows a second", plan.out)
    assert {path.name for path in command.folder.iterdir()} == {"pairs.jsonl"}
    assert command.bench(*settings, "run.dir=out", "logger=none", "run.images=0").code == 0
    rows = rows_of(command.folder / "out").values()
    ((spent, alone),) = rows_in(plan.out)
    assert sum(row["unet_rows_spent"] for row in rows) == pytest.approx(spent)
    assert sum(row["unet_rows"] for row in rows) == alone
    assert spent < alone


@pytest.mark.parametrize("max_rows", [64, 4])
def test_descents_to_the_maps_of_the_source_are_planned(command: Command, max_rows: int) -> None:
    settings = (
        "controller=pix2pix_zero", "controller.guidance_amount=0.001", "run.baseline=true",
        "sampler.steps=3", f"sampler.max_rows={max_rows}",
    )  # fmt: skip
    plan = command.bench(*settings, "run.plan=true")
    assert command.bench(*settings, "run.dir=out", "logger=none", "run.images=0").code == 0
    rows = rows_of(command.folder / "out").values()
    ((spent, alone),) = rows_in(plan.out)
    assert sum(row["unet_rows_spent"] for row in rows) == pytest.approx(spent)
    assert sum(row["unet_rows"] for row in rows) == alone
    backward = {(row["controller"], row["unet_rows_backward"]) for row in rows}
    assert backward == {("pix2pix_zero", 6.0), ("none", 0.0)}


def test_an_upscaler_is_planned_with(command: Command) -> None:
    """Its rows are those of the last images: edits that are one row to the end are enlarged once."""
    cascade = (
        f"model.path={small_if().path}",
        f"model.upscaler={small_upscaler()}",
        "model.upscaler_steps=2",
    )
    sweep = (
        "tau.sweep=[{cross: 0.0, self_attn: 0.0}, {cross: 0.0, self_attn: 0.1}, {cross: 1.0, self_attn: 0.5}]"
    )
    settings = (*cascade, "sampler.steps=4", "controller=replace", sweep)
    plan = command.bench(*settings, "run.plan=true", pairs=PAIRS[:1])
    assert plan.code == 0, plan.err
    ((spent, alone),) = rows_in(plan.out)
    assert f"\n{3 * 4} of them are the upscaler's" in plan.out
    assert re.search(r"at \d+ rows a second, [\d.e+]+ of the upscaler, measured", plan.out)
    done = command.bench(*settings, "run.dir=out", "logger=none", "run.images=0", pairs=PAIRS[:1])
    assert done.code == 0, done.err
    rows = rows_of(command.folder / "out").values()
    assert sum(row["unet_rows_spent"] for row in rows) == pytest.approx(spent)
    assert sum(row["unet_rows"] for row in rows) == alone


def test_an_interval_of_guidance_is_planned_and_resumed(command: Command) -> None:
    settings = (
        "tau=sweep11",
        "sampler.steps=5",
        "sampler.guidance_interval=[0.4,1]",
        "logger=none",
        "run.images=0",
    )
    ((spent, alone),) = rows_in(command.bench(*settings, "run.plan=true").out)
    assert command.bench(*settings, "run.dir=whole").code == 0
    rows = rows_of(command.folder / "whole")
    assert sum(row["unet_rows_spent"] for row in rows.values()) == pytest.approx(spent)
    assert {row["unet_rows"] for row in rows.values()} == {2 * (5 + 3)}
    assert alone == 16 * len(rows)
    file = command.folder / "whole" / "results.parquet"
    pq.write_table(pq.read_table(file).slice(0, len(rows) // 2), file)
    assert command.bench(*settings, "run.dir=whole").code == 0
    assert_same_rows(rows_of(command.folder / "whole"), rows, apart_from=("seconds", "unet_rows_spent"))
    other = command.bench("tau=sweep11", "sampler.steps=5", "logger=none", "run.images=0", "run.dir=whole")
    assert other.code == 2
    assert "sampler.guidance_interval" in other.err


def test_a_sweep_is_planned_in_groups(command: Command) -> None:
    sweep = ("-m", "tau.cross=0.0,0.5,1.0", "seed=0,1", "run.plan=true", "sampler.steps=10")
    shared = command.bench(*sweep, "hydra/launcher=shared")
    assert shared.code == 0, shared.err
    assert shared.out.count("3 jobs in one pass") == 2
    assert "tau.cross=0.5, seed=1: auto" in shared.out
    alone = command.bench(*sweep, "hydra/launcher=basic")
    assert len(rows_in(shared.out)) == 2
    assert len(rows_in(alone.out)) == 6
    assert sum(rows for _, rows in rows_in(shared.out)) == sum(rows for _, rows in rows_in(alone.out))
    assert sum(rows for rows, _ in rows_in(shared.out)) < 0.7 * sum(rows for rows, _ in rows_in(alone.out))
    assert {path.name for path in command.folder.iterdir()} == {"pairs.jsonl"}


def test_what_cannot_be_made_is_left_out(command: Command) -> None:
    outcome = command.bench("controller=replace", "run.plan=true")
    assert outcome.code == 0
    assert "2 edits of 2 pairs, 2 cannot be made" in outcome.out
    outcome = command.bench(
        "run.plan=true", pairs=[{"id": "only", "source": "a cat", "target": "a cat " * 30}]
    )
    assert outcome.code == 0
    assert "0 edits of 0 pairs, 1 cannot be made" in outcome.out
    assert "nothing to sample" in outcome.out


def test_without_weights_the_time_is_left_out(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from p2p_bench.errors import MissingWeightsError

    def absent(self: object, *args: object) -> None:
        raise MissingWeightsError("the weights are elsewhere")

    monkeypatch.setattr(type(tiny_checkpoint()), "load", absent)
    outcome = command.bench("run.plan=true", pairs=PAIRS[:1])
    assert outcome.code == 0
    assert rows_in(outcome.out) == [(8, 8)]
    assert "not estimated, since the model could not be loaded (the weights are elsewhere)" in outcome.out


def test_faults_stop_a_plan_too(command: Command) -> None:
    assert command.bench("run.plan=true", "tau.cross=2").code == 2
    assert command.bench("run.plan=maybe").code == 2
    outcome = command("-m", "tau.cross=interval(0,1)", "run.plan=true")
    assert outcome.code == 2
    assert "an interval is for a sweeper that searches" in outcome.err
