"""A run keeps to the pictures it began with: names are not enough, so their bytes are compared."""

from PIL import Image

from tests.app.command import PAIRS, Command
from tests.app.test_run import rows_of


def _pairs(command: Command) -> list[dict[str, object]]:
    for name, colour in (("one", "red"), ("two", "green")):
        Image.new("RGB", (32, 32), colour).save(command.folder / f"{name}.png")
    return [{**PAIRS[0], "id": name, "image": f"{name}.png"} for name in ("one", "two")]


def test_a_replaced_picture_is_not_mixed_in(command: Command) -> None:
    pairs = _pairs(command)
    assert command.bench("run.dir=out", "metrics=pixel", pairs=pairs[:1]).code == 0
    assert rows_of(command.folder / "out")["one", "auto", 0]["source_checksum"]
    Image.new("RGB", (32, 32), "blue").save(command.folder / "one.png")
    refused = command.bench("run.dir=out", "metrics=pixel", pairs=pairs[:1])
    assert refused.code == 2
    assert "'one'" in refused.err
    assert "run.resume=force" in refused.err
    forced = command.bench("run.dir=out", "metrics=pixel", "run.resume=force", pairs=pairs[:1])
    assert forced.code == 0, forced.err
    assert "1 edits of 1 pairs to make" in forced.err


def test_a_picture_that_no_edit_was_made_of_may_be_replaced(command: Command) -> None:
    pairs = _pairs(command)
    (command.folder / "two.png").write_bytes(b"damaged")
    assert command.bench("run.dir=out", "metrics=pixel", pairs=pairs).code == 1
    Image.new("RGB", (32, 32), "blue").save(command.folder / "two.png")
    (command.folder / "one.png").unlink()
    again = command.bench("run.dir=out", "metrics=pixel", pairs=pairs)
    assert again.code == 0, again.err
    assert {row["status"] for row in rows_of(command.folder / "out").values()} == {"ok"}


def test_a_run_is_not_scored_against_another_picture(command: Command) -> None:
    pairs = _pairs(command)
    made = command.bench("run.dir=out", "metrics=pixel", "run.images=null", pairs=pairs)
    assert made.code == 0, made.err
    typed = ("metrics=[pixel,region]", "logger=none", "trainer.accelerator=cpu", "run.dir=scored")
    Image.new("RGB", (32, 32), "blue").save(command.folder / "two.png")
    refused = command("score", str(command.folder / "out"), *typed)
    assert refused.code == 2
    assert "'two'" in refused.err
    Image.new("RGB", (32, 32), "green").save(command.folder / "two.png")
    assert command("score", str(command.folder / "out"), *typed).code == 0


def test_a_replaced_mask_of_the_user_is_not_mixed_in(command: Command) -> None:
    mask = command.folder / "mask.png"
    typed = ("run.dir=out", "controller=local_blend", f"controller.mask={mask}")
    for side, code in (("left", 0), ("right", 2), ("left", 0)):
        picture = Image.new("L", (32, 32))
        picture.paste(255, (0, 0, 16, 32) if side == "left" else (16, 0, 32, 32))
        picture.save(mask)
        outcome = command.bench(*typed, pairs=PAIRS[:1])
        assert outcome.code == code, (side, outcome.err)
    assert {row["mask_from"] for row in rows_of(command.folder / "out").values()} == {"user"}
    assert "have changed since" in command.bench(*typed, "tau.cross=0.8", pairs=PAIRS[2:]).err
