"""Ways to call a network that leave what is computed: compiled, one kernel, weights in main memory."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import p2p_bench as p2p
from p2p_bench.app.build import recorded_settings, without_hydra
from p2p_bench.app.compose import compose
from p2p_bench.attention.kernels import KERNELS, attention_by, possible_kernels
from p2p_bench.errors import ConfigError
from p2p_bench.inversion.base import read_sources
from p2p_bench.inversion.ddim import DDIMInversion
from p2p_bench.inversion.recall import replay_key
from p2p_bench.models import DiffusionModel, LocalCheckpoint
from p2p_bench.models.calls import Calling, NetworkCall
from p2p_bench.models.compiled import CompiledNetwork
from p2p_bench.models.offload import PartsInTurn, layers_in_turn
from p2p_bench.models.settings import AttentionBackend
from tests.examples import SOURCE, TARGET
from tests.models.families import FAMILIES
from tests.models.small import small_checkpoint
from tests.models.small_ip2p import small_ip2p
from tests.models.tiny import tiny_checkpoint

STEPS = 3


@pytest.fixture
def graphs() -> Iterator[Callable[[], int]]:
    """Number of graphs that were compiled so far."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: int(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()


def compiled(model: Any, backend: str = "eager") -> Any:
    return dataclasses.replace(
        model, call=NetworkCall(model.network, CompiledNetwork(model.network, backend))
    )


def edited(model: DiffusionModel, count: int, controller: Any, **options: Any) -> torch.Tensor:
    return p2p.edit(model, SOURCE, [TARGET] * count, controller, seed=3, steps=STEPS, **options).latents


def runs(model: DiffusionModel) -> list[torch.Tensor]:
    """Batches of several sizes; plans of every kind, which change from step to step; inversions."""
    image = torch.rand(3, *model.spec.image_size, generator=torch.Generator().manual_seed(0))
    blend = p2p.LocalBlend(p2p.Replace(0.8), words=("circle",), target_words=("circle",), start=0.0)
    return [
        edited(model, 1, p2p.Replace(0.5, 0.25)),
        edited(model, 3, p2p.Refine(0.8, 0.5)),
        edited(model, 2, blend, record=True),
        edited(model, 1, p2p.NoControl(), guidance=1.0),
        edited(model, 2, p2p.MasaCtrl(0, 0.0), image=image, inversion="direct"),
    ]


def test_a_whole_run_compiles_two_graphs_and_rounds_alike(graphs: Callable[[], int]) -> None:
    """One for a single row, here an inversion's, and one for all else: any rows, steps, edits, or no plan."""
    plain = tiny_checkpoint().load()
    model = compiled(plain)
    expected, first = runs(plain), edited(model, 1, p2p.Replace(0.5, 0.25))
    assert graphs() == 1
    got = runs(model)
    assert graphs() == 2
    torch.testing.assert_close(first, got[0], atol=0, rtol=0)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    runs(model)
    edited(model, 2, p2p.Replace(1.0, 1.0))
    assert graphs() == 2, "something is compiled after warm-up"
    assert set(plain.network.attn_processors.values()) == set(model.network.attn_processors.values())


def test_features_are_injected_in_passes_that_are_not_compiled(graphs: Callable[[], int]) -> None:
    plain = tiny_checkpoint().load()
    model = compiled(plain)
    edited(model, 1, p2p.Replace(0.5, 0.25))
    for made in (p2p.PlugAndPlay(0.5, 0.4), p2p.PlugAndPlay(0.0, 1.0)):
        torch.testing.assert_close(edited(model, 1, made), edited(plain, 1, made), atol=1e-4, rtol=0)
    assert graphs() == 1


@pytest.mark.parametrize("family", ["DeepFloyd IF", "SD 3.5", "FLUX.1"])
def test_every_kind_of_network_compiles(family: str, graphs: Callable[[], int]) -> None:
    plain = FAMILIES[family]().load()
    model = compiled(plain)
    for count in (1, 2):
        edit = p2p.Refine(0.5, 0.3)
        torch.testing.assert_close(edited(model, count, edit), edited(plain, count, edit), atol=1e-4, rtol=0)
    assert graphs() == 1


def test_a_network_that_is_shown_an_image_compiles(graphs: Callable[[], int]) -> None:
    plain = small_ip2p().load()
    model = compiled(plain)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    for orders in (["a blue circle"], ["a blue circle", "a dog in fog"]):
        made, wanted = (p2p.instruct(one, image, orders, seed=3, steps=STEPS) for one in (model, plain))
        torch.testing.assert_close(made.images, wanted.images, atol=1e-4, rtol=0)
    assert graphs() == 1


