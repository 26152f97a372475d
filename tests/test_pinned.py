"""Settings of the process decide no result."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch

import p2p_bench as p2p
from p2p_bench.data import WorldReal
from p2p_bench.data.base import load_pair
from p2p_bench.errors import P2PError
from p2p_bench.metrics import EditView, evaluate
from p2p_bench.metrics.lpips import Lpips
from p2p_bench.metrics.pixel import PixelScores
from p2p_bench.metrics.world import WorldAnswer, WorldAttributes
from p2p_bench.pinned import pinned
from tests.models.tiny import tiny_checkpoint, tiny_model


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == dtype, "the user's setting came back"
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        assert torch.get_default_device() == torch.device(device)
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def another_place() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Pacific/Kiritimati"
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


@contextmanager
def strict_numbers() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        yield


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: default_device("meta"),
    "with meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
    "gradients": torch.enable_grad,
    "deterministic": deterministic,
    "time zone": another_place,
    "numpy": strict_numbers,
}


def results() -> list[torch.Tensor]:
    """What a user's calls give: loading, edits from noise and from an image, renders, scores."""
    model = tiny_checkpoint().load()
    image = torch.full((3, 16, 16), 0.25, dtype=torch.float32, device="cpu")
    prompts = "a red circle", "a blue circle"
    controller = p2p.LocalBlend(p2p.Replace(0.8, 0.4), words=("circle",), target_words=("circle",))
    drawn = p2p.edit(model, *prompts, controller, steps=2)
    null = p2p.NullTextInversion(inner_steps=1)
    real = p2p.edit(model, *prompts, p2p.Replace(), image=image, inversion=null, steps=2)
    weights = [parameter.detach().sum() for parameter in model.unet.parameters()]
    return [drawn.images, drawn.latents, drawn.heatmap("circle"), real.images, *weights, *scores()]


def scores() -> list[torch.Tensor]:
    dataset = WorldReal(count=1, seed=3)
    (pair,) = dataset.pairs()
    pixels = load_pair(dataset, pair, (64, 64))
    assert pixels.image is not None
    assert pixels.answer is not None
    view = EditView(
        source=pixels.image,
        edited=pixels.answer,
        source_prompt=pair.source_prompt,
        target_prompt=pair.target_prompts[0],
        mask=pixels.mask,
        answer=pixels.answer,
        scene=pair.scene,
        scene_edit=pair.scene_edit,
    )
    metrics = {
        "pixel": PixelScores(),
        "lpips": Lpips(),
        "answer": WorldAnswer(),
        "attributes": WorldAttributes(),
    }
    (values,) = evaluate(metrics, [view])
    numbers = [values[key] for key in sorted(values)]
    return [pixels.image, torch.tensor(numbers, dtype=torch.float64, device="cpu")]


@pytest.fixture(scope="module")
def expected() -> list[torch.Tensor]:
    return results()


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_around_a_call_changes_what_it_gives(name: str, expected: list[torch.Tensor]) -> None:
    with SETTINGS[name]():
        got = results()
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    assert not any(image.is_inference() for image in got[:2])


def test_the_number_of_threads_changes_rounding_only(expected: list[torch.Tensor]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3 if before == 1 else 1)
    try:
        got = results()
    finally:
        torch.set_num_threads(before)
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one.nan_to_num(7), other.nan_to_num(7), atol=1e-4)


def test_the_global_generators_are_neither_read_nor_moved(expected: list[torch.Tensor]) -> None:
    torch.manual_seed(99)
    np.random.seed(99)  # the global generator is the subject
    before, numbers = torch.random.get_rng_state(), np.random.get_state()[1]
    got = results()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(got, expected, strict=True))


def test_the_default_dtype_comes_back_when_the_last_thread_leaves() -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with pinned():
            inside.set()
            leave.wait(60)

    with default_dtype(torch.float64):
        other = threading.Thread(target=stay)
        other.start()
        inside.wait(60)
        with pinned():
            assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_dtype() == torch.float32, "the other thread still computes"
        leave.set()
        other.join()


def test_what_deterministic_mode_forbids_is_said() -> None:
    reason = "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set ..."
    with pytest.raises(P2PError, match="warn_only=True"), pinned():
        raise RuntimeError(reason)
    with pytest.raises(RuntimeError, match="else"), pinned():
        raise RuntimeError("something else")


def test_weights_loaded_within_inference_mode_can_be_differentiated_through() -> None:
    with torch.inference_mode():
        model = tiny_checkpoint().load()
    assert not any(parameter.is_inference() for parameter in model.unet.parameters())
    assert tiny_model().schedule.alphas_cumprod.dtype == torch.float64
