"""What is wrong with the pairs of a data set for the variants of a run, found with the tokenizer alone."""

import logging
from collections.abc import Mapping, Sequence

from p2p_bench.bench.requests import Edit, edit_request, prepared_pair
from p2p_bench.bench.rows import Key
from p2p_bench.bench.task import Task, Variant
from p2p_bench.editing.request import PreparedRequest
from p2p_bench.errors import DataError, ErrorList, P2PError
from p2p_bench.inversion import Inversion
from p2p_bench.models import ModelSpec
from p2p_bench.prompts.words import PromptReader
from p2p_bench.raster import is_file, shortened
from p2p_bench.types import EditPair

log = logging.getLogger(__name__)

_SHOWN = 10
"""Faults that are listed before the rest is only counted."""


def lint(task: Task, pairs: Sequence[EditPair], spec: ModelSpec) -> dict[Key, str]:
    """Every edit of a run that cannot be made, with the reason; reads no pixel and no weights.

    Args:
        task: What is to be measured.
        pairs: The pairs of its data set.
        spec: Facts about its model.

    Returns:
        Reason by (sample, variant, target).
    """
    if task.editor.known_variants():
        return lint_files(pairs, task.variants)
    if task.editor.own_variant() is not None:
        return _lint_own(task, pairs, spec)
    reader, steps = task.checkpoint.reader(), task.sampler.steps_on(spec)
    return lint_pairs(
        pairs, task.variants, reader, spec, steps=steps, truncate=task.truncate, inversion=task.inversion
    )


def _lint_own(task: Task, pairs: Sequence[EditPair], spec: ModelSpec) -> dict[Key, str]:
    """The edits that an editor cannot make which says itself what it needs of a pair."""
    faults: dict[Key, str] = {}
    reader = task.checkpoint.reader()
    for pair in pairs:
        edits = [(variant, index) for variant in task.variants for index in range(len(pair.target_prompts))]
        try:
            _check_files(pair)
            request = edit_request(pair, edits)
            task.editor.check(request, pair.has_image, reader, spec, task.sampler, task.truncate)
        except P2PError as error:
            faults |= {(pair.id, variant.name, index): str(error) for variant, index in edits}
    return faults


def lint_pairs(
    pairs: Sequence[EditPair],
    variants: Sequence[Variant],
    reader: PromptReader,
    spec: ModelSpec,
    *,
    steps: int,
    truncate: bool = False,
    inversion: Inversion | None = None,
) -> dict[Key, str]:
    """Every edit that cannot be made, with the reason; reads no pixel and no weights.

    Args:
        pairs: The pairs of the data set.
        variants: The variants of the run.
        reader: Reads the prompts of the model.
        spec: Facts about the model.
        steps: Number of denoising steps.
        truncate: Prompts that are too long are cut; a fault where the edit goes with what is cut off.
        inversion: See `prepared_pair`.

    Returns:
        Reason by (sample, variant, target).
    """
    faults: dict[Key, str] = {}
    for pair in pairs:
        edits = [(variant, index) for variant in variants for index in range(len(pair.target_prompts))]
        try:
            _check_files(pair)
            reasons = _reasons(prepared_pair(pair, edits, reader, spec, steps, truncate, inversion), edits)
        except P2PError as error:
            reasons = [str(error)] * len(edits)
        except Exception as error:  # whatever the words of one pair do, the others are edited
            log.exception("pair %r cannot be checked", pair.id)
            reasons = [f"the pair cannot be edited ({type(error).__name__}: {error})"] * len(edits)
        keys = [(pair.id, variant.name, index) for variant, index in edits]
        faults.update({key: reason for key, reason in zip(keys, reasons, strict=True) if reason})
    return faults


def lint_files(pairs: Sequence[EditPair], variants: Sequence[Variant]) -> dict[Key, str]:
    """Every edit whose files are missing, with the reason; what the prompts say is not asked.

    Args:
        pairs: The pairs of the data set.
        variants: The variants of the run.

    Returns:
        Reason by (sample, variant, target).
    """
    faults: dict[Key, str] = {}
    for pair in pairs:
        try:
            _check_files(pair)
        except DataError as error:
            targets = range(len(pair.target_prompts))
            faults |= {(pair.id, one.name, index): str(error) for one in variants for index in targets}
    return faults


def refuse_if_hopeless(
    pairs: Sequence[EditPair], variants: Sequence[Variant], faults: Mapping[Key, str]
) -> None:
    """Stops a run in which some variant can edit no pair at all: that is a fault of the settings.

    Raises:
        ErrorList: The faults of such variants, the first ten of them.
    """
    errors: list[P2PError] = []
    for variant in variants:
        keys = [(pair.id, variant.name, index) for pair in pairs for index in range(len(pair.target_prompts))]
        if all(key in faults for key in keys):
            errors += [DataError(f"pair {sample!r}, {faults[sample, name, i]}") for sample, name, i in keys]
    unique = list({str(error): error for error in errors}.values())
    if unique:
        rest = len(unique) - _SHOWN
        more: list[P2PError] = [DataError(f"... and {rest} more of this kind")] if rest > 0 else []
        raise ErrorList(unique[:_SHOWN] + more)


def _reasons(prepared: PreparedRequest, edits: Sequence[Edit]) -> list[str]:
    """Why each edit cannot be made; "" where it can."""
    reasons = []
    for (variant, _), prompt, made in zip(edits, prepared.prompts[1:], prepared.controllers, strict=True):
        if not isinstance(made, P2PError):  # whose text would be its whole timetable
            reasons.append("")
            continue
        unread = not prompt.ids
        reasons.append(str(made) if unread else f"variant {variant.name!r}: {made}")
    return reasons


def _check_files(pair: EditPair) -> None:
    for kind, path in (("image", pair.image), ("mask", pair.mask)):
        if path is not None and not is_file(path):
            raise DataError(
                f"{kind} {shortened(str(path))} is missing; put it there or correct the line of the data set"
            )