def test_what_gradients_are_wanted_of_is_not_compiled() -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("compiled")

    plain = tiny_checkpoint().load()
    model = dataclasses.replace(
        plain, call=NetworkCall(plain.network, CompiledNetwork(plain.network, refuse))
    )
    said = plain.encode([plain.tokenize(SOURCE)])["text"]
    x_t, level = torch.ones(1, 4, 8, 8), plain.ladder(STEPS)[0]
    text = said.clone().requires_grad_()
    for told in ({"text": text}, {"text": said, "values": text}):
        with plain.controlled():
            outputs = [one.predict(x_t, level, told).output for one in (plain, model)]
        torch.testing.assert_close(outputs[0], outputs[1], atol=0, rtol=0)
        assert bool(torch.autograd.grad(outputs[1].sum(), text)[0].abs().sum() > 0)


def test_values_of_their_own_are_no_graph_of_their_own(graphs: Callable[[], int]) -> None:
    plain = tiny_checkpoint().load()
    model = compiled(plain)
    said = plain.encode([plain.tokenize(SOURCE)])["text"]
    x_t, level = torch.ones(1, 4, 8, 8), plain.ladder(STEPS)[0]
    for factor in (1.0, 2.0):
        told = {"text": said, "values": factor * said}
        with torch.no_grad(), plain.controlled():
            expected, found = (one.predict(x_t, level, told).output for one in (plain, model))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert graphs() == 1


def test_what_cannot_be_compiled_is_said() -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(message)

    network = CompiledNetwork(nn.Identity())
    for message, kind in (("no compiler here", ConfigError), ("CUDA out of memory", RuntimeError)):
        network._compiled = torch.compile(lambda x: x + 1, backend=broken, fullgraph=True)
        with pytest.raises(kind, match=message) as caught:
            network._answer([torch.ones(2)], {})
        assert ("model.compile=false" in str(caught.value)) == (kind is ConfigError)


def test_kernels_are_those_of_the_setting() -> None:
    (rule,) = get_args(AttentionBackend)[1:]
    assert rule.options == tuple(KERNELS)
    assert possible_kernels(torch.device("cpu"), torch.float32, [8, 64]) == ("flash", "math")


@pytest.mark.parametrize("kernel", ["flash", "math"])
def test_a_kernel_leaves_the_pictures_but_for_rounding(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, asked = small_checkpoint("sd2"), []
    plain, model = checkpoint.load(), dataclasses.replace(checkpoint, attention_backend=kernel).load()
    forward = model.network.forward

    def seen(*arguments: Any, **named: Any) -> Any:
        asked.append((torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()))
        return forward(*arguments, **named)

    monkeypatch.setattr(model.network, "forward", seen)
    edit = p2p.Replace(0.8, 0.5)
    torch.testing.assert_close(edited(model, 2, edit), edited(plain, 2, edit), atol=1e-4, rtol=0)
    assert set(asked) == {(kernel == "flash", kernel == "math")}
    assert all((torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()))
    assert (plain.roundings, model.roundings) == ((), (kernel,))


def test_a_kernel_that_is_not_there_is_refused_before_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("p2p_bench.models.checkpoint.load_part", None)
    for kernel in ("efficient", "cudnn"):
        checkpoint = dataclasses.replace(tiny_checkpoint(), attention_backend=kernel)
        with pytest.raises(ConfigError, match=rf"={kernel}: 'cpu' has no such.*possible are flash, math, or"):
            checkpoint.load()
    with pytest.raises(ConfigError, match="expected one of 'flash', 'efficient', 'cudnn', 'math', or null"):
        LocalCheckpoint("x", attention_backend="sage")


def test_threads_that_want_other_kernels_wait() -> None:
    inside, order = threading.Event(), []

    def other() -> None:
        inside.wait()
        with attention_by("math"):
            order.append("math")

    thread = threading.Thread(target=other)
    thread.start()
    with attention_by("flash"), attention_by("flash"):
        inside.set()
        thread.join(0.2)
        order.append("flash")
    thread.join()
    assert order == ["flash", "math"]


def test_weights_come_and_go_in_turn() -> None:
    first, second = nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2))
    tensors = [*first.parameters(), *second.state_dict(keep_vars=True).values()]
    resting = {one: one.data_ptr() for one in tensors}

    def here(part: nn.Module) -> bool:
        (answer,) = {one.data_ptr() != resting[one] for one in part.state_dict(keep_vars=True).values()}
        return answer

    parts = PartsInTurn([first, second], torch.device("cpu"))
    parts.follow(second, [second[0]])
    with parts.using(first), parts.using(first):
        assert (here(first), here(second)) == (True, False)
    assert here(first), "it stays until another is needed"
    second.eval()(torch.ones(3, 2))
    assert (here(first), here(second)) == (False, True)
    with pytest.raises(RuntimeError):
        second(torch.ones(3, 5))
    with parts.using(first):  # nobody is left within the other
        assert (here(first), here(second)) == (True, False)


