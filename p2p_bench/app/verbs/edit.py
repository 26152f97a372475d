"""`p2p-bench edit`: one edit, as pictures."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_bench.app.compose import composing
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.devices import single_device
from p2p_bench.app.one_edit import INSTRUCTED, Asked, checked_request, composed_edit, source_image, task_of
from p2p_bench.app.paths import folder_fault, user_path
from p2p_bench.errors import ConfigError, P2PError

if TYPE_CHECKING:
    from torch import Tensor

    from p2p_bench.bench.task import Task
    from p2p_bench.editing import EditResult


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
    if options.heatmaps is not None and "=" in str(options.heatmaps):
        # argparse takes what follows the option, here a KEY=VALUE, for its value
        overrides, options.heatmaps = [str(options.heatmaps), *overrides], Path()
    asked = Asked(
        source=options.source or "",
        targets=tuple(options.target or ()),
        instructions=tuple(options.instruction or ()),
        image=options.image,
        fit=options.fit,
    )
    with composing():
        config = composed_edit(overrides, asked)
        directory = user_path(config.run.dir) if config.run.dir else options.out or _new_directory()
        heatmaps = directory / "heatmaps" if options.heatmaps == Path() else options.heatmaps
        _check_folders(directory, heatmaps)
        task = task_of(config)
    _check_editor(task, asked)
    image, fitted = source_image(task, asked)
    result = _edit(task, asked, image, single_device(config), options.heatmaps is not None)
    strip_path = _write(result, image, directory)
    if heatmaps is not None:
        _write_heatmaps(result, heatmaps)
    console = result_console()
    if image is not None:
        console.print(f"image: {options.image}{fitted}", markup=False)
    told = {"source": (options.source,), "target": asked.targets, "instruction": asked.instructions}
    for name, texts in told.items():
        for text in filter(None, texts):
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
        + " ".join(f"{group}={option}" for group, option in INSTRUCTED.items())
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


def _check_editor(task: "Task", asked: Asked) -> None:
    """Refuses an instruction that nothing reads, and prompts where an instruction is wanted.

    Raises:
        ConfigError: It is so; or the editor does not go with the model.
    """
    if (unfit := task.editor.refusal(task.checkpoint.spec())) is not None:
        raise unfit
    instructed = task.editor.own_variant() is not None
    if asked.instructions and not instructed:
        raise ConfigError("--instruction: this editor reads none; set editor=instruct")
    if instructed and not asked.instructions:
        raise ConfigError("editor: this one is told what to change; give --instruction in place of prompts")


def _edit(task: "Task", asked: Asked, image: "Tensor | None", device: str, heatmaps: bool) -> "EditResult":
    """The edit: a request that is checked before anything is loaded, and the run's editor."""
    from p2p_bench.bench.progress import ProgressDisplay
    from p2p_bench.editing import Record
    from p2p_bench.editing.request import raise_all
    from p2p_bench.editors import Equipment

    status, request = status_console(), checked_request(task, asked, image)
    status.print(f"loading {task.editor.loads(task.checkpoint.spec())}")
    shown = tuple(range(len(request.prompts)))
    record = Record(apart=("steps",), self_images=shown) if heatmaps else None
    equipment = Equipment(task.checkpoint, task.sampler, record, task.truncate, task.cache)
    editor = task.editor.ready(equipment, device)
    with ProgressDisplay(status, 1) as display:
        (result,) = editor.edit([request], lambda step, steps: display.step(1, step, steps))
    raise_all([error for error in result.errors if error is not None])
    return result


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
