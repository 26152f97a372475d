"""MasaCtrl and plug-and-play as PIE-Bench's table has them equal the released loops, written out."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.attention.features import BLOCK, injected_features
from p2p_bench.controllers import EditContext
from p2p_bench.inversion import DDIMInversion, DirectInversion
from tests.controllers.released_loops import Released
from tests.models.small_sd3 import small_sd3_model
from tests.models.tiny import tiny_model

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
NEGATIVE = "small, soft, black"
STEPS = 6
EXACT = 1e-10
SEEN = 1e6 * EXACT
AHEAD = DirectInversion(pivot="reconstruction_ahead", replayed_with="empty", negative_prompt=NEGATIVE)
DIRECT = DirectInversion(replayed_with="empty", negative_prompt=NEGATIVE)


@dataclass(frozen=True, eq=False)
class Rig:
    """A model, how many steps it takes, and its layers by name.

    Attributes:
        decoder: What "1: [1, 2], 2: [0, 1, 2], 3: [0, 1, 2]" of plug-and-play is in this network.
        last: The last six of sixteen layers, of MasaCtrl.
    """

    model: Any
    steps: int
    decoder: tuple[str, ...]
    last: tuple[str, ...]

    @cached_property
    def loop(self) -> Released:
        return Released(self.model, self.steps)

    @cached_property
    def image(self) -> Tensor:
        size = self.model.spec.image_size
        return torch.rand(3, *size, generator=torch.Generator().manual_seed(2))

    @cached_property
    def latents(self) -> Tensor:
        made: Tensor = self.model.encode_images(self.image[None])
        return made

    def pivot(self, prompt: str) -> list[Tensor]:
        with torch.no_grad():
            return self.loop.inverted(self.latents, prompt)

    def noisy(self, method: DirectInversion) -> list[Tensor]:
        """The source's latents as the script hands them on, that of the first step last."""
        path = self.pivot(SOURCE)
        if method.pivot == "ddim":
            return path
        with torch.no_grad():
            return self.loop.sampled(path[-1], SOURCE)[::-1]

    def edited(self, inversion: p2p.Inversion, controller: Any, targets: Any = TARGET) -> p2p.EditResult:
        result = p2p.edit(
            self.model, SOURCE, targets, controller, image=self.image, inversion=inversion, steps=self.steps,
            guidance=7.5, record=False,
        )  # fmt: skip
        assert result.error is None, result.error
        return result


def layers(*places: str) -> tuple[str, ...]:
    return tuple(f"up_blocks.{place[0]}.attentions.{place[1]}" for place in places)


@cache
def tiny() -> Rig:
    return Rig(tiny_model(), STEPS, layers("01", "10", "11"), layers("10", "11"))


@cache
def embedded() -> Rig:
    model = p2p.load_model("world", dtype=torch.float64)
    return Rig(model, 3, layers("11", "20", "21"), layers("20", "21"))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("method", [DIRECT, AHEAD], ids=["direct", "ddim"])
@pytest.mark.parametrize("rig", [tiny, embedded])
def test_plug_and_play_equals_the_released_loop(rig: Callable[[], Rig], method: DirectInversion) -> None:
    on = rig()
    expected = on.loop.plug_and_play(on.noisy(method), TARGET, on.decoder, negative=NEGATIVE)
    assert distance(on.edited(method, p2p.PlugAndPlay()).latents[1], expected[0]) <= EXACT
    wrong = on.loop.plug_and_play(on.noisy(method), TARGET, on.decoder, negative=NEGATIVE, factor=1.01)
    assert distance(wrong, expected) > SEEN


@pytest.mark.parametrize(
    "wrong",
    [
        {"heed": 1.01}, {"features": 0.5}, {"self_attn": 0.8}, {"negative": ""}, {"told": SOURCE},
        {"guidance": 7.4}, {"layers": layers("10", "11")},
    ],
    ids=str,
)  # fmt: skip
def test_each_part_of_plug_and_play_counts(wrong: Mapping[str, Any]) -> None:
    on = tiny()
    said: dict[str, Any] = {"negative": NEGATIVE, "layers": on.decoder}
    found = on.edited(DIRECT, p2p.PlugAndPlay()).latents[1]
    other = on.loop.plug_and_play(on.noisy(DIRECT), TARGET, **{**said, **wrong})
    assert distance(found, other[0]) > SEEN


