"""`p2p-bench edit`: one edit, as pictures."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import build_task, chosen_options, without_hydra
from p2p_bench.app.compose import checked_overrides, compose, composing
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.early import refuse_early
from p2p_bench.app.paths import folder_fault, user_path
from p2p_bench.app.signatures import source_name
from p2p_bench.errors import ConfigError, P2PError

if TYPE_CHECKING:
    from torch import Tensor

    from p2p_bench.bench.task import Task, Variant
    from p2p_bench.editing import EditResult

_NO_INVERSION = "p2p_bench.inversion.none.NoInversion"
_INSTRUCTED = {
    "model": "instruct_pix2pix", "editor": "instruct", "controller": "none", "inversion": "none",
    "sampler": "euler_ancestral",
}  # fmt: skip
"""What goes with an instruction, where nothing else is chosen."""


def main(arguments: list[str], debug: bool) -> int:
    """Edits one source into its targets and writes the pictures.

    Args:
        arguments: As described by `--help`.
        debug: Unused; errors are shown by the caller.

    Returns:
        The exit code.
    """
    parser = _parser()
    options, overrides = parser.parse_known_args(arguments)
    unknown = [argument for argument in overrides if argument.startswith("-")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    _check_texts(parser, options)
    chosen = {override.split("=", 1)[0] for override in overrides}
    if options.instruction:
        usual = [f"{group}={option}" for group, option in _INSTRUCTED.items() if group not in chosen]
        overrides = [*usual, *overrides]
    elif options.image is not None and "inversion" not in chosen:
        overrides = ["inversion=ddim", *overrides]
    if options.heatmaps is not None and "=" in str(options.heatmaps):
        # argparse takes what follows the option, here a KEY=VALUE, for its value
        overrides, options.heatmaps = [str(options.heatmaps), *overrides], Path()
    overrides = ["metrics=none", "logger=none", "tau=default", *overrides]
    with composing():
        config = compose(checked_overrides(overrides), keep_hydra=True)
        plain = without_hydra(config)
        refuse_early([plain], overrides, pairs=False)
        _check_image(plain, options)
        directory = user_path(config.run.dir) if config.run.dir else options.out or _new_directory()
        heatmaps = directory / "heatmaps" if options.heatmaps == Path() else options.heatmaps
        _check_folders(directory, heatmaps)
        task = build_task(plain, chosen_options(config.hydra))
    _check_editor(task, options)
    image, fitted = _image(task, options)
    result = _edit(task, options, image, _device(config))
    strip_path = _write(result, image, directory)
    if heatmaps is not None:
        _write_heatmaps(result, heatmaps)
    console = result_console()
    if image is not None:
        console.print(f"image: {options.image}{fitted}", markup=False)
    for name in ("source", "target", "instruction"):
        for text in _texts(options, name):
            console.print(f"{name}: {text}", markup=False)
    saved = result.unet_rows - result.unet_rows_spent
    recalled = f", {saved} of them saved: the image was inverted before" if saved else ""
    console.print(f"{result.unet_rows} UNet rows{recalled}", markup=False)
    for note in filter(None, result.notes):
        console.print(f"note: {note}", markup=False)
    console.print(f"pictures: {strip_path}", markup=False)
    if heatmaps is not None:
        console.print(f"attention: {heatmaps}", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="p2p-bench edit",
        usage="p2p-bench edit --source S --target T [--target T2] [--image F] [--fit HOW] [--out DIR] "
        "[--heatmaps [DIR]] [KEY=VALUE ...]\n"
        "       p2p-bench edit --instruction I --image F [--fit HOW] [--out DIR] [KEY=VALUE ...]",
        description="Edits one source, generated or given; writes source, targets, differences, heatmaps.",
        epilog="KEY=VALUE as for the benchmark, such as controller=replace tau.cross=0.6 sampler.steps=50 "
        "seed=1. With an image, inversion=ddim is used unless another is chosen. With an instruction, "
        + " ".join(f"{group}={option}" for group, option in _INSTRUCTED.items())
        + ".",
    )
    parser.add_argument("--source", help="prompt of the source image")
    parser.add_argument("--target", action="append", help="prompt of an edit; may be repeated")
    parser.add_argument(
        "--instruction",
        action="append",
        help="what is to be changed in an image, in place of both; may be repeated",
    )
    parser.add_argument(
        "--image", type=user_path, help="a real source image; without it the source is generated"
    )
    parser.add_argument(
        "--heatmaps",
        type=user_path,
        nargs="?",
        const=Path(),
        metavar="DIR",
        help="pictures of attention too: each token, the changed words over the steps (also as GIF), "
        "components of self-attention; in DIR, else in heatmaps/ beside the others",
    )
    parser.add_argument(
        "--fit",
        choices=("crop", "pad", "resize", "error"),
        default="crop",
        help="what is done with an image that has not the model's size",
    )
    parser.add_argument(
        "--out", type=user_path, help="directory of the pictures; a new one under outputs/edit/"
    )
    return parser


def _check_texts(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses texts that do not go together; leaves with a usage error."""
    prompts = {"--source": options.source, "--target": options.target}
    if options.instruction:
        if given := [name for name, value in prompts.items() if value is not None]:
            parser.error(f"--instruction takes the place of {' and '.join(given)}")
        if options.image is None:
            parser.error("--instruction changes an image; give it with --image")
    elif lacking := [name for name, value in prompts.items() if value is None]:
        parser.error(f"the following arguments are required: {', '.join(lacking)}")