def test_layers_come_and_go_while_they_compute() -> None:
    inner, outer = nn.Linear(2, 2), nn.Sequential()
    outer.append(inner)
    resting, seen = inner.weight.data_ptr(), []
    layers_in_turn([outer], torch.device("cpu"))
    inner.register_forward_hook(lambda *_: seen.append(inner.weight.data_ptr()), prepend=True)
    expected = nn.functional.linear(torch.ones(1, 2), inner.weight, inner.bias)
    torch.testing.assert_close(outer(torch.ones(1, 2)), expected)
    assert seen != [resting]
    assert inner.weight.data_ptr() == resting
    with pytest.raises(RuntimeError):
        outer(torch.ones(1, 3))
    assert inner.weight.data_ptr() == resting


def test_weights_elsewhere_leave_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where it is refused, they come from where they are."""
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, taken = tiny_checkpoint().load(), []
    take = PartsInTurn._take

    def counted(self: PartsInTurn, part: nn.Module) -> None:
        taken.append(type(part))
        take(self, part)

    monkeypatch.setattr(PartsInTurn, "_take", counted)
    expected = edited(plain, 1, p2p.Replace(0.8), image=image, inversion="ddim")
    for offload in ("model", "sequential"):
        model = tiny_checkpoint().load()
        monkeypatch.setattr(Calling, "__post_init__", lambda self: None)
        calling = Calling("tiny", torch.device("cpu"), torch.float32, offload=offload)
        call = calling.of(model.network, model.sites, model.encoders, model.vae)
        model = dataclasses.replace(model, call=call)
        got = edited(model, 1, p2p.Replace(0.8), image=image, inversion="ddim")
        torch.testing.assert_close(got, expected, atol=0, rtol=0)
    kinds = {type(one) for one in (model.network, model.vae, *model.encoders)}
    assert set(taken) == kinds


def test_what_weights_elsewhere_cannot_do_is_refused() -> None:
    for offload in ("model", "sequential"):
        checkpoint = dataclasses.replace(tiny_checkpoint(), offload=offload)
        with pytest.raises(ConfigError, match=f"offload={offload}: on a CPU .*model.offload=none"):
            checkpoint.load()
    assert "gradient" not in checkpoint.spec().capabilities
    with pytest.raises(ConfigError, match="offload=sequential"):
        Calling("tiny", torch.device("cuda"), torch.float32, compile=True, offload="sequential")


def test_settings_reach_every_family() -> None:
    assert tiny_checkpoint().load().call is None
    for family in ("SD 2.1 (v)", "DeepFloyd IF", "SD 3.5", "FLUX.1"):
        checkpoint = LocalCheckpoint(FAMILIES[family]().path, compile=True, attention_backend="math")
        model = checkpoint.load()
        assert model.roundings == ("compiled", "math")
        assert isinstance(model.call, NetworkCall)
        assert model.call.network is model.network
    for family in ("SD 3.5", "FLUX.1"):
        checkpoint = FAMILIES[family]()
        tiled = dataclasses.replace(checkpoint, vae="tiled")
        assert [one.load().vae.use_tiling for one in (tiled, checkpoint)] == [True, False]
        assert tiled.spec().checksum != checkpoint.spec().checksum
        assert dataclasses.replace(checkpoint, vae="sliced").load().vae.use_slicing


def test_inversions_are_kept_apart_by_rounding_alone() -> None:
    model = tiny_checkpoint().load()
    sources = read_sources(model, torch.zeros(1, 3, 16, 16), [SOURCE])
    other = compiled(model)
    keys = [replay_key(DDIMInversion(), one, sources, 0, STEPS) for one in (model, other)]
    assert keys[0] != keys[1]


def test_what_is_recorded_is_what_may_change_numbers() -> None:
    def settings(*overrides: str) -> Any:
        config = compose(["model=sd15", *overrides, "logger=none"], keep_hydra=True)
        return recorded_settings(without_hydra(config))

    assert settings("model.offload=sequential") == settings()
    assert settings("model.compile=true") != settings()
    assert settings("model.attention_backend=math") != settings()
