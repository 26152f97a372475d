"""What an editor that somebody else writes gives back is looked at before it is scored."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from p2p_bench.bench.isolation import edit_apart
from p2p_bench.bench.results import checked_results
from p2p_bench.controllers import NoControl
from p2p_bench.editing import EditRequest, EditResult, Target
from p2p_bench.errors import P2PError
from tests.unchecked import unchecked

PLAIN = torch.full((2, 3, 4, 4), 0.5)


def requests(*ids: str) -> list[EditRequest]:
    return [EditRequest(id, "a cat", (Target("a dog", NoControl()),), image=PLAIN[0]) for id in ids]


def made(
    id: str, images: torch.Tensor = PLAIN, errors: Sequence[P2PError | None] = (None, None)
) -> EditResult:
    return EditResult.made(id, images, errors)


def test_what_fits_is_taken_as_it_is() -> None:
    results = [made("a", PLAIN * 0.9), made("b", PLAIN * torch.nan, [P2PError("no")] * 2)]
    assert checked_results(results, requests("a", "b"), "Mine") == results


def test_a_source_that_is_handed_back_is_no_reconstruction() -> None:
    (asked,) = requests("a")
    (back,) = checked_results([made("a")], [asked], "Mine")
    assert back.reconstructions == [None]
    (other,) = checked_results([made("a", torch.stack([PLAIN[0] * 0.9, PLAIN[1]]))], [asked], "Mine")
    assert other.reconstructions is None


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (None, "Mine.edit gave a NoneType; expected a list of EditResult"),
        ([PLAIN, PLAIN], "gave a Tensor"),
        ([made("a")], r"results of \['a'\] for requests \['a', 'b'\]"),
        ([made("b"), made("a")], r"results of \['b', 'a'\]"),
        ([made("a"), made("b", PLAIN[:1])], "gave 1 images and 2 errors for a source and 1 targets"),
        ([made("a"), made("b", errors=[None])], "2 images and 1 errors"),
        (
            [made("a"), unchecked(made("b"), reconstructions=[PLAIN[0, :, :2]])],
            r"shape \(3, 2, 4\); expected",
        ),
    ],
)
def test_other_results_are_refused(results: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked_results(results, requests("a", "b"), "Mine")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (PLAIN[1] * 255, "target 1 with values from 127.5 to 127.5; expected [0, 1]"),
        (PLAIN[1] - 1, "values from -0.5"),
        (PLAIN[1] * torch.nan, "not finite"),
    ],
)
def test_an_image_that_cannot_be_scored_is_an_error(image: torch.Tensor, words: str) -> None:
    (result,) = checked_results([made("a", torch.stack([PLAIN[0], image]))], requests("a"), "Mine")
    assert result.errors[0] is None
    assert words in str(result.errors[1])


def test_an_image_of_another_size_is_an_error() -> None:
    (result,) = checked_results([made("a", PLAIN[..., :2])], requests("a"), "Mine")
    assert "the shape (3, 4, 2); expected (3, 4, 4)" in str(result.errors[1])


def test_results_in_another_order_are_asked_for_one_by_one() -> None:
    class Shuffled:
        def edit(self, requests: Sequence[EditRequest], progress: Any = None) -> list[EditResult]:
            return [made(request.id) for request in reversed(requests)]

    found = edit_apart(Shuffled(), requests("a", "b"), torch.device("cpu"))
    assert [one.id for one in found] == ["a", "b"]
    assert all(one.error is None for one in found)


def test_a_source_is_not_to_be_changed() -> None:
    class Spoils:
        def edit(self, requests: Sequence[EditRequest], progress: Any = None) -> list[EditResult]:
            for request in requests:
                assert request.image is not None
                request.image.mul_(0.5)
            return [made(request.id) for request in requests]

    (request,) = requests("a")
    spoilt = replace(request, image=PLAIN[0].clone())
    with pytest.raises(P2PError, match=r"Spoils\.edit changed an image that it was given"):
        edit_apart(Spoils(), [spoilt], torch.device("cpu"))