def _texts(options: argparse.Namespace, name: str) -> list[str]:
    """What was given for an option, once or several times."""
    value = getattr(options, name) or []
    return [value] if isinstance(value, str) else list(value)


def _check_editor(task: "Task", options: argparse.Namespace) -> None:
    """Refuses an instruction that nothing reads, and prompts where an instruction is wanted.

    Raises:
        ConfigError: It is so; or the editor does not go with the model.
    """
    if (unfit := task.editor.refusal(task.checkpoint.spec())) is not None:
        raise unfit
    instructed = task.editor.own_variant() is not None
    if options.instruction and not instructed:
        raise ConfigError("--instruction: this editor reads none; set editor=instruct")
    if instructed and not options.instruction:
        raise ConfigError("editor: this one is told what to change; give --instruction in place of prompts")


def _check_image(config: DictConfig, options: argparse.Namespace) -> None:
    """Refuses a picture that cannot be read, and to draw from noise what was to be an edit of it."""
    if options.image is None:
        return
    if (
        not options.instruction
        and source_name(OmegaConf.select(config, "inversion._target_")) == _NO_INVERSION
    ):
        raise ConfigError(
            "--image: inversion=none would draw another picture from noise and leave the image alone; choose "
            "inversion=ddim, null_text or another, or leave --image out"
        )
    from p2p_bench.raster import read_picture

    read_picture(options.image)  # here, where a fault is told before torch is imported


def _image(task: "Task", options: argparse.Namespace) -> "tuple[Tensor | None, str]":
    """The given image at the model's size, and what was done to bring it there, in words."""
    from p2p_bench.data.images import fit_image, load_image

    if options.image is None:
        return None, ""
    image = load_image(options.image)
    height, width = task.checkpoint.spec().image_size
    fitted = fit_image(image, (height, width), options.fit)
    if image.shape == fitted.shape:
        return fitted, ""
    done = {"crop": "its middle brought", "pad": "padded", "resize": "stretched"}[options.fit]
    return fitted, f" ({image.shape[2]} x {image.shape[1]} pixels, {done} to {width} x {height})"


def _edit(task: "Task", options: argparse.Namespace, image: "Tensor | None", device: str) -> "EditResult":
    """The edit: a request that is checked before anything is loaded, and the run's editor."""
    from p2p_bench.bench.progress import ProgressDisplay
    from p2p_bench.editing import EditRequest, Record, Target
    from p2p_bench.editing.request import raise_all
    from p2p_bench.editors import Equipment
    from p2p_bench.models.vocabulary import warn_never_seen
    from p2p_bench.sampling.sampler import warn_of_steps

    status, sampler = status_console(), task.sampler
    spec = task.checkpoint.spec().laid_out(sampler.stepper().levels, sampler.spacing)
    controller = _variant(task).controller
    targets = [Target(target, controller) for target in _texts(options, "target")]
    targets += [Target("", controller, instruction=text) for text in _texts(options, "instruction")]
    request = EditRequest(
        id="edit",
        source_prompt=options.source or "",
        targets=tuple(targets),
        seed=task.seed,
        image=image,
        inversion=None if image is None else task.inversion,
        repair=task.repair.without_mask(),
    )
    task.editor.check(request, image is not None, task.checkpoint.reader(), spec, sampler, task.truncate)
    warn_never_seen(spec, request.prompts)
    warn_of_steps(sampler, spec)
    status.print(f"loading {task.editor.loads(spec)}")
    shown = tuple(range(1 + len(targets)))
    record = None if options.heatmaps is None else Record(apart=("steps",), self_images=shown)
    editor = task.editor.ready(Equipment(task.checkpoint, sampler, record, task.truncate, task.cache), device)
    with ProgressDisplay(status, 1) as display:
        (result,) = editor.edit([request], lambda step, steps: display.step(1, step, steps))
    raise_all([error for error in result.errors if error is not None])
    return result


