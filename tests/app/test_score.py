"""`p2p-bench score FOLDER`: images made elsewhere; nothing is generated."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import p2p_bench.editors.controlled as controlled
from p2p_bench.app.compose import group_options
from tests.app.command import Command, Outcome
from tests.data.fake.pie_bench import make as make_pie

SIDE = 48
QUIET = ("logger=csv", "trainer.accelerator=cpu", "run.dir=scored")


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No diffusion model may be made ready."""
    monkeypatch.setattr(controlled.ControlledSampling, "ready", None)


def picture(path: Path, seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """A picture of noise, written where its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def dataset(folder: Path, number: int = 3, targets: int = 1) -> list[str]:
    """A data set of noise, as overrides."""
    lines = []
    for place in range(number):
        picture(folder / "set" / "images" / f"{place}.png", place)
        prompts = [f"a blue cat {target}" for target in range(targets)]
        lines.append(
            {
                "id": f"s{place}",
                "source": "a red cat",
                "target_prompts": prompts,
                "image": f"images/{place}.png",
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "set" / "pairs.jsonl").write_text(text, encoding="utf-8")
    return ["dataset=jsonl", f"dataset.path={folder / 'set' / 'pairs.jsonl'}"]


def rows_of(folder: Path) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    table = pq.read_table(folder / "results.parquet").to_pylist()
    return {(row["sample_id"], row["variant"], row["target_index"]): row for row in table}


def summary_of(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def scored(command: Command, *typed: str, metrics: str = "metrics=pixel") -> Outcome:
    return command("score", *typed, metrics, *QUIET)


def test_a_folder_of_images_is_scored_like_a_run(command: Command) -> None:
    sources = dataset(command.folder)
    made = [picture(command.folder / "tool" / f"s{place}.png", 10 + place) for place in range(3)]
    done = scored(command, "tool", *sources)
    assert done.code == 0, done.err
    rows = rows_of(command.folder / "scored")
    assert set(rows) == {(f"s{place}", "tool", 0) for place in range(3)}
    for place, row in enumerate(rows.values()):
        source = np.asarray(Image.open(command.folder / "set" / "images" / f"{place}.png"))
        error = np.square((source.astype(float) - made[place]) / 255).mean()
        assert row["mse"] == pytest.approx(error, rel=1e-5)
        assert (row["status"], row["model"], row["controller"]) == ("ok", "given", "given")
        # What nobody can know stays empty.
        assert row["steps"] is None
        unknown = ("guidance", "unet_rows", "unet_rows_spent", "recon_psnr", "seconds", "peak_memory_mb")
        assert all(np.isnan(row[name]) for name in unknown)
        assert row["inversion"] == row["inversion_from"] == ""
    summary = summary_of(command.folder / "scored")
    assert summary["variants"]["tool"]["metrics"]["mse"]["count"] == 3
    assert summary["variants"]["tool"]["unet_rows"] is summary["variants"]["tool"]["seconds"] is None
    assert summary["pictures"]["formats"] == {"PNG": 3}
    assert "1/510" in summary["pictures"]["note"]
    assert summary["references"]["no_edit"]["metrics"]["psnr"]["mean"] == 100
    assert (command.folder / "scored" / "report.html").is_file()
    table = (command.folder / "scored" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert table[1].startswith("tool,given,,,3,0,,,,"), "no cost is known"
    # Nothing was reconstructed, and scoring these pictures once more reconstructs nothing either.
    again = command("score", "scored", "metrics=pixel", *QUIET[:-1], "run.dir=again")
    assert again.code == 0, again.err
    for key, row in rows_of(command.folder / "again").items():
        assert row["mse"] == rows[key]["mse"]
        assert np.isnan(row["recon_psnr"])


def test_what_is_missing_is_listed_and_the_rest_is_scored(command: Command) -> None:
    sources = dataset(command.folder, number=6)
    folder = command.folder / "tool"
    picture(folder / "s0.png", 1)
    picture(folder / "s1.png", 2, (SIDE, 2 * SIDE))
    picture(folder / "s2.png", 3)
    picture(folder / "s2.webp", 3)
    (folder / "s3.png").write_bytes(b"no picture")
    picture(folder / "s5.png", 4)
    picture(folder / "other.png", 5)
    done = scored(command, "tool", *sources)
    assert done.code == 1, done.err
    rows = {key[0]: row for key, row in rows_of(command.folder / "scored").items()}
    assert {key: row["status"] for key, row in rows.items()} == {
        "s0": "ok", "s1": "error", "s2": "error", "s3": "error", "s4": "error", "s5": "ok",
    }  # fmt: skip
    assert "96 x 48 pixels, expected 48 x 48" in rows["s1"]["error"]
    assert "2 pictures of it, s2.png, s2.webp" in rows["s2"]["error"]
    assert "not an image" in rows["s3"]["error"]
    assert "no picture s4 (.png, .jpg, .jpeg or .webp)" in rows["s4"]["error"]
    summary = summary_of(command.folder / "scored")
    assert summary["variants"]["tool"]["count"] == 2
    assert summary["variants"]["tool"]["failed"] == 4
    assert summary["pictures"]["unused"] == 3
    told = "2 of 6 edits have no picture, and 3 pictures are no edit's, such as 's2.webp'"
    assert told in done.err + done.out
    assert "1 of another size are errors, unless" in done.err
    # Nothing is resized unless that is asked for.
    shutil.rmtree(command.folder / "scored")
    again = scored(command, "tool", *sources, "score.fit=resize")
    rows = {key[0]: row for key, row in rows_of(command.folder / "scored").items()}
    assert rows["s1"]["status"] == "ok", again.err
    assert "1 of another size are brought to that" in again.err


def test_places_count_from_0(command: Command) -> None:
    # a tool that counts from 1: every edit but the first has the picture of the one before it
    sources = dataset(command.folder)
    for place in range(3):
        picture(command.folder / "tool" / f"{place + 1}.png", place)
    done = scored(command, "tool", *sources, "score.pattern={index}")
    assert done.code == 1
    said = done.err + done.out
    assert "1 of 3 edits have no picture, and 1 pictures are no edit's, such as '3.png'" in said
    (row,) = [row for row in rows_of(command.folder / "scored").values() if row["status"] == "error"]
    assert "{index} of score.pattern count from 0" in row["error"]


def test_without_a_source_image_there_is_what_prompts_alone_give(command: Command) -> None:
    sources = dataset(command.folder, number=2)
    lines = (command.folder / "set" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    without = {key: value for key, value in json.loads(lines[1]).items() if key != "image"}
    (command.folder / "set" / "pairs.jsonl").write_text(f"{lines[0]}\n{json.dumps(without)}\n")
    for place in range(2):
        picture(command.folder / "tool" / f"s{place}.png", 5)
    done = scored(command, "tool", *sources, "run.images=2", metrics="metrics=default")
    assert done.code == 0, done.err
    rows = rows_of(command.folder / "scored")
    with_source, bare = (rows[f"s{place}", "tool", 0] for place in range(2))
    assert with_source["status"] == bare["status"] == "ok"
    for name in ("clip_source", "clip_target"):
        assert bare[name] == pytest.approx(with_source[name], abs=1e-3)
    reasons = json.loads(bare["missing"])
    for name in ("mse", "psnr", "ssim", "lpips", "clip_direction"):
        assert np.isfinite(with_source[name])
        assert np.isnan(bare[name])
        assert reasons[name] == "there is no source image"
    assert (bare["image_source"], bare["image_difference"]) == ("", "")
    assert (command.folder / "scored" / bare["image_target"]).is_file()
    summary = summary_of(command.folder / "scored")
    assert summary["variants"]["tool"]["metrics"]["psnr"]["count"] == 1
    assert summary["variants"]["tool"]["missing"]["psnr"] == {"there is no source image": 1}
    assert summary["references"]["no_edit"]["count"] == 1


def test_metrics_that_all_need_a_source_image_are_refused_without_any(command: Command) -> None:
    line = {"id": "s0", "source": "a red cat", "target": "a blue cat"}
    (command.folder / "pairs.jsonl").write_text(json.dumps(line))
    picture(command.folder / "tool" / "s0.png", 5)
    typed = ("dataset=jsonl", f"dataset.path={command.folder / 'pairs.jsonl'}")
    refused = scored(command, "tool", *typed)
    assert refused.code == 2
    assert "all of these compare with the source image" in refused.err
    assert scored(command, "tool", *typed, metrics="metrics=default").code == 0


def test_a_source_of_another_size_is_an_error_too(command: Command) -> None:
    sources = dataset(command.folder, number=2)
    for place in range(2):
        picture(command.folder / "tool" / f"s{place}.png", place, (64, 64))
    done = scored(command, "tool", *sources)
    assert done.code == 1
    assert "48 x 48 pixels, the model works at 64 x 64" in done.err
    shutil.rmtree(command.folder / "scored")
    assert scored(command, "tool", *sources, "dataset.fit=resize").code == 0


@pytest.mark.parametrize(
    ("files", "pattern", "told"),
    [
        ((), "{id}", "holds no pictures"),
        (
            ("x.png", "y.png"),
            "{id}",
            "expected names such as 's0', 's1', 's2', found such as 'x.png', 'y.png'",
        ),
        (("x.png",), "{id}.jpg", "none of its 1 pictures fits score.pattern='{id}.jpg'"),
        (("tool.png",), "{variant}/{index}.png", "none of its 1 pictures fits"),
        (("s0.png",), "{idd}", "Did you mean 'id'"),
    ],
)
def test_a_folder_without_any_picture_of_a_pair_is_refused(
    command: Command, files: tuple[str, ...], pattern: str, told: str
) -> None:
    sources = dataset(command.folder)
    (command.folder / "tool").mkdir()
    for name in files:
        picture(command.folder / "tool" / name, 0)
    done = scored(command, "tool", *sources, f"score.pattern={pattern}")
    assert done.code == 2
    assert told in done.err
    assert not command.ran


def test_variants_and_targets_have_their_pictures(command: Command) -> None:
    sources = dataset(command.folder, number=2, targets=2)
    for variant in ("b tool", "a"):
        for place in range(2):
            for target in range(2):
                picture(command.folder / "out" / variant / f"{place:03d}_{target}.jpg", 4 * place + target)
    pattern = "score.pattern={variant}/{index:03d}_{target}.jpg"
    told = scored(command, "out", *sources, "score.pattern={variant}/{index:03d}_0.jpg")
    assert told.code == 2
    assert "has 2 target prompts; expected {target}" in told.err
    done = scored(command, "out", *sources, pattern)
    assert done.code == 0, done.err
    rows = rows_of(command.folder / "scored")
    assert len(rows) == 8
    assert {key[1] for key in rows} == {"a", "b tool"}
    assert {row["notes"] for row in rows.values()} == {
        "the picture is a JPEG file, which does not keep every pixel"
    }
    pictures = summary_of(command.folder / "scored")["pictures"]
    assert (pictures["lossy"], pictures["edits"], pictures["found"]) == (8, 8, 8)
    assert "8 of 8 are compressed with losses" in pictures["note"]


def test_variants_without_a_picture_of_an_edit_are_told(command: Command) -> None:
    sources = dataset(command.folder, number=2)
    for place in range(2):
        picture(command.folder / "out" / "good" / f"s{place}.png", place)
        picture(command.folder / "out" / "counted" / f"{place}.png", place)
        picture(command.folder / "far" / f"s{place}.png", place)
        for ending in ("png", "jpg"):
            picture(command.folder / "out" / "twice" / f"s{place}.{ending}", place)
    (command.folder / "out" / "linked").symlink_to(command.folder / "far")
    (command.folder / "out" / "config.yaml").write_text("of: another tool")
    done = scored(command, "out", *sources, "score.pattern={variant}/{id}", "run.images=0")
    assert done.code == 1, done.err
    rows = rows_of(command.folder / "scored")
    assert {(key[1], row["status"]) for key, row in rows.items()} == {("good", "ok"), ("twice", "error")}
    said = done.err + done.out
    assert "'counted' is left out: none of its 2 pictures is an edit's" in said
    assert "links to folders are not entered: 'linked'" in said
    (command.folder / "out" / "good").rename(command.folder / "out" / "${seed}")
    refused = scored(command, "out", *sources, "score.pattern={variant}/{id}")
    assert refused.code == 2
    assert "would be read as a reference to a setting; rename the folder" in refused.err
    (command.folder / "out" / "${seed}").rename(command.folder / "out" / "\udcff")
    refused = scored(command, "out", *sources, "score.pattern={variant}/{id}")
    assert refused.code == 2
    assert "the name is no text" in refused.err


def test_pictures_that_two_edits_would_share_are_no_ones(command: Command) -> None:
    sources = dataset(command.folder, number=2)
    text = (command.folder / "set" / "pairs.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    lines.append({**lines[1], "id": "s2"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (command.folder / "set" / "pairs.jsonl").write_text(text, encoding="utf-8")
    for place in range(2):
        picture(command.folder / "out" / f"{place}.png", place)
    done = scored(command, "out", *sources, "score.pattern={name}.png")
    assert done.code == 1
    rows = {key[0]: row for key, row in rows_of(command.folder / "scored").items()}
    assert [row["status"] for row in rows.values()] == ["ok", "error", "error"]
    assert "would be that of 2 edits" in rows["s1"]["error"]


def test_the_published_layout_of_four_pictures(command: Command) -> None:
    pie = make_pie(command.folder / "pie")
    for image in sorted((pie / "annotation_images").rglob("*.jpg")):
        source = np.asarray(Image.open(image).convert("RGB"))
        edited, again = np.roll(source, 9, axis=0), np.roll(source, 2, axis=0)
        strip = np.concatenate([np.full_like(source, 255), source, again, edited], axis=1)
        file = command.folder / "output" / "mine" / image.relative_to(pie)
        file.parent.mkdir(parents=True)
        Image.fromarray(strip).save(file)
    typed = ("output", "dataset=pie_bench", f"dataset.path={pie}", "score.pattern={variant}/{path}.jpg")
    hint = scored(command, *typed)
    assert hint.code == 1
    assert "then set score.panels=4" in hint.err
    shutil.rmtree(command.folder / "scored")
    metrics = "metrics=[pie_parity,pixel]"
    without = ("~metrics.pie_structure", "~metrics.pie_lpips", "~metrics.pie_clip")
    done = scored(command, *typed, "score.panels=4", "score.reconstruction=3", *without, metrics=metrics)
    assert done.code == 0, done.err
    rows = rows_of(command.folder / "scored")
    assert {key[1] for key in rows} == {"mine"}
    row = rows["000000000000", "mine", 0]
    file = command.folder / "output" / "mine" / "annotation_images" / "0_random_140" / "000000000000.jpg"
    strip = np.asarray(Image.open(file)).astype(float) / 255
    source = np.asarray(
        Image.open(pie / "annotation_images" / "0_random_140" / "000000000000.jpg").convert("RGB")
    )
    kept = np.ones((512, 512, 1))
    kept[:, :256] = 0
    kept[[0, -1]] = kept[:, [0, -1]] = 0
    # It has been through one JPEG already, and goes through no second one.
    error = np.square((source / 255 - strip[:, 1536:]) * kept).mean()
    assert row["pie_mse"] == pytest.approx(error, rel=1e-5)
    again = np.square(source / 255 - strip[:, 1024:1536]).mean()
    assert row["recon_psnr"] == pytest.approx(-10 * np.log10(again), rel=1e-5)
    # Nor do the pictures that were kept of it, although they are PNG by now.
    done = command("score", "scored", "metrics=[pie_parity,pixel]", *without, *QUIET[:-1], "run.dir=again")
    assert done.code == 0, done.err
    once_more = rows_of(command.folder / "again")["000000000000", "mine", 0]
    for name in ("pie_mse", "pie_ssim", "mse", "recon_psnr"):
        assert once_more[name] == pytest.approx(row[name], rel=1e-5), name
    assert summary_of(command.folder / "again")["pictures"]["lossy"] == 3


def test_a_killed_scoring_goes_on_and_other_pictures_are_not_mixed_in(command: Command) -> None:
    sources = dataset(command.folder)
    for place in range(3):
        picture(command.folder / "tool" / f"s{place}.png", 10 + place)
    assert scored(command, "tool", *sources, "run.batch_size=1").code == 0
    whole = rows_of(command.folder / "scored")
    sorted((command.folder / "scored" / "rows").glob("part-*.parquet"))[-1].unlink()
    (command.folder / "scored" / "results.parquet").unlink()
    resumed = command("resume", "scored")
    assert resumed.code == 0, resumed.err
    found = rows_of(command.folder / "scored")
    assert {key: row["mse"] for key, row in found.items()} == {key: row["mse"] for key, row in whole.items()}
    picture(command.folder / "tool" / "s1.png", 99)
    changed = command("resume", "scored")
    assert changed.code == 2
    assert "the pictures that are scored have changed since" in changed.err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("sampler.steps=3", "score makes no edits"),
        ("controller=refine", "score makes no edits"),
        ("run.plan=true", "score makes no edits"),
        ("run.repair=mask", "score makes no edits"),
        ("+run.truncate=true", "score makes no edits"),
        ("score.patern=x", "Did you mean 'pattern'"),
        ("score.panel=2", "score.panel=2: there are score.panels=1"),
    ],
)
def test_settings_without_a_meaning_are_refused(command: Command, typed: str, told: str) -> None:
    sources = dataset(command.folder, number=1)
    picture(command.folder / "tool" / "s0.png", 0)
    done = scored(command, "tool", *sources, typed)
    assert done.code == 2
    assert told in done.err


def test_no_model_stands_where_images_are_given(command: Command) -> None:
    done = command("run", "model=given", "model.size=[64,64]", "dataset.limit=1", "run.dir=out")
    assert done.code == 2
    assert "images that were made elsewhere are scored, with p2p-bench score" in done.err
    assert "given" in group_options("model")
