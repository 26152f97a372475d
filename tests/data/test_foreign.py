"""A data set that somebody else writes, with a slip in it: the whole is refused, or the pair says why."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_bench.data import PairImages
from p2p_bench.data.base import all_pairs, load_pair
from p2p_bench.errors import P2PError
from p2p_bench.types import EditPair
from tests.unchecked import unchecked

SIZE = (8, 6)
IMAGE = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
MASK = (IMAGE[0] > 0.5).float()


def pair(id: Any = "a", **changes: Any) -> EditPair:
    return EditPair(**{"id": id, "source_prompt": "a cat", "target_prompts": ("a dog",), **changes})


REAL = pair(image=Path("a.png"))


@dataclass(frozen=True)
class Mine:
    """Gives whatever it is told to."""

    made: Any = ()
    pixels: Any = None
    limit: int | None = None
    name: str = "mine"

    def pairs(self) -> Any:
        return self.made

    def load(self, pair: EditPair, size: tuple[int, int]) -> Any:
        return self.pixels


def test_pairs_that_can_be_told_apart_are_taken() -> None:
    assert all_pairs(Mine([pair("a"), pair("A")], limit=2)) == [pair("a"), pair("A")]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([pair("a"), pair("b"), pair("a")], r"alike: 'a' \(2 times\)"),
        (None, "pairs\\(\\) gave a NoneType"),
        ((pair(id) for id in "ab"), "gave a generator; expected a list of EditPair"),
        ([{"id": "a"}], "gave a dict"),
        ([pair(target_prompts=())], "pair 'a' has no target prompt"),
        ([pair(id) for id in "abcd"], "gave 4 pairs in spite of dataset.limit=3; .*take"),
    ],
)
def test_other_pairs_are_refused(made: Any, words: str) -> None:
    with pytest.raises(P2PError, match=words):
        all_pairs(Mine(made, limit=3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": 1}, "pair 1: id: expected text"),
        ({"id": ""}, "id: expected an id"),
        ({"target_prompts": "a dog"}, "pair 'a': target_prompts: expected a list, got 'a dog'"),
        ({"seed": "3"}, "seed: expected an integer"),
        ({"category": None}, "category: expected text"),
    ],
)
def test_a_pair_is_checked_when_it_is_made(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(P2PError, match=words):
        unchecked(pair(), **changes).__post_init__()


def test_a_path_may_be_text() -> None:
    made = unchecked(pair(), image="a.png")
    made.__post_init__()
    assert made.image == Path("a.png")


def test_pixels_that_fit_are_taken() -> None:
    loaded = load_pair(Mine(pixels=PairImages(IMAGE, MASK, IMAGE)), REAL, SIZE)
    assert (loaded.error, loaded.image) == (None, IMAGE)
    assert load_pair(Mine(pixels=PairImages()), pair(), SIZE).error is None


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (PairImages(IMAGE * 255), "in the image; expected [0, 1]"),
        (unchecked(PairImages(IMAGE), image=(IMAGE * 255).to(torch.uint8)), "torch.uint8 for the image"),
        (
            unchecked(PairImages(IMAGE), image=IMAGE.permute(1, 2, 0)),
            "the image in the shape (8, 6, 3); expected (3, 8, 6)",
        ),
        (unchecked(PairImages(IMAGE), image=IMAGE[None]), "the image in the shape (1, 3, 8, 6)"),
        (PairImages(IMAGE * math.nan), "in the image; expected [0, 1]"),
        (PairImages(), "no image for a pair that has one"),
        (PairImages(IMAGE, MASK * 255), "values from 0 to 255 in the mask"),
        (unchecked(PairImages(IMAGE), mask=MASK[None]), "the mask in the shape (1, 8, 6); expected (8, 6)"),
        (unchecked(PairImages(IMAGE), answer=IMAGE[:, :4]), "the answer in the shape (3, 4, 6)"),
        ((IMAGE, MASK), "a tuple; expected PairImages"),
        (None, "a NoneType; expected PairImages"),
    ],
    ids=str,
)
def test_other_pixels_are_the_error_of_their_pair(pixels: Any, words: str) -> None:
    loaded = load_pair(Mine(pixels=pixels), REAL, SIZE)
    assert loaded.image is None
    assert "the pair cannot be used: Mine.load gave " in str(loaded.error)
    assert words in str(loaded.error)


def test_an_image_that_nobody_announced_is_an_error() -> None:
    assert "an image for a pair that has none" in str(
        load_pair(Mine(pixels=PairImages(IMAGE)), pair(), SIZE).error
    )