def _variant(task: "Task") -> "Variant":
    """The one variant to edit with."""
    variants = [variant for variant in task.variants if variant.name != "none"] or list(task.variants)
    if len(variants) > 1:
        raise ConfigError("tau.sweep: `edit` makes one variant; set tau.cross and tau.self_attn instead")
    return variants[0]


def _device(config: Any) -> str:
    """The device of the trainer's accelerator."""
    from p2p_bench.models.device import device_of

    device = device_of(str(config.trainer.accelerator))
    if device in ("cpu", "cuda", "mps"):
        return device
    raise ConfigError(f"trainer.accelerator: expected auto, cpu, cuda or mps, got {device!r}")


def _new_directory() -> Path:
    return Path("outputs", "edit", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def _write(result: "EditResult", image: "Tensor | None", directory: Path) -> Path:
    """Writes every picture, the given image too, and the strip of all; the strip's path."""
    from p2p_bench.bench.pictures import difference_image, save_png
    from p2p_bench.editing.pictures import heatmap_image, strip
    from p2p_bench.prompts.changes import changed_words

    pictures = {} if image is None else {"image": image}
    if result.vae_reconstruction is not None:
        pictures["vae_reconstruction"] = result.vae_reconstruction
    if image is None or result.reconstructions is None:
        pictures["source" if image is None else "source_inverted"] = result.images[0]
    titles = {}
    heatmaps = {}
    for index in range(1, len(result.images)):
        pictures[f"target_{index}"] = result.images[index]
        pictures[f"difference_{index}"] = difference_image(result.images[index], result.images[0])
        if not result.attention:  # no maps of that size, or an editor without attention
            continue
        removed, added = changed_words(result.prompts[0], result.prompts[index])
        for at, words in ((0, removed if result.source_told else ()), (index, added)):
            for word in words:
                name = f"heatmap_{at}_{word}"
                heatmaps[name] = heatmap_image(result.images[at], result.heatmap(word, at))
                titles[name] = f"{word} in target {at}" if at else f"{word} in source"
    shown = {**pictures, **heatmaps}
    try:
        for name, picture in shown.items():
            save_png(directory / f"{_file_name(name)}.png", picture)
        save_png(
            directory / "strip.png",
            strip({titles.get(name, name.replace("_", " ")): picture for name, picture in shown.items()}),
        )
    except OSError as error:
        raise _unwritable(directory, error) from error
    return directory / "strip.png"


def _write_heatmaps(result: "EditResult", directory: Path) -> None:
    """Writes the pictures of attention.

    Raises:
        P2PError: There is none, or it cannot be written.
    """
    if not result.attention:
        raise P2PError("--heatmaps: this editor keeps no attention; leave the option out")
    from p2p_bench.bench.attention_pictures import (
        component_sheet,
        save_gif,
        step_frames,
        step_sheet,
        token_sheet,
    )
    from p2p_bench.bench.pictures import save_png

    images = range(len(result.images))
    try:
        save_png(directory / "tokens.png", token_sheet(result, images))
        save_png(directory / "self_components.png", component_sheet(result, images))
        for target in images[1:]:
            save_png(directory / f"steps_{target}.png", step_sheet(result, target))
            save_gif(directory / f"steps_{target}.gif", step_frames(result, target))
    except OSError as error:
        raise _unwritable(directory, error, attention=True) from error


def _check_folders(directory: Path, heatmaps: Path | None) -> None:
    """Refuses folders that cannot be written before any work is done for them; makes none."""
    for folder, attention in ((directory, False), (heatmaps, True)):
        if folder is None:
            continue
        if fault := folder_fault(folder):
            raise _unwritable(folder, fault, attention)


def _unwritable(directory: Path, reason: object, attention: bool = False) -> P2PError:
    what, option = ("pictures of attention", "--heatmaps") if attention else ("pictures", "--out")
    return P2PError(f"{directory}: the {what} cannot be written ({reason}); choose another with {option} DIR")


def _file_name(name: str) -> str:
    from p2p_bench.bench.pictures import file_stem

    return file_stem(name)
