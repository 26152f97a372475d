"""`p2p-bench check` says what a run could not do, before it is begun."""

import json

from PIL import Image

from tests.app.command import PAIRS, Command, tiny_overrides, write_pairs
from tests.data.fake.pie_bench import make as make_pie


def check(command: Command, *typed: str, pairs=PAIRS):
    path = write_pairs(command.folder / "pairs.jsonl", pairs)
    return command("check", *typed, *tiny_overrides(path))


UNTOLD = "takes the source's attention to its words"


def test_an_edit_by_words_that_the_source_is_not_told_is_refused_beforehand(command: Command) -> None:
    """Not as rows of errors of a run."""
    asked = (
        "dataset=world_real", "dataset.limit=1", "controller=refine", "inversion=ddim",
        "inversion.replayed_with=empty", "logger=none",
    )  # fmt: skip
    checked = command("check", *asked)
    assert checked.code == 2
    assert UNTOLD in checked.out + checked.err
    planned = command(*asked, "run.plan=true")
    assert "0 edits of 0 pairs, 1 cannot be made" in planned.out
    run = command(*asked, "run.dir=out")
    assert run.code == 2
    assert UNTOLD in run.err
    kept = command("check", *asked, "controller=masactrl")
    assert kept.code == 0, kept.err


def test_good_pairs(command: Command) -> None:
    done = check(command, "controller=refine")
    assert done.code == 0, done.err
    assert "3 pairs, 4 of 4 edits can be made on model local; 0 warnings" in done.out
    assert not command.ran


def test_faults_and_slips_as_text_and_as_json(command: Command) -> None:
    pairs = [
        *PAIRS,
        {"id": "uneven", "source": "a red circle", "target": "a small red circle on grass"},
        {**PAIRS[2], "id": "again"},
        {"id": "same", "source": "a cat", "target": "a cat"},
    ]
    done = check(command, "controller=replace", pairs=pairs)
    assert done.code == 2
    assert "error pair 'uneven', target 1:" in done.out
    assert "the same prompts and image as pair 'own/ü'" in done.out
    assert "pair 'same': a target prompt equals the source prompt" in done.out
    found = json.loads(check(command, "--json", "controller=replace", pairs=pairs).out)
    assert {"uneven", "add"} <= {one["pair"] for one in found["errors"]}
    assert (found["pairs"], found["edits"], found["decoded"]) == (6, 7, False)


def test_the_projects_own_pairs_have_no_slips(command: Command) -> None:
    done = command("check", "dataset=world_demo")
    assert done.code == 0, done.err
    assert "48 of 48 edits can be made on model world; 0 warnings" in done.out


def test_pictures_are_read_where_that_is_asked_for(command: Command) -> None:
    Image.effect_noise((64, 64), 50).save(command.folder / "broken.png")
    whole = (command.folder / "broken.png").read_bytes()
    (command.folder / "broken.png").write_bytes(whole[:-500])  # its header is sound
    pairs = [PAIRS[0], {**PAIRS[2], "image": "broken.png"}]
    assert check(command, "inversion=ddim", "controller=refine", pairs=pairs).code == 0
    for typed in ("--decode", "check.decode=true"):
        done = check(command, typed, "inversion=ddim", "controller=refine", pairs=pairs)
        assert done.code == 2
        assert "broken.png" in done.out
    (command.folder / "broken.png").write_bytes(b"no picture")
    done = check(command, "inversion=ddim", "controller=refine", pairs=pairs)
    assert done.code == 2
    assert "broken.png" in done.out


def test_a_page_shows_findings_and_prompts_side_by_side(command: Command) -> None:
    pairs = [
        *PAIRS,
        {"id": "<b>uneven</b>", "source": "a red circle", "target": "a small red circle on grass"},
        {"id": "same", "source": "a cat", "target": "a cat"},
    ]
    done = check(command, "--page", "page.html", "controller=replace", pairs=pairs)
    assert done.code == 2
    html = (command.folder / "page.html").read_text(encoding="utf-8")
    assert "<b>uneven" not in html
    assert "&lt;b&gt;uneven&lt;/b&gt;, target 1" in html
    assert "a target prompt equals the source prompt" in html
    assert "a <mark>red</mark> circle" in html
    assert "a <mark>blue</mark> circle" in html
    assert "self-attention" in html  # which column comes from where, by step
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    unwritable = check(command, "--page", "pairs.jsonl/page.html", "controller=refine")
    assert unwritable.code == 2
    assert "--page" in unwritable.err


def test_masks_and_equal_images_of_a_published_set(command: Command) -> None:
    pie = make_pie(command.folder / "pie")
    images = sorted((pie / "annotation_images").rglob("*.jpg"))
    images[1].write_bytes(images[0].read_bytes())
    done = command("check", "--json", "--decode", "dataset=pie_bench", f"dataset.path={pie}")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    reasons = {(one["pair"], one["reason"].partition(",")[0]) for one in found["warnings"]}
    assert ("111000000000", "its image is the same file as that of pair '000000000000'") in reasons
    assert ("111000000000", "its mask holds the outermost pixels alone") in reasons
    assert (
        "911000000000",
        "its mask covers the whole image at the model's size; no value outside it is defined",
    ) in {(one["pair"], one["reason"]) for one in found["warnings"]}
    assert found["masks"] == {"part": 2, "full": 1}
    assert found["sizes"] == {"512 x 512": 3}


def test_wrong_usage(command: Command) -> None:
    assert check(command, "--page").code == 2
    assert check(command, "controler=refine").code == 2
