"""Edits and scores on a device that is not the CPU and has no float64, as Apple's: see `elsewhere.py`."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.app.main import run_verb
from p2p_bench.bench.rows import read_rows
from p2p_bench.inversion.null_text import NullTextInversion
from p2p_bench.inversion.style_diffusion import StyleDiffusionInversion
from p2p_bench.metrics import Metric, pixel
from p2p_bench.metrics.attention import AttentionIou
from p2p_bench.metrics.base import EditView, evaluate
from p2p_bench.metrics.clip import ClipScore
from p2p_bench.metrics.clip_image import ClipImage
from p2p_bench.metrics.dino_image import DinoImage
from p2p_bench.metrics.lpips import Lpips
from p2p_bench.metrics.lpips_region import LpipsRegions
from p2p_bench.metrics.ms_ssim import MsSsim
from p2p_bench.metrics.pie_lpips import PieLpips
from p2p_bench.metrics.pie_pixel import PiePixels
from p2p_bench.metrics.pie_structure import PieStructure
from p2p_bench.metrics.pixel import PixelScores, mse
from p2p_bench.metrics.reconstruction import Reconstruction
from p2p_bench.metrics.region import RegionScores
from p2p_bench.metrics.structure import StructureDistance
from p2p_bench.models import device
from p2p_bench.models.device import device_of
from tests.elsewhere import There, another_device
from tests.examples import SOURCE, TARGET
from tests.metrics.dino import random_dino
from tests.metrics.trunks import random_trunk
from tests.models.families import FAMILIES
from tests.models.small_if_upscaler import small_cascade
from tests.models.tiny import tiny_checkpoint
from tests.models.tiny_clip import tiny_clip

CONTROLLERS = {
    "replace": p2p.Replace(0.8, 0.4),
    "refine": p2p.Refine(0.8, 0.4),
    "reweight": p2p.Reweight({"blue": 3.0}),
    "inject_words": p2p.InjectWords(["circle"]),
    "local_blend": p2p.LocalBlend(p2p.Replace(0.8, 0.4), ["circle"], start=0.0),
    "image_qk": p2p.ImageQK(),
    "masactrl": p2p.MasaCtrl(),
}
OF_DIFFUSIONS = ("ddim", "direct", "edict", "edit_friendly", "null_text", "proximal", "renoise")
OF_FLOWS = ("fireflow", "flowedit", "ode", "rf_inversion", "rf_solver", "uni_edit", "uni_inv")


def test_the_device_refuses_what_apples_does() -> None:
    doubled: list[Callable[[Tensor], Tensor]] = [Tensor.double, lambda one: one.to("cpu", torch.float64)]
    with another_device():
        there = torch.ones(2, 2, device="mps")
        assert there.device.type == "mps"
        assert (there @ there).cpu().device.type == "cpu"
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2, 2)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        for double in doubled:
            with pytest.raises(TypeError, match="float64"):
                double(there)


def test_a_device_that_computes_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = device.scaled_dot_product_attention

    def without_its_mask(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
    ) -> Tensor:
        return right(query, key, value, None if isinstance(query, There) else attn_mask)

    monkeypatch.setattr(device, "scaled_dot_product_attention", without_its_mask)
    with another_device(), pytest.raises(p2p.ConfigError, match="'mps' computes cross-attention with a mask"):
        tiny_checkpoint().load("mps")


def test_what_apples_device_lacks_is_computed_on_the_cpu() -> None:
    program = (
        "import os, sys; sys.platform = 'darwin'; import p2p_bench; "
        "print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"


def same_on_both(load: Callable[[str], Any], **options: Any) -> None:
    """Edits by every controller are those of the CPU."""
    here = load("cpu")
    if "image" in options:
        options["image"] = torch.rand(3, *here.spec.image_size, generator=torch.Generator().manual_seed(0))
    edit = {"seed": 3, "steps": 2, **options}
    controllers = list(edit.pop("controllers", CONTROLLERS).values())
    wanted = p2p.edit(here, SOURCE, [TARGET] * len(controllers), controllers, **edit)
    with another_device():
        away = load("mps")
        assert next(away.network.parameters()).device.type == "mps"
        found = p2p.edit(away, SOURCE, [TARGET] * len(controllers), controllers, **edit)
        images = found.images.cpu()
    torch.testing.assert_close(images, wanted.images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("inversion", OF_DIFFUSIONS)
def test_inversions_of_diffusions(inversion: str) -> None:
    controllers = {name: CONTROLLERS[name] for name in ("replace", "local_blend")}
    method = NullTextInversion(inner_steps=2) if inversion == "null_text" else inversion
    same_on_both(tiny_checkpoint().load, inversion=method, image=None, controllers=controllers)


@pytest.mark.parametrize("inversion", OF_FLOWS)
def test_inversions_of_flows(inversion: str) -> None:
    controllers = {"image_qk": CONTROLLERS["image_qk"]}
    same_on_both(FAMILIES["SD 3.5"]().load, inversion=inversion, image=None, controllers=controllers)


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "euler_ancestral"])
def test_samplers(sampler: str) -> None:
    same_on_both(tiny_checkpoint().load, sampler=sampler, record=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    checkpoint = FAMILIES[family]()
    controllers = {name: CONTROLLERS[name] for name in ("reweight", "local_blend", "image_qk")}
    same_on_both(checkpoint.load, controllers=controllers, record=True)


def test_an_upscaler() -> None:
    same_on_both(small_cascade().load, controllers={"replace": CONTROLLERS["replace"]})


def test_pix2pix_zero() -> None:
    controllers: dict[str, p2p.Controller] = {"pix2pix_zero": p2p.Pix2PixZero(0.01)}
    same_on_both(tiny_checkpoint().load, controllers=controllers, inversion="pix2pix_zero", image=None)


def test_style_diffusion() -> None:
    # Adam divides gradients by their size: after small steps no image shows how they were rounded.
    method = StyleDiffusionInversion(inner_steps=2, learning_rate=1e-4, encoder_weights=tiny_clip())
    controllers = {"replace": CONTROLLERS["replace"]}
    same_on_both(tiny_checkpoint().load, controllers=controllers, inversion=method, image=None)


def test_the_device_that_a_trainer_takes() -> None:
    assert [device_of(name) for name in ("auto", "gpu", "cpu", "mps")] == ["cpu", "cuda", "cpu", "mps"]
    with another_device():
        assert [device_of(name) for name in ("auto", "gpu", "cpu", "cuda")] == ["mps", "mps", "cpu", "cuda"]


def test_metrics(tmp_path: Path) -> None:
    dino = random_dino(tmp_path / "dino")
    alex, squeeze = random_trunk("alex", tmp_path), random_trunk("squeeze", tmp_path)

    def metrics() -> dict[str, Metric]:
        some: list[Any] = [
            PixelScores(), RegionScores(), MsSsim(), Reconstruction(), AttentionIou(0.3), Lpips("alex", alex),
            LpipsRegions("squeeze", squeeze), ClipScore("world"), ClipImage("world"), DinoImage(dino),
            StructureDistance(dino), PiePixels(), PieLpips(squeeze), PieStructure(dino),
        ]  # fmt: skip
        return {str(place): one for place, one in enumerate(some)}

    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 176, 176, generator=draw) for _ in range(4)]
    mask = (torch.rand(176, 176, generator=draw) > 0.5).float()
    view = EditView(
        *images[:2], SOURCE, TARGET, *images[2:], mask=mask, attention=torch.rand(16, 16, generator=draw)
    )
    (wanted,) = evaluate(metrics(), [view])
    with another_device():
        moved = {one.name: getattr(view, one.name) for one in fields(view)}
        moved = {name: value.to("mps") for name, value in moved.items() if isinstance(value, Tensor)}
        (found,) = evaluate(metrics(), [replace(view, **moved)])
    assert len(found) > 30
    assert found == pytest.approx(wanted, abs=1e-6, nan_ok=True)


def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: set[str] = set()
    monkeypatch.setattr(pixel, "mse", lambda a, b: (places.add(a.device.type), mse(a, b))[1])
    command = ["run", "dataset.limit=1", "sampler.steps=2", "logger=none"]
    assert run_verb([*command, f"run.dir={tmp_path}/here", "trainer.accelerator=cpu"]) == 0
    with another_device():
        assert run_verb([*command, f"run.dir={tmp_path}/there", "trainer.accelerator=mps"]) == 0
    there, here = (read_rows(tmp_path / name) for name in ("there", "here"))
    assert [row["status"] for row in there] == ["ok"]
    assert places == {"cpu", "mps"}
    for name, value in here[0].items():
        if isinstance(value, float) and not name.startswith(("seconds", "peak")):
            assert there[0][name] == pytest.approx(value, abs=1e-5, nan_ok=True), name
