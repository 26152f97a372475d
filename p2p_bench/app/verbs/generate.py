"""`p2p-bench generate`: pictures of prompts, or of the sources of a data set; nothing is edited."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from p2p_bench.app.build import build_task, chosen_options, recorded_settings, without_hydra
from p2p_bench.app.compose import checked_overrides, compose, composing
from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.devices import single_device
from p2p_bench.app.early import refuse_early
from p2p_bench.app.paths import folder_fault, user_path
from p2p_bench.errors import ConfigError, ErrorList, P2PError

if TYPE_CHECKING:
    from p2p_bench.bench.generated import GeneratedFolder, Picture
    from p2p_bench.bench.task import Task
    from p2p_bench.types import EditPair

_BASE = (
    "controller=none", "inversion=none", "editor=controlled", "metrics=none", "logger=none", "tau=default",
)  # fmt: skip
_GROUPS = ("model", "sampler", "dataset", "seed")
_KEYS = (
    "trainer.accelerator", "run.batch_size", "run.truncate", "run.timeout", "run.max_errors", "run.dir",
    "run.trust", "hydra.searchpath",
)  # fmt: skip
_SHOWN = 10
"""Failures that are told one by one; `pictures.jsonl` has all."""


@dataclass(frozen=True)
class _Wanted:
    """What is to be made.

    Attributes:
        pictures: The pictures.
        lines: By the id of a picture, the line of the pair whose source it is.
        faults: Why some cannot be made, by id.
        notes: What the user should know.
    """

    pictures: "tuple[Picture, ...]"
    lines: dict[str, str]
    faults: dict[str, P2PError]
    notes: tuple[str, ...] = ()


def main(arguments: list[str], debug: bool) -> int:
    """Generates pictures; those that are there already are not made again.

    Args:
        arguments: As described by `--help`.
        debug: Unused; errors are shown by the caller.

    Returns:
        0; 1 if some pictures could not be made.

    Raises:
        P2PError: The arguments do not go together, or nothing of it can be made.
    """
    options, overrides = _asked(arguments)
    with composing():
        config = compose(checked_overrides([*_BASE, *overrides]), keep_hydra=True)
        plain = without_hydra(config)
        refuse_early([plain], overrides, pairs=not options.prompt)
        directory = user_path(config.run.dir) if config.run.dir else options.out or _new_directory()
        if fault := folder_fault(directory):
            raise ConfigError(f"{directory}: cannot be written ({fault}); choose another with --out DIR")
        task = build_task(plain, chosen_options(config.hydra))
    device = single_device(config)
    wanted = _of_prompts(task, options) if options.prompt else _of_pairs(task, options.all, directory)
    _refuse_hopeless(wanted)
    return _generate(task, plain, device, wanted, directory, of_pairs=not options.prompt)


def _asked(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options and the settings; leaves with a usage error where they do not go together.

    Raises:
        ConfigError: A setting has no meaning here.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench generate",
        usage="p2p-bench generate --prompt P [--prompt P2] [--count N] [--out DIR] [KEY=VALUE ...]\n"
        "       p2p-bench generate [--all] [--out DIR] [dataset=OPTION] [KEY=VALUE ...]",
        description="Generates pictures, without any edit: of prompts, or of the sources of a data set, "
        "which by that becomes one of real images (pairs.jsonl beside the pictures is for dataset=jsonl). "
        "Started again with the same folder it makes what is missing.",
        epilog="A picture of a prompt is the source that p2p-bench edit generates for it with the same "
        "model=, sampler= and seed=; that of a pair is the source that a run generates. Beside these, "
        f"{', '.join(_KEYS)} may be set.",
    )
    parser.add_argument("--prompt", action="append", help="what is to be shown; may be repeated")
    parser.add_argument(
        "--count", type=int, metavar="N", help="pictures of each prompt, by seeds from seed= on; 1"
    )
    parser.add_argument(
        "--all", action="store_true", help="sources of pairs that bring an image too, in its place"
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="DIR",
        help="folder of the pictures; a new one under outputs/generate/",
    )
    options, overrides = parser.parse_known_args(arguments)
    if unknown := [text for text in overrides if text.startswith("-")]:
        parser.error(f"unknown option {unknown[0]}")
    if options.prompt:
        if options.all:
            parser.error("--all is for a data set, not for --prompt")
        if any(_group(text) == "dataset" for text in overrides):
            parser.error("--prompt takes the place of dataset=; give one of the two")
        if twice := [text for text in options.prompt if options.prompt.count(text) > 1]:
            parser.error(f"--prompt {twice[0]!r} is given twice; --count N makes several pictures of each")
    elif options.count is not None:
        parser.error("--count goes with --prompt; a pair has one source")
    options.count = 1 if options.count is None else options.count
    if options.count < 1:
        parser.error(f"--count: expected at least 1, got {options.count}")
    for text in overrides:
        if _group(text) not in _GROUPS and text.partition("=")[0].lstrip("+~") not in _KEYS:
            raise ConfigError(
                f"{text}: generate makes no edits and no scores, so it has no meaning; what may be set: "
                f"{', '.join((*_GROUPS, *_KEYS))}"
            )
    return options, overrides


def _group(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition(".")[0].partition("/")[0]


def _new_directory() -> Path:
    return Path("outputs", "generate", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def _of_prompts(task: "Task", options: argparse.Namespace) -> _Wanted:
    """The pictures of prompts.

    Raises:
        P2PError: A prompt cannot be used.
    """
    from p2p_bench.bench.generated import Picture
    from p2p_bench.bench.generating import picture_faults
    from p2p_bench.editing.request import raise_all

    pictures = tuple(
        Picture(f"{prompt} seed {seed}", prompt, seed)
        for prompt in options.prompt
        for seed in range(task.seed, task.seed + options.count)
    )
    raise_all(list(picture_faults(task, pictures).values()))
    return _Wanted(pictures, {}, {})


def _of_pairs(task: "Task", every: bool, directory: Path) -> _Wanted:
    """The sources of the data set.

    Raises:
        P2PError: It cannot be read, or has no source to generate.
    """
    from p2p_bench.bench.generated import Picture
    from p2p_bench.bench.generating import picture_faults
    from p2p_bench.bench.requests import sample_seed
    from p2p_bench.data.base import all_pairs
    from p2p_bench.data.written import pair_line

    pairs = all_pairs(task.dataset)
    chosen = [pair for pair in pairs if every or not pair.has_image]
    if not chosen:
        raise ConfigError(
            f"dataset: all of its {len(pairs)} pairs bring their own image; add --all to generate sources in "
            "the place of those"
        )
    pictures = tuple(Picture(pair.id, pair.source_prompt, sample_seed(task, pair)) for pair in chosen)
    faults, lines = picture_faults(task, pictures), {}
    root = directory.absolute().resolve()
    for pair, picture in zip(chosen, pictures, strict=True):
        try:
            lines[pair.id] = pair_line(pair, picture.file, root)
        except P2PError as error:
            faults.setdefault(pair.id, error)
    return _Wanted(pictures, lines, faults, tuple(_notes(pairs, chosen)))


def _notes(pairs: "Sequence[EditPair]", chosen: "Sequence[EditPair]") -> Iterator[str]:
    if left := len(pairs) - len(chosen):
        yield f"{left} of {len(pairs)} pairs bring their own image and are left out; --all takes them too"
    if masked := sum(pair.mask is not None or pair.rendered for pair in chosen):
        yield f"masks and exact answers of {masked} pairs are of their own images, not of these: left out"


def _refuse_hopeless(wanted: _Wanted) -> None:
    """Stops where nothing can be made: that is a fault of the settings or the data."""
    if any(picture.id not in wanted.faults for picture in wanted.pictures):
        return
    unique = list({str(fault): fault for fault in wanted.faults.values()}.values())
    more = [P2PError(f"... and {len(unique) - _SHOWN} more")] if len(unique) > _SHOWN else []
    raise ErrorList([*unique[:_SHOWN], *more])


def _generate(
    task: "Task", config: DictConfig, device: str, wanted: _Wanted, directory: Path, of_pairs: bool
) -> int:
    """Makes what is missing and says what came of it; the exit code."""
    from p2p_bench.bench.generated import PAIRS, opened_folder
    from p2p_bench.bench.makers import differences, maker_of

    status, maker = status_console(), maker_of(task)
    for note in wanted.notes:
        status.print(f"note: {note}", markup=False)
    with opened_folder(directory, _identity(task, config, device, of_pairs), maker) as folder:
        there = {picture.id for picture in wanted.pictures if folder.is_there(picture)}
        missing = [one for one in wanted.pictures if one.id not in there and one.id not in wanted.faults]
        if folder.others and missing:
            said = f"pictures that are there were made with {differences(folder.others, maker)}"
            status.print(said, markup=False, style="yellow")
        with _pairs_at_the_end(folder, wanted):
            made, failed, rows = _make(task, config, device, wanted, missing, folder)
    console = result_console()
    counts = [f"{made} made", *([f"{len(there)} were there"] if there else [])]
    counts += [f"{failed} failed"] if failed else []
    console.print(f"pictures: {directory / 'images'} ({', '.join(counts)}; {rows:,} UNet rows)", markup=False)
    if wanted.lines and (directory / PAIRS).exists():
        console.print(f"pairs: dataset=jsonl dataset.path={directory / PAIRS}", markup=False)
    return 1 if failed else 0


def _identity(task: "Task", config: DictConfig, device: str, of_pairs: bool) -> dict[str, Any]:
    """What a folder's pictures have in common; the seed of a picture of a prompt is its own."""
    recorded = recorded_settings(config)
    settings = {key: recorded[key] for key in ("model", "sampler")}
    settings["run"] = {"truncate": task.truncate}
    if of_pairs:
        pairs = {key: value for key, value in recorded["dataset"].items() if key != "limit"}
        settings |= {"dataset": pairs, "seed": task.seed}
    checksum = task.checkpoint.spec().checksum
    return {
        "what": "sources of a data set" if of_pairs else "prompts",
        "settings": {"of": "pairs" if of_pairs else "prompts", **settings},
        "checksums": {"model": checksum} if checksum else {},
        "device": device,
    }


