"""Every family of checkpoints does the whole work of the command line: a run, one edit, a shared sweep."""

import json

import numpy as np
import pytest
from PIL import Image

from p2p_bench.models import DeepFloydCheckpoint, FluxCheckpoint, SD3Checkpoint, UNetCheckpoint
from tests.app.command import SWEEP, Command, write_pairs
from tests.app.test_run import assert_same_rows, rows_of
from tests.models.small import SMALL, small_checkpoint
from tests.models.small_flux import IMAGE, T5_WIDTH, small_flux
from tests.models.small_if import small_if
from tests.models.small_if_upscaler import small_cascade, small_upscaler
from tests.models.small_sd3 import small_sd3

PAIR = {"id": "swap", "source": "a red circle on grass", "target": "a blue circle on grass"}
TAUS = ("0.2", "0.5", "0.8")
FAMILIES = (*SMALL, "if", "if with stage II", "sd3", "flux")


def checkpoint(family: str) -> UNetCheckpoint | DeepFloydCheckpoint | SD3Checkpoint | FluxCheckpoint:
    others = {"if": small_if, "if with stage II": small_cascade, "sd3": small_sd3, "flux": small_flux}
    return others[family]() if family in others else small_checkpoint(family)


def settings(command: Command, family: str) -> list[str]:
    """A run on a real image, in three steps."""
    # The files of FLUX name no size, and its usual number of columns is large.
    sized = [f"model.size={IMAGE}", f"model.t5_tokens={T5_WIDTH}"] if family == "flux" else []
    if family == "if with stage II":
        sized = [f"model.upscaler={small_upscaler()}", "model.upscaler_steps=4"]
    side = checkpoint(family).spec().image_size
    Image.fromarray((np.indices((*side, 3)).sum(0) * 5).astype(np.uint8)).save(command.folder / "real.png")
    pairs = write_pairs(command.folder / "pairs.jsonl", [{**PAIR, "image": "real.png"}])
    return [
        "model=local", f"model.path={checkpoint(family).path}", "model.dtype=float64",
        "model.record_fraction=0.5", *sized,
        "dataset=jsonl", f"dataset.path={pairs}", "metrics=pixel", "sampler.steps=3", "inversion=direct",
        "trainer.accelerator=cpu", "controller=replace",
    ]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_a_report_and_three_taus_in_one_tree(command: Command, family: str) -> None:
    done = command(*settings(command, family), SWEEP, "run.dir=tree")
    assert done.code == 0, done.err
    rows, summary = rows_of(command.folder / "tree"), command.folder / "tree" / "summary.json"
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len(rows) == len(TAUS)
    assert json.loads(summary.read_text())["schema_version"]
    assert (command.folder / "tree" / "report.html").is_file()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_sweep_equals_solo_runs(command: Command, family: str) -> None:
    bare = [*settings(command, family), "logger=none", "run.images=0", "run.heatmaps=false"]
    swept = command("-m", *bare, f"tau.cross={','.join(TAUS)}", "run.dir=sweep")
    assert swept.code == 0, swept.err
    # Each family is compared at one tau, another than the family before.
    place = FAMILIES.index(family) % len(TAUS)
    alone = command(*bare, f"tau.cross={TAUS[place]}", "run.dir=alone")
    assert alone.code == 0, alone.err
    ours, solo = (rows_of(command.folder / one) for one in (f"sweep/{place}", "alone"))
    assert_same_rows(ours, solo, apart_from=("unet_rows_spent", "inversion_from"))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_edit_of_a_picture(command: Command, family: str) -> None:
    chosen = [
        one for one in settings(command, family) if one.split("=")[0].split(".")[0] in ("model", "sampler")
    ]
    done = command(
        "edit", "--source", PAIR["source"], "--target", PAIR["target"], "--image", "real.png",
        "--out", "edit", *chosen, "trainer.accelerator=cpu", "inversion=direct", "controller=replace",
    )  # fmt: skip
    assert done.code == 0, done.err
    with Image.open(command.folder / "edit" / "target_1.png") as picture:
        assert picture.size == checkpoint(family).spec().image_size