def test_a_reconstruction_that_is_not_ahead_starts_where_the_inversion_ends() -> None:
    on = tiny()
    path = on.noisy(AHEAD)
    method = DirectInversion(pivot="reconstruction", replayed_with="empty")
    expected = on.loop.plug_and_play([*path, on.pivot(SOURCE)[-1]], TARGET, on.decoder)
    result = on.edited(method, p2p.PlugAndPlay())
    assert distance(result.latents[1], expected[0]) <= EXACT
    # The source ends where DDIM leads it, not at the image.
    assert distance(result.latents[0], path[0][0]) <= EXACT
    assert distance(result.latents[0], on.latents[0]) > 1e-3
    assert result.inversion_rows == 2 * STEPS
    assert distance(on.edited(AHEAD, p2p.PlugAndPlay()).latents[0], path[0][0]) <= EXACT


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("rig", [tiny, embedded])
def test_masactrl_equals_the_released_loop(rig: Callable[[], Rig], direct: bool) -> None:
    on = rig()
    method = (DirectInversion if direct else DDIMInversion)(inverted_with="empty")
    path, first = on.pivot(""), on.steps // 2
    back = {"pivot": path if direct else None}
    expected = on.loop.masactrl(path[-1], TARGET, on.last, first, **back)
    result = on.edited(method, p2p.MasaCtrl(first, 0.625, unprompted=True))
    assert distance(result.latents, expected) <= EXACT
    wrong = on.loop.masactrl(path[-1], TARGET, on.last, first, **back, factor=1.01)
    assert distance(wrong[1], expected[1]) > SEEN
    # A source that is told nothing needs no pass without a prompt besides.
    rows = result.inversion_rows, result.source_rows, *result.target_rows
    assert rows == (on.steps, on.steps, 2 * on.steps)


def test_each_part_of_masactrl_counts() -> None:
    on, controller = tiny(), p2p.MasaCtrl(2, 0.625, unprompted=True)
    # The released code inverts at guidance 7.5, which does nothing to the empty prompt.
    with torch.no_grad():
        assert distance(on.loop.inverted(on.latents, "", 7.5)[-1], on.pivot("")[-1]) <= EXACT
    for kind in (DDIMInversion, DirectInversion):
        found = on.edited(kind(inverted_with="empty"), controller).latents[1]
        for other in (
            on.edited(kind(inverted_with="empty"), p2p.MasaCtrl(2, 0.625)),
            on.edited(kind(), controller),
            on.edited(kind(inverted_with="empty", replayed_with="source"), controller),
        ):
            assert distance(other.latents[1], found) > SEEN


@pytest.mark.parametrize("method", [DDIMInversion(), DirectInversion()], ids=["ddim", "direct"])
def test_the_pass_without_the_prompt_reads_that_of_a_source_with_a_prompt(method: p2p.Inversion) -> None:
    on, direct = tiny(), isinstance(method, DirectInversion)
    path = on.pivot(SOURCE)
    back = {"pivot": path if direct else None}
    expected = on.loop.masactrl(path[-1], TARGET, on.last, 2, source=SOURCE, **back)
    result = on.edited(method, p2p.MasaCtrl(2, 0.625, unprompted=True))
    assert distance(result.latents, expected) <= EXACT
    # Direct inversion's source takes such a pass only where the edit reads it: it is the edit's.
    read = STEPS - 2 if direct else 0
    assert (result.source_rows, *result.target_rows) == ((1 if direct else 2) * STEPS, 2 * STEPS + read)


@pytest.mark.parametrize("controller", [p2p.PlugAndPlay(1.0, 1.0, 0.0), p2p.PlugAndPlay(0.0, 1.0)])
def test_an_edit_into_itself_is_the_source(controller: p2p.Controller) -> None:
    result = p2p.edit(tiny_model(), SOURCE, [SOURCE, TARGET], controller, steps=3, guidance=1.0, record=False)
    assert distance(result.latents[1], result.latents[0]) <= EXACT
    assert distance(result.latents[2], result.latents[0]) > 1e-3