@contextmanager
def _pairs_at_the_end(folder: "GeneratedFolder", wanted: _Wanted) -> Iterator[None]:
    """Writes the pairs whose picture is there, whatever ends the making."""
    try:
        yield
    finally:
        lines = [(one, wanted.lines[one.id]) for one in wanted.pictures if one.id in wanted.lines]
        folder.write_pairs([line for picture, line in lines if folder.is_there(picture)])


def _make(
    task: "Task",
    config: DictConfig,
    device: str,
    wanted: _Wanted,
    missing: "Sequence[Picture]",
    folder: "GeneratedFolder",
) -> tuple[int, int, int]:
    """How many pictures were made and failed, and the UNet rows that they took."""
    import torch

    from p2p_bench.bench.generating import make_pictures
    from p2p_bench.bench.progress import ProgressDisplay
    from p2p_bench.bench.stopping import Stop, stopping
    from p2p_bench.bench.task import Limits
    from p2p_bench.editors import Equipment
    from p2p_bench.models.vocabulary import warn_never_seen
    from p2p_bench.sampling.sampler import warn_of_steps

    status, told = status_console(), 0

    def tell(picture: "Picture", reason: str) -> None:
        nonlocal told
        told += 1
        if told <= _SHOWN:
            status.print(f"error: {picture.id!r}: {reason}", markup=False, style="red")

    for picture in wanted.pictures:
        if picture.id in wanted.faults:
            folder.note_error(picture, str(wanted.faults[picture.id]))
            tell(picture, str(wanted.faults[picture.id]))
    if not missing:
        return 0, told, 0
    spec = task.checkpoint.spec()
    warn_never_seen(spec, [picture.prompt for picture in missing])
    warn_of_steps(task.sampler, spec)
    status.print(f"loading {task.editor.loads(spec)}", markup=False)
    editor = task.editor.ready(Equipment(task.checkpoint, task.sampler, truncate=task.truncate), device)
    stop = Stop(lambda: status.print("the batch in hand is finished first; Ctrl-C again ends at once"))
    with stopping(stop), ProgressDisplay(status, len(missing), "generating", "pictures") as display:
        outcome = make_pictures(
            editor,
            torch.device(device),
            missing,
            folder,
            batch_size=config.run.batch_size,
            limits=Limits(config.run.timeout, config.run.max_errors),
            display=display,
            stop=stop,
            tell=tell,
        )
    if told > _SHOWN:
        status.print(f"... and {told - _SHOWN} more, see pictures.jsonl", style="red")
    return outcome.made, told, outcome.unet_rows
