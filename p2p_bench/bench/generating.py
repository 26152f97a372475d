"""Makes pictures of prompts, batch after batch, into a folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from p2p_bench.bench.generated import GeneratedFolder, Picture
from p2p_bench.bench.isolation import edit_apart
from p2p_bench.bench.progress import ProgressDisplay
from p2p_bench.bench.stopping import Stop
from p2p_bench.bench.task import Limits, Task
from p2p_bench.editing import EditRequest
from p2p_bench.editors import Editor
from p2p_bench.errors import P2PError
from p2p_bench.prompts.words import PromptReader


@dataclass
class Outcome:
    """What became of pictures.

    Attributes:
        made: Pictures that were made.
        errors: Why others were not, by the id of the picture.
        unet_rows: UNet rows that were spent.
    """

    made: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    unet_rows: int = 0


class TooManyFailedError(P2PError):
    """More pictures have failed than `run.max_errors` allows."""

    exit_code = 1


def source_request(picture: Picture) -> EditRequest:
    """What is asked of the editor: the source alone."""
    return EditRequest(id=picture.id, source_prompt=picture.prompt, targets=(), seed=picture.seed, alone=True)


def picture_faults(task: Task, pictures: Sequence[Picture]) -> dict[str, P2PError]:
    """Pictures that cannot be made, with the reason, by their id; no weights are read.

    Args:
        task: Model and sampler.
        pictures: The pictures.
    """
    reader: PromptReader = task.checkpoint.reader()
    spec = task.checkpoint.spec()
    faults: dict[str, P2PError] = {}
    for picture in pictures:
        try:
            request = source_request(picture)
            task.editor.check(request, False, reader, spec, task.sampler, task.truncate)
        except P2PError as error:
            faults[picture.id] = error
    return faults


def make_pictures(
    editor: Editor,
    device: torch.device,
    pictures: Sequence[Picture],
    folder: GeneratedFolder,
    *,
    batch_size: int,
    limits: Limits,
    display: ProgressDisplay,
    stop: Stop,
    tell: Callable[[Picture, str], None],
) -> Outcome:
    """Makes pictures; each is on the disk once its batch is done.

    Args:
        editor: Makes them, loaded.
        device: Where it computes.
        pictures: Those that are to be made.
        folder: Where they go.
        batch_size: Pictures at a time.
        limits: When to give up.
        display: Told how far things are.
        stop: Whether to end between two batches.
        tell: Called with each picture that failed and the reason.

    Raises:
        KeyboardInterrupt: The end was asked for, and pictures are left.
        TooManyFailedError: More have failed than `limits` allows.
    """
    outcome = Outcome()
    for start in range(0, len(pictures), batch_size):
        if stop.asked:
            raise KeyboardInterrupt
        batch = pictures[start : start + batch_size]
        requests = [source_request(one) for one in batch]
        results = edit_apart(editor, requests, device, partial(display.step, len(batch)), limits.timeout)
        for picture, result in zip(batch, results, strict=True):
            if result.error is None:
                folder.keep(picture, result.images[0], result.unet_rows)
                outcome.made += 1
                outcome.unet_rows += result.unet_rows
            else:
                reason = str(result.error)
                folder.note_error(picture, reason)
                outcome.errors[picture.id] = reason
                tell(picture, reason)
        display.batch_done(len(batch))
        if limits.max_errors is not None and len(outcome.errors) > limits.max_errors:
            raise TooManyFailedError(
                f"{len(outcome.errors)} pictures have failed, and run.max_errors is {limits.max_errors}; the "
                "same command tries them again"
            )
    return outcome


def hopeless(faults: Mapping[str, P2PError], pictures: Sequence[Picture]) -> bool:
    """Whether no picture can be made."""
    return all(picture.id in faults for picture in pictures)
