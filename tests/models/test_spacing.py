"""A scheduler's file that names no spacing: the sampler's own in diffusers, whoever wrote the file."""

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
)
from torch import Tensor

import p2p_bench as p2p
from p2p_bench.errors import ConfigError
from p2p_bench.models import UNetCheckpoint
from p2p_bench.models.timesteps import LevelKind, TimestepLayout
from p2p_bench.sampling import initial_noise
from p2p_bench.sampling.noise import step_noise
from tests.examples import SOURCE, TARGET
from tests.models.tiny import tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
"""diffusers' schedulers with NumPy 2."""

CLASSES: dict[LevelKind, str] = {
    "ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "multistep": "DPMSolverMultistepScheduler",
    "consistency": "LCMScheduler",
}  # fmt: skip
Copy = Callable[..., UNetCheckpoint]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """The tiny checkpoint as the first releases wrote it, by another scheduler and without a spacing."""

    def copied(**changes: Any) -> UNetCheckpoint:
        folder = Path(shutil.copytree(Path(tiny_checkpoint().path), tmp_path / f"copy-{len(changes)}"))
        file, index = folder / "scheduler" / "scheduler_config.json", folder / "model_index.json"
        config = {**json.loads(file.read_text()), "_class_name": "PNDMScheduler", "skip_prk_steps": True}
        del config["timestep_spacing"]
        file.write_text(json.dumps({**config, **changes}))
        named = {**json.loads(index.read_text()), "scheduler": ["diffusers", "PNDMScheduler"]}
        index.write_text(json.dumps(named))
        return UNetCheckpoint(folder, name="old", steps=4, record_fraction=0.5, consistency=True)

    return copied


def of_pipeline(monkeypatch: pytest.MonkeyPatch, path: Any, kind: Any, steps: int, **options: Any) -> Tensor:
    """Images of the pipeline with another scheduler, which draws the noise of each step as we do."""
    pipeline = StableDiffusionPipeline.from_pretrained(path, local_files_only=True, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    drawn: list[int] = []

    def noise(shape: Sequence[int], **options: Any) -> Tensor:
        drawn.append(len(drawn))
        return step_noise(7, drawn[-1], (4, 8, 8)).expand(*shape)

    module = inspect.getmodule(kind)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", noise)
    images: Tensor = pipeline(
        [SOURCE, TARGET], output_type="pt", num_inference_steps=steps, guidance_scale=2.0,
        latents=initial_noise(7, (4, 8, 8)).expand(2, -1, -1, -1).clone(),
    ).images  # fmt: skip
    return images


@pytest.mark.parametrize(
    ("sampler", "kind", "options"),
    [
        ("ddim", DDIMScheduler, {}),
        ("euler", EulerDiscreteScheduler, {}),
        ("euler_ancestral", EulerAncestralDiscreteScheduler, {}),
        ("dpmpp_2m", DPMSolverMultistepScheduler, {}),
        ("dpmpp_2m_sde", DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
        ("lcm", LCMScheduler, {}),
    ],
)
def test_every_sampler_takes_the_spacing_of_its_class(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, sampler: str, kind: Any, options: dict[str, Any]
) -> None:
    checkpoint = copy()
    model = checkpoint.load()
    for steps in (3, 7, 20):
        expected = of_pipeline(monkeypatch, checkpoint.path, kind, steps, **options)
        result = p2p.edit(
            model, SOURCE, TARGET, seed=7, steps=steps, guidance=2.0, sampler=sampler, record=False
        )
        assert float((result.images - expected).abs().max()) <= 1e-5, steps


@pytest.mark.parametrize("kind", CLASSES)
def test_the_spacing_of_each_class_is_that_of_diffusers(kind: LevelKind) -> None:
    usual = inspect.signature(getattr(diffusers, CLASSES[kind]).__init__).parameters["timestep_spacing"]
    assert TimestepLayout(spacing=None, kind=kind).spaced == usual.default
    assert CLASSES.keys() == set(get_args(LevelKind)) - {"karras", "flow"}  # which have no spacing


def test_what_a_file_or_a_setting_names_wins(copy: Copy) -> None:
    said, unsaid = copy(timestep_spacing="trailing").load(), copy().load()
    for kind in ("ddim", "euler"):
        assert said.laid_out(kind).ladder(7) == unsaid.laid_out(kind, "trailing").ladder(7)
    assert unsaid.laid_out("euler").ladder(7)[0].timestep == 999
    assert unsaid.laid_out("euler").ladder(7)[1].timestep == pytest.approx(832.5)
    assert unsaid.laid_out("euler").laid_out("ddim").ladder(7)[0].timestep == 853
    with pytest.raises(ConfigError, match="timestep 945"):
        unsaid.laid_out("ddim").ladder(60)
    assert len(unsaid.laid_out("euler").ladder(60)) == 61


def test_an_inversion_walks_along_the_levels_of_the_sampler(copy: Copy) -> None:
    """With levels between two timesteps and a start that is scaled, a real image comes back as it was."""
    model = copy().load(dtype=torch.float64)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted, asked = model.encode_images(image[None])[0], []
    handle = model.network.register_forward_pre_hook(lambda module, inputs: asked.append(float(inputs[1])))
    result = p2p.edit(
        model, SOURCE, [TARGET], image=image, inversion="direct", sampler="euler", steps=7, guidance=2.0,
        record=False,
    )  # fmt: skip
    handle.remove()
    assert set(asked) == {999 * step / 6 for step in range(7)}
    assert float((result.latents[0] - wanted).abs().max()) <= 1e-8
    assert float((result.latents[1] - wanted).abs().max()) >= 1e-3
