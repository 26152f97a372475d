"""Local blend as data: words, masks, signatures, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from p2p_bench.attention.sites import unet_sites
from p2p_bench.controllers import ByEdit, LocalBlend, NoControl, Refine, Replace, Reweight
from p2p_bench.controllers.blend import FixedMask
from p2p_bench.errors import ConfigError, DataError, P2PError, PromptError
from tests.attention.rig import STEPS, context

SOURCE, SWAP = "a red circle on grass", "a blue circle on grass"


def test_columns_and_start() -> None:
    options = {"subtract": "grass", "target_subtract": ["blue", "on"], "start": 0.35, "threshold": 0.4}
    bound = LocalBlend(Replace(), "red circle", "circle", **options).bind(context(SOURCE, SWAP))
    blend = bound.blend
    assert blend is not None
    assert (blend.source, blend.target) == ((2, 3), (3,))
    assert (blend.subtract_source, blend.subtract_target) == ((5,), (2, 4))
    assert (blend.source_columns, blend.target_columns) == ((2, 3, 5), (2, 3, 4))
    assert (blend.start, blend.threshold, blend.subtract_threshold, blend.pool) == (3, 0.4, 0.3, 3)
    assert blend.records
    assert "local blend: from step 3" in str(bound)
    assert Replace().bind(context(SOURCE, SWAP)).blend is None


def test_it_edits_attention_as_its_inner_controller() -> None:
    inner = Replace(0.4, 0.3).bind(context(SOURCE, SWAP))
    blended = LocalBlend(Replace(0.4, 0.3), "circle", start=0.8).bind(context(SOURCE, SWAP))
    from tests.attention.rig import tiny_unet

    for site in unet_sites(tiny_unet()):
        for step in range(STEPS):
            assert blended.site_edit(step, site) == inner.site_edit(step, site)


def test_signatures_part_where_blending_begins() -> None:
    def signatures(controller: Any) -> list[Any]:
        bound = controller.bind(context(SOURCE, SWAP))
        return [bound.signature(step) for step in range(STEPS)]

    inner = Replace(0.4, 0.3)
    plain, blend = signatures(inner), signatures(LocalBlend(inner, "circle", start=0.5))
    assert [a == b for a, b in zip(plain, blend, strict=True)] == [True] * 5 + [False] * 5
    later = signatures(LocalBlend(inner, "circle", start=0.7))
    assert [a == b for a, b in zip(later, blend, strict=True)] == [True] * 5 + [False] * 2 + [True] * 3
    mask = torch.eye(4)
    for other in (
        {"words": "circle", "threshold": 0.4}, {"words": "circle", "pool": 1},
        {"words": "red", "target_words": []},
        {"words": "circle", "subtract": "grass"}, {"words": "circle", "fraction": 0.5}, {"mask": mask},
    ):  # fmt: skip
        changed = signatures(LocalBlend(inner, start=0.5, **other))
        assert [a == b for a, b in zip(changed, blend, strict=True)] == [True] * 5 + [False] * 5
    assert hash(tuple(blend)) == hash(tuple(signatures(LocalBlend(inner, "circle", start=0.5))))


def test_equal_settings_are_equal() -> None:
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    assert LocalBlend(Replace(), mask=mask) == LocalBlend(Replace(), mask=mask.clone())
    assert LocalBlend(Replace(), mask=mask) != LocalBlend(Replace(), mask=1 - mask)
    assert LocalBlend(Replace(), "cat") == LocalBlend(Replace(), ["cat"])
    assert LocalBlend(Replace(), "cat") != LocalBlend(Replace(), "cat", threshold=0.4)


def test_a_pairs_words() -> None:
    controller = LocalBlend(ByEdit(), start=0.4)
    words = (("circle",), ("star",))
    adapted = controller.for_pair({"fog": 2.0}, words)
    assert adapted == LocalBlend(ByEdit(weights={"fog": 2.0}), ("circle",), ("star",), start=0.4)
    assert controller.for_pair({}) == ByEdit()
    assert controller.for_pair({}, ((), ())) == ByEdit()
    assert LocalBlend(ByEdit(), "red").for_pair({}, words) == LocalBlend(ByEdit(), "red")
    only = controller.for_pair({}, ((), ("star",)))
    blend = only.bind(context(SOURCE, "a red star on grass")).blend
    assert blend is not None
    assert (blend.source, blend.target) == ((), (3,))
    assert NoControl().for_pair({}, words) == NoControl()


def test_a_mask_from_a_file(tmp_path: Path) -> None:
    Image.new("L", (6, 4), 0).save(tmp_path / "mask.png")
    picture = Image.open(tmp_path / "mask.png")
    picture.putpixel((5, 1), 255)
    picture.putpixel((0, 0), 100)
    picture.save(tmp_path / "mask.png")
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[1, 5] = True
    controller = LocalBlend(Replace(), mask=tmp_path / "mask.png")
    assert controller == LocalBlend(Replace(), mask=expected.float())
    assert isinstance(controller.mask, FixedMask)
    assert torch.equal(controller.mask.tensor(), expected)
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(expected.numpy().astype("uint8")).save(tmp_path / "ones.png")
    Image.new("L", (6, 4), 0).save(tmp_path / "nothing.png")
    for name, said in (
        ("text.png", "not an image"), ("none.png", "no such image file"), ("ones.png", "white is 255"),
        ("nothing.png", "the mask is empty"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            LocalBlend(Replace(), mask=str(tmp_path / name))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"words": "cirle"}, r"'cirle' is not in the prompt 'a red circle on grass'.*Did you mean 'circle'"),
        ({"words": "red"}, "'red' is not in the prompt 'a blue circle on grass'"),
        ({"words": "circle", "subtract": "sky"}, "'sky' is not in the prompt 'a red circle on grass'"),
        ({"words": "circle", "target_subtract": "red"}, "'red' is not in the prompt 'a blue circle"),
    ],
)
def test_words_that_are_not_there(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PromptError, match=said):
        LocalBlend(Replace(), **options).bind(context(SOURCE, SWAP))


@pytest.mark.parametrize("factor", [0.0, -1.0])
@pytest.mark.parametrize("inner", [None, Refine(0.5)])
def test_a_word_without_a_positive_map_marks_nothing(factor: float, inner: Any) -> None:
    weighted = Reweight({"circle": factor}, cross=0.3, inner=inner)
    for options in (
        {"words": "circle"}, {"words": "grass", "subtract": "circle"}, {"words": [], "target_words": "circle"}
    ):  # fmt: skip
        with pytest.raises(PromptError, match=r"'circle' .* no map to blend by, .* at step 0; blend by"):
            LocalBlend(weighted, **options).bind(context(SOURCE, SWAP))
    for fine in ({"words": "grass"}, {"words": "circle", "target_words": []}, {"mask": torch.ones(2, 2)}):
        assert LocalBlend(weighted, **fine).bind(context(SOURCE, SWAP)).blend is not None
    positive = Reweight({"circle": 0.1}, cross=0.3, inner=inner)
    assert LocalBlend(positive, "circle").bind(context(SOURCE, SWAP)).blend is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 1.5}, r"start: expected a share in \[0, 1\]"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": 1.0}, r"threshold: expected a share in \[0, 1\)"),  # nothing is above it: no edit
        ({"subtract_threshold": 2.0}, "subtract_threshold"),
        ({"pool": 2}, "odd number"),
        ({"pool": -1}, "odd number"),
        ({"fraction": 0.3}, "expected 1, 0.5, 0.25"),
        ({"words": [], "target_words": []}, "got none"),
        ({"words": []}, "got none"),
        ({"words": ["cat", ""]}, "expected words"),
        ({"words": None, "target_words": ["cat"]}, "say the source's words too"),
        ({"mask": torch.ones(3, 3)}, "a given mask goes without words"),
        ({"words": None, "mask": torch.full((2, 2), 255.0)}, r"values in \[0, 1\]"),
        ({"words": None, "mask": torch.ones(1, 2, 2)}, r"tensor \(h, w\)"),
    ],
)
def test_bad_settings(options: dict[str, Any], said: str) -> None:
    with pytest.raises(P2PError, match=said):
        LocalBlend(Replace(), **{"words": "circle", **options})


def test_words_or_a_mask_are_needed() -> None:
    with pytest.raises(ConfigError, match="name the words that mark the place"):
        LocalBlend(Replace()).bind(context(SOURCE, SWAP))