def test_many_targets_parts_and_order_change_nothing() -> None:
    """Rows that fork, a batch of parts, and neighbours of other kinds."""
    targets = [TARGET, TARGET, "a red star on grass", TARGET]
    controllers = [
        p2p.PlugAndPlay(), p2p.PlugAndPlay(0.5, 0.4), p2p.MasaCtrl(2, 0.625, unprompted=True),
        p2p.SelfAttention(0.5),
    ]  # fmt: skip
    on = tiny()
    together = on.edited(DIRECT, controllers, targets)
    asked = tuple(p2p.Target(*one) for one in zip(targets, controllers, strict=True))
    request = p2p.EditRequest("x", SOURCE, asked, image=on.image, inversion=DIRECT)
    (parts,) = p2p.run_edits(on.model, [request], steps=STEPS, guidance=7.5, max_rows=5)
    assert parts.source_passes > 1
    assert distance(parts.latents, together.latents) <= EXACT
    for place, (target, controller) in enumerate(zip(targets, controllers, strict=True), start=1):
        alone = on.edited(DIRECT, controller, target)
        assert distance(alone.latents[1], together.latents[place]) <= EXACT
        # Beside others each costs what it costs alone: passes of the source that one reads are its own.
        rows = [(one.source_rows, one.target_rows[at - 1]) for one, at in ((alone, 1), (together, place))]
        assert rows[0] == rows[1] == (parts.source_rows, parts.target_rows[place - 1])
    # The first two are one row until features end for one of them.
    assert together.target_rows_spent[0] < together.target_rows[0]


def test_a_composition_keeps_what_each_part_does() -> None:
    model = tiny_model()
    context = EditContext(model.tokenize(SOURCE), model.tokenize(TARGET), 10, 0.5)
    made = p2p.Compose([p2p.Refine(0.8, 0.0), p2p.PlugAndPlay()]).bind(context)
    assert [made.features(step) for step in (0, 7, 8)] == [True, True, False]
    assert made.unprompted(0) == made.unprompted(7) == "source"
    assert made.unprompted(8) == "plain"
    assert "features of the source at steps 0..7" in str(made)
    with pytest.raises(p2p.ConfigError, match="the pass without the prompt in different ways"):
        p2p.Compose([p2p.SelfAttention(), p2p.PlugAndPlay()]).bind(context)
    blended = p2p.LocalBlend(p2p.PlugAndPlay(), words="circle").bind(context)
    assert blended.features(0)
    assert blended.unprompted(0) == "source"


def test_features_are_gathered_for_one_pass_of_one_thread_and_leave_no_trace() -> None:
    model = tiny_model()
    convolution = model.network.get_submodule(BLOCK).get_submodule("conv2")
    level, text = model.ladder(4)[0], model.encode([model.tokenize(one) for one in (SOURCE, TARGET)])
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ask = partial(model.predict, x, level, text)
    with torch.no_grad(), ThreadPoolExecutor(1) as other:
        plain = ask().output
        with injected_features(model.network, torch.tensor([0, 0])):
            assert len(convolution._forward_hooks) == 1
            assert distance(ask().output[1], plain[1]) > 1e-3
            # Autograd's mode is a thread's own; the numbers are the same.
            assert distance(other.submit(ask).result().output.detach(), plain) <= EXACT
        assert distance(ask().output, plain) <= EXACT
    assert not convolution._forward_hooks


def test_features_that_were_not_injected_are_no_silence() -> None:
    model = tiny_model()
    with (
        pytest.raises(p2p.ConfigError, match="were 0 times"),
        injected_features(model.network, torch.tensor([0, 0])),
    ):
        pass
    with pytest.raises(RuntimeError, match="within"), injected_features(model.network, torch.tensor([0])):
        raise RuntimeError("within")
    assert not model.network.get_submodule(BLOCK).get_submodule("conv2")._forward_hooks
    flow = small_sd3_model().network
    with pytest.raises(p2p.ConfigError, match="has no features"), injected_features(flow, torch.tensor([0])):
        pass


def test_models_without_the_block_refuse_it() -> None:
    model = small_sd3_model()
    with pytest.raises(p2p.P2PError, match=r"injects features of a residual block .* does not have"):
        p2p.edit(model, SOURCE, TARGET, p2p.PlugAndPlay(), steps=2)
    # Its self-attention alone is no matter of the block.
    assert p2p.edit(model, SOURCE, TARGET, p2p.PlugAndPlay(0.5, 0.0), steps=2).error is None
