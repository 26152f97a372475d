"""Checkpoints as others publish them: sampled as their pipelines sample them, or refused before weights."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.schedulers import scheduling_dpmsolver_multistep, scheduling_lcm, scheduling_pndm
from transformers import CLIPTextModel

import p2p_bench as p2p
from p2p_bench.errors import P2PError
from p2p_bench.models import LocalCheckpoint
from p2p_bench.models.schedule import schedule_from_config
from p2p_bench.sampling import DDIMSampler, DPMSolverSampler, EulerSampler, Sampler, initial_noise
from tests.models.small import small_checkpoint
from tests.models.tiny import tiny_checkpoint

PROMPTS = ("a red circle on grass", "a blue circle on grass")
Change = Callable[[Path], None]


def copied(family: str, folder: Path) -> Path:
    """A checkpoint that a test may change."""
    checkpoint = tiny_checkpoint() if family == "sd1" else small_checkpoint(family)
    return Path(shutil.copytree(checkpoint.path, folder / "checkpoint"))


def config(file: str, *absent: str, **values: Any) -> Change:
    """Changes one configuration file."""

    def change(folder: Path) -> None:
        path = folder / file
        kept = {key: value for key, value in json.loads(path.read_text()).items() if key not in absent}
        path.write_text(json.dumps(kept | values))

    return change


def sharded(variant: str | None = None, whole: bool = False) -> Change:
    """Writes the U-Net and the text encoder in shards, beside the one file each or in its place."""

    def change(folder: Path) -> None:
        for part, kind in (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel)):
            network = kind.from_pretrained(folder / part)
            if not whole:
                shutil.move(next((folder / part).glob("*.safetensors")), folder / f"{part}.was")
            network.save_pretrained(folder / part, max_shard_size="20KB", variant=variant)
        if variant is not None:
            vae = folder / "vae"
            shutil.copy(
                vae / "diffusion_pytorch_model.safetensors",
                vae / f"diffusion_pytorch_model.{variant}.safetensors",
            )

    return change


def renamed(variant: str, *parts: str) -> Change:
    """Gives the weight files of some parts the name of a variant."""

    def change(folder: Path) -> None:
        for part in parts:
            file = next((folder / part).glob("*.safetensors"))
            file.rename(file.with_suffix(f".{variant}.safetensors"))

    return change


def both_variants(folder: Path) -> None:
    """Shards of two number formats in one folder, as in DeepFloyd IF and Stable Diffusion 3."""
    sharded()(folder)
    sharded("fp16", whole=True)(folder)


def new_unet(**values: Any) -> Change:
    """A U-Net of other blocks."""

    def change(folder: Path) -> None:
        own = UNet2DConditionModel.load_config(folder / "unet")
        kept = {key: value for key, value in own.items() if not key.startswith("_")}
        shutil.rmtree(folder / "unet")
        torch.manual_seed(1)
        UNet2DConditionModel(**(kept | values)).save_pretrained(folder / "unet")

    return change


EQUAL: dict[str, tuple[str, Change, dict[str, Any]]] = {
    "shards": ("sd1", sharded(), {}),
    "shards of a variant": ("sd1", sharded("fp16"), {"variant": "fp16"}),
    "two kinds of shards": ("sd1", both_variants, {"variant": "fp16"}),
    "two kinds of shards, the plain ones": ("sd1", both_variants, {}),
    "a variant of the U-Net alone": ("sd1", renamed("non_ema", "unet"), {"variant": "non_ema"}),
    "fewer text columns than the encoder has": (
        "sd1", config("tokenizer/tokenizer_config.json", model_max_length=12), {},
    ),
    "the old default size": ("sd1", config("unet/config.json", _diffusers_version="0.6.0"), {}),
    "no word of an empty prompt": ("sdxl", config("model_index.json", "force_zeros_for_empty_prompt"), {}),
    "zeros that its pipeline does not know": (
        "sd1", config("model_index.json", force_zeros_for_empty_prompt=True), {},
    ),
    "cross attention in place of self-attention": ("sd1", new_unet(only_cross_attention=True), {}),
    "no middle": ("sd1", new_unet(mid_block_type=None), {}),
    "told the guidance": ("sdxl", new_unet(time_cond_proj_dim=32), {}),
    "blocks of attention in levels of many layers": (
        "sdxl",
        new_unet(
            layers_per_block=[1, 2], transformer_layers_per_block=[1, [2, 1]],
            reverse_transformer_layers_per_block=[[1, 2, 1], [1, 1]],
        ),
        {},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*sample_size:FutureWarning")
@pytest.mark.parametrize("name", EQUAL)
def test_sampled_as_its_pipeline_samples_it(name: str, tmp_path: Path) -> None:
    family, change, settings = EQUAL[name]
    folder = copied(family, tmp_path)
    change(folder)
    model = LocalCheckpoint(folder, **settings).load()
    noise = initial_noise(3, (model.spec.latent_channels, *model.spec.latent_size)).float()
    result = p2p.edit(model, *PROMPTS, noise=noise, steps=3, guidance=6.0)
    none = {"safety_checker": None} if family == "sd1" else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, **settings, **none)
    pipeline.set_progress_bar_config(disable=True)
    ends = {"clip_sample": False, "set_alpha_to_one": family != "sd1"}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **ends)
    options = {"num_inference_steps": 3, "guidance_scale": 6.0, "latents": noise.repeat(2, 1, 1, 1)}
    wanted = pipeline(list(PROMPTS), output_type="pt", **options).images
    assert result.images.shape == wanted.shape
    assert float((result.images - wanted).abs().max()) <= 1e-4
    assert float((result.images[0] - result.images[1]).abs().max()) >= 1e-2


@pytest.mark.parametrize(
    ("values", "sampler", "said"),
    [
        (
            {"use_karras_sigmas": True},
            EulerSampler(),
            "use_karras_sigmas, which EulerSampler does not follow",
        ),
        ({"use_karras_sigmas": True}, DPMSolverSampler(), r"does not follow; sampler\.karras=true does"),
        ({"use_karras_sigmas": True}, DPMSolverSampler(karras=True), None),
        ({"use_karras_sigmas": True}, DDIMSampler(), None),
        ({"final_sigmas_type": "sigma_min"}, DPMSolverSampler(karras=True), "asks for final_sigmas_type"),
        ({"lambda_min_clipped": -5.1}, DPMSolverSampler(), "asks for lambda_min_clipped"),
        (
            {"final_sigmas_type": "zero", "use_lu_lambdas": False, "lambda_min_clipped": float("-inf")},
            DPMSolverSampler(),
            None,
        ),
    ],
)
def test_levels_that_the_file_asks_for_and_the_sampler_does_not_take_are_named(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    values: dict[str, Any],
    sampler: Sampler,
    said: str | None,
) -> None:
    folder = copied("sd1", tmp_path)
    config("scheduler/scheduler_config.json", **values)(folder)
    model = LocalCheckpoint(folder).load()
    p2p.edit(model, *PROMPTS, steps=2, sampler=sampler, record=False)
    assert bool(caplog.records) == (said is not None)
    if said is not None:
        assert re.search(said, caplog.text)


REFUSED: dict[str, tuple[str, Change, str]] = {
    "classes": ("sd1", config("unet/config.json", num_class_embeds=10), "num_class_embeds=10"),
    "boxes": ("sd1", config("unet/config.json", attention_type="gated"), "attention_type=gated"),
    "two texts": ("sd1", config("unet/config.json", dual_cross_attention=True), "dual_cross_attention"),
    "a mask": ("sd1", config("text_encoder/config.json", use_attention_mask=True), "use_attention_mask"),
    "scaled channels": (
        "sdxl", config("vae/config.json", latents_mean=[0.1] * 4, latents_std=[0.9] * 4), "latents_mean",
    ),
    "a refiner": (
        "sdxl", config("unet/config.json", projection_class_embeddings_input_dim=16 + 5 * 8), "refiner",
    ),
    "tokenizers of two lengths": (
        "sdxl", config("tokenizer_2/tokenizer_config.json", model_max_length=12), "read 16 and 12 tokens",
    ),
    "levels of EDM": (
        "sdxl",
        config("model_index.json", scheduler=["diffusers", "EDMDPMSolverMultistepScheduler"]),
        "EDMDPMSolverMultistepScheduler.*not those of DDPM",
    ),
    "a clipped image": (
        "sdxl", config("model_index.json", scheduler=["diffusers", "DDPMScheduler"]), "clip_sample",
    ),
    "quantized weights": (
        "sd1",
        config("unet/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "quantized weights are not read",
    ),
    "a shard that is gone": (
        "sd1",
        lambda folder: (sharded()(folder), next((folder / "unet").glob("*-00001-*")).unlink())[1],
        "missing: unet/diffusion_pytorch_model-00001-of",
    ),
    "a variant alone, which nobody asked for": (
        "sd1", renamed("fp16", "unet", "text_encoder"),
        r"missing: unet/\S+\.safetensors, text_encoder/\S+; .*model.variant=fp16$",
    ),
    "an index that leads elsewhere": (
        "sd1",
        lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"conv_in.weight": "../other.safetensors"}})
        ) and None,
        "no weight_map of tensors to files beside it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_weights(name: str, tmp_path: Path) -> None:
    family, change, said = REFUSED[name]
    folder = copied(family, tmp_path)
    change(folder)
    with pytest.raises(P2PError, match=said) as caught:
        LocalCheckpoint(folder).spec()
    assert caught.value.exit_code in (2, 3)


def test_a_variant_that_no_part_has_is_refused() -> None:
    with pytest.raises(
        P2PError, match=r"missing: unet/diffusion_pytorch_model\.fp61\.safetensors, vae/.*model.variant=null$"
    ):
        LocalCheckpoint(tiny_checkpoint().path, variant="fp61").spec()


@pytest.mark.parametrize(
    "change",
    [{"_class_name": "FlowMatchEulerDiscreteScheduler"}, {"_class_name": "CMStochasticIterativeScheduler"},
     {"use_flow_sigmas": True}, {"sigma_max": 14.6}, {"timestep_type": "continuous"}],
)  # fmt: skip
def test_levels_that_are_not_of_betas_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(P2PError, match=r"scheduler_config\.json"):
        schedule_from_config({"_class_name": "EulerDiscreteScheduler", **change})


@pytest.mark.parametrize(
    "kind",
    [
        scheduling_dpmsolver_multistep.DPMSolverMultistepScheduler,
        scheduling_lcm.LCMScheduler,
        scheduling_pndm.PNDMScheduler,
    ],
)
def test_what_a_file_leaves_out_is_what_its_class_assumes(kind: Any) -> None:
    scheduler = kind()
    schedule = schedule_from_config({"_class_name": kind.__name__})
    assert torch.equal(schedule.alphas_cumprod.float(), scheduler.alphas_cumprod)
    ends = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    assert schedule.final_alpha_cumprod == ends
