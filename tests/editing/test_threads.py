"""One model in several threads: each gets what it would get alone, to the last bit."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import p2p_bench as p2p
from p2p_bench.attention.processor import FoldedAttnProcessor, folded_attention
from p2p_bench.cache import Cache
from p2p_bench.inversion.memory import checkpointed
from p2p_bench.models import DiffusionModel
from tests.models.tiny import tiny_checkpoint

THREADS = 4
STEPS = 2


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return tiny_checkpoint().load()


def jobs(model: DiffusionModel) -> list[Callable[[], p2p.EditResult]]:
    """Edits that differ in controllers, blends, what is recorded, prompts' lengths and the start."""
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(5))
    swap, longer = ("a red circle", "a blue circle"), ("a red circle", "a soft red circle on the small grass")
    blend = p2p.LocalBlend(p2p.Replace(), words=("circle",), target_words=("circle",))
    slow = p2p.NullTextInversion(inner_steps=2, checkpointing=True)

    def job(prompts: tuple[str, str], controller: object, **options: object) -> Callable[[], p2p.EditResult]:
        return lambda: p2p.edit(model, *prompts, controller, steps=STEPS, **options)  # type: ignore[arg-type]  # of any kind

    return [
        job(swap, p2p.Replace(cross=0.8, self_attn=0.4)),
        job(longer, p2p.Refine(cross=0.8), seed=1),
        job(longer, p2p.Reweight({"red": 3.0}, inner=p2p.Refine()), guidance=1.0),
        job(swap, blend, record=p2p.Record(apart=("steps",), self_images=(0, 1))),
        job(swap, p2p.MasaCtrl(), record=False),
        job(longer, None, image=image),
        job(swap, p2p.Replace(), image=image, inversion=slow),
        job(swap, None, seed=2, eta=1.0),
    ]


def tensors(result: p2p.EditResult) -> list[torch.Tensor]:
    maps = [one for kept in result.attention for _, one in sorted(kept.maps.items())]
    return [result.images, result.latents, *maps]


def test_threads_that_share_a_model_get_what_each_gets_alone(model: DiffusionModel) -> None:
    asked = jobs(model)
    alone = [tensors(job()) for job in asked]
    processors = dict(model.unet.attn_processors)
    with ThreadPoolExecutor(THREADS) as threads:
        calls = list(range(len(asked))) * 5
        together = list(threads.map(lambda number: tensors(asked[number]()), calls))
    for number, got in zip(calls, together, strict=True):
        assert len(got) == len(alone[number])
        assert all(map(torch.equal, got, alone[number])), number
    assert model.unet.attn_processors == processors


def test_processors_stay_until_the_last_has_left(model: DiffusionModel) -> None:
    before = dict(model.unet.attn_processors)

    def folded() -> bool:
        return all(isinstance(one, FoldedAttnProcessor) for one in model.unet.attn_processors.values())

    first, second = folded_attention(model.unet), folded_attention(model.unet)
    with first:
        second.__enter__()
    assert folded(), "the first to leave takes nothing from the other"
    second.__exit__(None, None, None)
    assert model.unet.attn_processors == before
    with pytest.raises(ZeroDivisionError), folded_attention(model.unet):
        raise ZeroDivisionError
    assert model.unet.attn_processors == before


def test_tokenizing_lengths_side_by_side(model: DiffusionModel) -> None:
    prompts = ["a cat", "a red circle and a blue square on sand", "a soft dog", "photo of the star"] * 30
    alone = [model.encode_prompts([prompt]) for prompt in prompts[:4]]
    with ThreadPoolExecutor(THREADS) as threads:
        together = list(threads.map(lambda prompt: model.encode_prompts([prompt]), prompts))
    assert all(torch.equal(got, alone[place % 4]) for place, got in enumerate(together))


def test_a_cache_that_threads_share(model: DiffusionModel, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(6))

    def inverted(seed: int) -> torch.Tensor:
        prompts = "a red circle", "a blue circle"
        return p2p.edit(model, *prompts, image=image, steps=STEPS, seed=seed, cache=cache).latents

    alone = inverted(0)
    cache.clear()
    with ThreadPoolExecutor(THREADS) as threads:
        assert all(torch.equal(got, alone) for got in threads.map(inverted, range(12)))
    assert len(cache.entries()) == 1


def test_checkpointing_lasts_until_the_last_has_left(model: DiffusionModel) -> None:
    first, second = checkpointed(model.unet), checkpointed(model.unet)
    with first:
        second.__enter__()
    assert model.unet.is_gradient_checkpointing, "the first to leave takes nothing from the other"
    second.__exit__(None, None, None)
    assert not model.unet.is_gradient_checkpointing
    model.unet.enable_gradient_checkpointing()
    with checkpointed(model.unet):
        pass
    assert model.unet.is_gradient_checkpointing, "it was on before"
    model.unet.disable_gradient_checkpointing()


def test_what_checkpoints_stays_when_it_ends_amid_a_pass(model: DiffusionModel) -> None:
    """A block asks whether to checkpoint, then for the function; another thread may end it in between."""
    block = model.unet.mid_block.resnets[0]
    with checkpointed(model.unet):
        held = model.unet.mid_block._gradient_checkpointing_func
        assert model.unet.mid_block.gradient_checkpointing
    sample = torch.rand(1, block.in_channels, 2, 2, requires_grad=True)
    time = torch.rand(1, block.time_emb_proj.in_features)
    out = model.unet.mid_block._gradient_checkpointing_func(block, sample, time)
    assert torch.equal(out, held(block, sample, time))
