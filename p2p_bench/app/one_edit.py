"""One edit from its settings to a request that is known to be good: what `edit` and `studio` share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import build_task, chosen_options, without_hydra
from p2p_bench.app.compose import checked_overrides, compose, composing
from p2p_bench.app.early import refuse_early
from p2p_bench.app.signatures import source_name
from p2p_bench.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from p2p_bench.bench.task import Task, Variant
    from p2p_bench.editing import EditRequest

_NO_INVERSION = "p2p_bench.inversion.none.NoInversion"
INSTRUCTED = {
    "model": "instruct_pix2pix", "editor": "instruct", "controller": "none", "inversion": "none",
    "sampler": "euler_ancestral",
}  # fmt: skip
"""What goes with an instruction, where nothing else is chosen."""


@dataclass(frozen=True)
class Asked:
    """What is to be edited.

    Attributes:
        source: Prompt of the source.
        targets: Prompts of its edits.
        instructions: What is to be changed in the image, in the place of both.
        image: A real source image.
        fit: What is done with one that has not the model's size.
    """

    source: str = ""
    targets: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    image: Path | None = None
    fit: str = "crop"


def composed_edit(overrides: Sequence[str], asked: Asked) -> DictConfig:
    """The configuration of an edit, with Hydra's node.

    Args:
        overrides: `KEY=VALUE` as typed.
        asked: What is edited.

    Raises:
        P2PError: Every fault that can be told before torch is imported.
    """
    chosen = {override.split("=", 1)[0] for override in overrides}
    usual: list[str] = []
    if asked.instructions:
        usual = [f"{group}={option}" for group, option in INSTRUCTED.items() if group not in chosen]
    elif asked.image is not None and "inversion" not in chosen:
        usual = ["inversion=ddim"]
    every = ["metrics=none", "logger=none", "tau=default", *usual, *overrides]
    config = compose(checked_overrides(every), keep_hydra=True)
    plain = without_hydra(config)
    refuse_early([plain], every, pairs=False)
    _check_image(plain, asked)
    return config


def task_of(config: DictConfig) -> "Task":
    """The task of such a configuration.

    Raises:
        P2PError: A class refuses its values.
    """
    with composing():
        return build_task(without_hydra(config), chosen_options(config.hydra))


def _check_image(config: DictConfig, asked: Asked) -> None:
    """Refuses a picture that cannot be read, and to draw from noise what was to be an edit of it."""
    if asked.image is None:
        return
    if (
        not asked.instructions
        and source_name(OmegaConf.select(config, "inversion._target_")) == _NO_INVERSION
    ):
        raise ConfigError(
            "--image: inversion=none would draw another picture from noise and leave the image alone; choose "
            "inversion=ddim, null_text or another, or leave --image out"
        )
    from p2p_bench.raster import read_picture

    read_picture(asked.image)  # here, where a fault is told before torch is imported


def source_image(task: "Task", asked: Asked) -> "tuple[Tensor | None, str]":
    """The given image at the model's size, and what was done to bring it there, in words."""
    from p2p_bench.data.images import fit_image, load_image

    if asked.image is None:
        return None, ""
    image = load_image(asked.image)
    height, width = task.checkpoint.spec().image_size
    fitted = fit_image(image, (height, width), asked.fit)  # type: ignore[arg-type]  # checked there
    if image.shape == fitted.shape:
        return fitted, ""
    done = {"crop": "its middle brought", "pad": "padded", "resize": "stretched"}[asked.fit]
    return fitted, f" ({image.shape[2]} x {image.shape[1]} pixels, {done} to {width} x {height})"


def checked_request(task: "Task", asked: Asked, image: "Tensor | None", plain: bool = False) -> "EditRequest":
    """What the editor is asked for, once it is known that it can be made; no weights are read.

    Args:
        task: Its settings.
        asked: What is edited.
        image: By `source_image`.
        plain: Puts the targets' prompts without any control before the edits.

    Raises:
        P2PError: It cannot be made.
    """
    from p2p_bench.editing import EditRequest, Target
    from p2p_bench.models.vocabulary import warn_never_seen
    from p2p_bench.sampling.sampler import warn_of_steps

    sampler = task.sampler
    spec = task.checkpoint.spec().laid_out(sampler.stepper().levels, sampler.spacing)
    controller = variant_of(task).controller
    targets = [Target(target) for target in asked.targets] if plain else []
    targets += [Target(target, controller) for target in asked.targets]
    targets += [Target("", controller, instruction=text) for text in asked.instructions]
    request = EditRequest(
        id="edit",
        source_prompt=asked.source,
        targets=tuple(targets),
        seed=task.seed,
        image=image,
        inversion=None if image is None else task.inversion,
        repair=task.repair.without_mask(),
    )
    task.editor.check(request, image is not None, task.checkpoint.reader(), spec, sampler, task.truncate)
    warn_never_seen(spec, request.prompts)
    warn_of_steps(sampler, spec)
    return request


def variant_of(task: "Task") -> "Variant":
    """The one variant to edit with.

    Raises:
        ConfigError: There are several.
    """
    variants = [variant for variant in task.variants if variant.name != "none"] or list(task.variants)
    if len(variants) > 1:
        raise ConfigError("tau.sweep: `edit` makes one variant; set tau.cross and tau.self_attn instead")
    return variants[0]
