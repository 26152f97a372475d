"""Trains the whole world, stage by stage; what is done already is loaded, not repeated."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from lightning.pytorch.callbacks import Callback
from transformers import CLIPTokenizer

from p2p_bench.errors import ConfigError, nearest
from p2p_bench.metrics.oracle import OracleConfig, load_oracle
from p2p_bench.world.scenes import caption
from p2p_bench.world.training.clip import CLIPRecipe, clip_config, save_clip, train_clip
from p2p_bench.world.training.export import (
    assemble,
    assemble_flow,
    export_pipeline,
    read_manifest,
    write_manifest,
)
from p2p_bench.world.training.flow import FlowModule, FlowRecipe, train_flow
from p2p_bench.world.training.images import DATA_VERSION, TRAIN_SEEDS, training_scenes
from p2p_bench.world.training.judges import JudgeRecipe, save_judge, train_oracle, train_trunk
from p2p_bench.world.training.pairs import PairRecipe, train_pairs
from p2p_bench.world.training.readings import ReadingsRecipe, measure_errors, write_errors
from p2p_bench.world.training.runner import steps_done
from p2p_bench.world.training.sheets import SheetObserver
from p2p_bench.world.training.tokenizer import write_tokenizer
from p2p_bench.world.training.unet import UNetModule, UNetRecipe, train_unet
from p2p_bench.world.training.vae import VAERecipe, normalise_latents, train_vae

log = logging.getLogger(__name__)

TRAINED = ("vae", "unet", "clip", "lpips", "oracle_a", "oracle_b", "pairs_b", "flow")
STAGES = ("tokenizer", *TRAINED, "readings", "export")
ORACLE_A = OracleConfig()
ORACLE_B = OracleConfig(widths=(24, 72, 144), depth=2, kernel=3, residual=True)
JUDGE_LPIPS = JudgeRecipe(steps=1500, learning_rate=1.5e-3, num_images=16_000, first_seed=2_000_000)
JUDGE_A = JudgeRecipe(steps=11_500, num_images=64_000)
JUDGE_B = JudgeRecipe(first_seed=1_000_000)
# Added to a hundred times the seed of the whole training.
_SEEDS = {"tokenizer": 0, "vae": 0, "unet": 1, "oracle_a": 11, "oracle_b": 12, "lpips": 13, "pairs_b": 14}
_SEEDS |= {"clip": 21, "flow": 31}

Recipe = TypeVar("Recipe")


@dataclasses.dataclass(frozen=True)
class TokenizerRecipe:
    """How the tokenizer is learnt.

    Attributes:
        captions: how many it is learnt from.
        max_piece: most letters of a token.
    """

    captions: int = 20_000
    max_piece: int = 7


@dataclasses.dataclass(frozen=True)
class WorldRecipe:
    """All recipes; the defaults are those of the shipped weights."""

    tokenizer: TokenizerRecipe = dataclasses.field(default_factory=TokenizerRecipe)
    vae: VAERecipe = dataclasses.field(default_factory=VAERecipe)
    unet: UNetRecipe = dataclasses.field(default_factory=UNetRecipe)
    clip: CLIPRecipe = dataclasses.field(default_factory=CLIPRecipe)
    lpips: JudgeRecipe = JUDGE_LPIPS
    oracle_a: JudgeRecipe = JUDGE_A
    oracle_b: JudgeRecipe = JUDGE_B
    pairs_b: PairRecipe = dataclasses.field(default_factory=PairRecipe)
    readings: ReadingsRecipe = dataclasses.field(default_factory=ReadingsRecipe)
    flow: FlowRecipe = dataclasses.field(default_factory=FlowRecipe)


def _recipe(default: Recipe, name: str, changes: Mapping[str, Any] | None) -> Recipe:
    """`default` with some fields replaced."""
    fields = {field.name for field in dataclasses.fields(default)}  # type: ignore[arg-type]  # every recipe is a dataclass
    for key in changes or {}:
        if key not in fields:
            raise ConfigError(f"{name}: unknown setting {key!r}.{nearest(key, sorted(fields))}")
    values = {
        key: tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else v
        for key, v in (changes or {}).items()
    }
    return dataclasses.replace(default, **values)  # type: ignore[type-var]  # every recipe is a dataclass


def world_recipe(**changes: Mapping[str, Any] | None) -> WorldRecipe:
    """The shipped recipe with some settings of some stages replaced.

    Raises:
        ConfigError: for an unknown stage or setting.
    """
    default = WorldRecipe()
    names = [field.name for field in dataclasses.fields(default)]
    for name in changes:
        if name not in names:
            raise ConfigError(
                f"unknown stage {name!r}, expected one of {', '.join(names)}.{nearest(name, names)}"
            )
    return dataclasses.replace(
        default, **{name: _recipe(getattr(default, name), name, value) for name, value in changes.items()}
    )


@dataclasses.dataclass(frozen=True)
class _World:
    """Where a training works, and how."""

    recipe: WorldRecipe
    work_dir: Path
    weights_dir: Path
    device: str
    seed: int
    sheet_every: int

    def seed_of(self, stage: str) -> int:
        return self.seed * 100 + _SEEDS[stage]

    def folder(self, stage: str) -> Path:
        return self.work_dir / stage

    def tokenizer_dir(self) -> Path:
        path = self.folder("tokenizer")
        if not (path / "vocab.json").exists():
            rng = np.random.default_rng(self.seed_of("tokenizer"))
            scenes = training_scenes(self.recipe.tokenizer.captions, TRAIN_SEEDS, styled=0.2, weathered=0.2)
            write_tokenizer((caption(s, rng) for s in scenes), self.recipe.tokenizer.max_piece, path)
        return path

    def tokenizer(self) -> CLIPTokenizer:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(self.tokenizer_dir())
        return tokenizer

    def vae(self) -> AutoencoderKL:
        vae = train_vae(self.recipe.vae, self.folder("vae"), self.device, self.seed_of("vae"))
        normalise_latents(vae)
        return vae

    def observers(self, stage: str, assembled: Callable[[Any], DiffusionPipeline]) -> tuple[Callback, ...]:
        """What draws sheets of a half-trained model, if that is asked for."""
        if not self.sheet_every:
            return ()
        return (SheetObserver(assembled, self.folder(stage), self.sheet_every),)

    def shipped_vae(self) -> AutoencoderKL:
        """That in `weights_dir`: stages that start from finished weights can be run alone."""
        vae = AutoencoderKL.from_pretrained(self.weights_dir / "pipeline" / "vae", use_safetensors=True)
        vae.register_to_config(_name_or_path="")  # of this machine
        shipped: AutoencoderKL = vae.to(torch.float32).eval()
        return shipped


def _train_unet(world: _World) -> None:
    vae, tokenizer = world.vae(), world.tokenizer()

    def assembled(module: UNetModule) -> StableDiffusionPipeline:
        return assemble(vae, module.averaged_unet, module.averaged_text, tokenizer)

    arguments = (world.recipe.unet, vae, tokenizer, world.folder("unet"), world.device, world.seed_of("unet"))
    module = train_unet(*arguments, observers=world.observers("unet", assembled))
    export_pipeline(assembled(module.cpu()), world.tokenizer_dir(), world.weights_dir / "pipeline")


def _train_flow(world: _World) -> None:
    """Latents, words and judges are those of the first model, finished."""
    vae, tokenizer_dir = world.shipped_vae(), world.weights_dir / "pipeline" / "tokenizer"
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(tokenizer_dir)

    def assembled(module: FlowModule) -> StableDiffusion3Pipeline:
        return assemble_flow(vae, module.averaged, tokenizer, world.recipe.flow.shift)

    arguments = (world.recipe.flow, vae, tokenizer, world.folder("flow"), world.device, world.seed_of("flow"))
    module = train_flow(*arguments, observers=world.observers("flow", assembled))
    export_pipeline(assembled(module.cpu()), tokenizer_dir, world.weights_dir / "pipeline_flow")


def _train_clip(world: _World) -> None:
    tokenizer = world.tokenizer()
    config = clip_config(world.recipe.clip, tokenizer)
    clip = train_clip(world.recipe.clip, tokenizer, world.folder("clip"), world.device, world.seed_of("clip"))
    save_clip(clip, config, world.tokenizer_dir(), world.weights_dir / "clip")


def _train_lpips(world: _World) -> None:
    trunk = train_trunk(world.recipe.lpips, world.folder("lpips"), world.device, world.seed_of("lpips"))
    save_judge(trunk, {"widths": list(trunk.widths)}, world.weights_dir / "lpips")


def _train_oracle(world: _World, name: str, config: OracleConfig) -> None:
    recipe = getattr(world.recipe, name)
    oracle = train_oracle(config, recipe, name, world.folder(name), world.device, world.seed_of(name))
    save_judge(oracle, dataclasses.asdict(config), world.weights_dir / name)


def _train_pairs(world: _World) -> None:
    oracle, vae = load_oracle(world.weights_dir / "oracle_b"), world.shipped_vae()
    where = (world.folder("pairs_b"), world.device, world.seed_of("pairs_b"))
    reader = train_pairs(oracle, vae, world.recipe.pairs_b, "pairs_b", *where)
    save_judge(reader, dataclasses.asdict(reader.config), world.weights_dir / "oracle_b")


def _measure_readings(world: _World) -> None:
    folders = [world.weights_dir / name for name in ("oracle_a", "oracle_b")]
    oracles = [load_oracle(folder) for folder in folders]
    measured = measure_errors(oracles, world.shipped_vae(), world.recipe.readings)
    for folder, errors in zip(folders, measured, strict=True):
        write_errors(folder, errors)


def _export(world: _World) -> None:
    """What is said of stages that were trained elsewhere stays as it is."""
    here = {stage: steps_done(world.folder(stage)) for stage in TRAINED}
    trained = [stage for stage, steps in here.items() if steps]
    before = read_manifest(world.weights_dir)
    recipe = dataclasses.asdict(world.recipe)
    details: dict[str, Any] = {
        "data_version": DATA_VERSION,
        "seed": world.seed,
        "recipe": recipe,
        "steps_done": here,
        "versions": {"torch": torch.__version__, "lightning": lightning.__version__},
    }
    if before is not None and len(trained) < len(TRAINED):
        new = (*trained, *(stage for stage in recipe if stage not in before["recipe"]))
        details["recipe"] = {**before["recipe"], **{stage: recipe[stage] for stage in new}}
        details["steps_done"] = {**before["steps_done"], **{stage: here[stage] for stage in trained}}
    write_manifest(world.weights_dir, details)


def train_world(
    work_dir: Path | str,
    weights_dir: Path | str,
    stages: Sequence[str] = STAGES,
    device: str = "cpu",
    threads: int | None = None,
    seed: int = 0,
    sheet_every: int = 600,
    **recipes: Mapping[str, Any] | None,
) -> Path:
    """Trains the embedded world and writes its weights.

    A stage that was cut off goes on from its checkpoint in `work_dir`; a finished one is loaded.

    Args:
        work_dir: holds checkpoints, encoded images and sample sheets.
        weights_dir: receives pipeline/, clip/, lpips/, oracle_a/, oracle_b/ and MANIFEST.json.
        stages: which of `STAGES`, in any order; run in theirs.
        device: "cpu", "cuda" or "mps".
        threads: of torch on the CPU; None leaves them as they are.
        seed: of the whole training.
        sheet_every: steps between two sample sheets of the U-Net, 0 for none.
        **recipes: per stage, settings that differ from `WorldRecipe`.

    Returns:
        `weights_dir`.

    Raises:
        ConfigError: for an unknown stage or setting.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(
                f"unknown stage {stage!r}, expected some of {', '.join(STAGES)}.{nearest(stage, STAGES)}"
            )
    if threads is not None:
        torch.set_num_threads(threads)
    recipe = world_recipe(**recipes)
    world = _World(recipe, Path(work_dir), Path(weights_dir), device, seed, sheet_every)
    run: dict[str, Callable[[], Any]] = {
        "tokenizer": world.tokenizer_dir,
        "vae": world.vae,
        "unet": lambda: _train_unet(world),
        "clip": lambda: _train_clip(world),
        "lpips": lambda: _train_lpips(world),
        "oracle_a": lambda: _train_oracle(world, "oracle_a", ORACLE_A),
        "oracle_b": lambda: _train_oracle(world, "oracle_b", ORACLE_B),
        "pairs_b": lambda: _train_pairs(world),
        "readings": lambda: _measure_readings(world),
        "flow": lambda: _train_flow(world),
        "export": lambda: _export(world),
    }
    for stage in STAGES:
        if stage in stages:
            log.info("stage %s", stage)
            run[stage]()
    return world.weights_dir
