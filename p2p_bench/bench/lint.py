"""What is wrong with the pairs of a data set for the variants of a run, found with the tokenizer alone."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from p2p_bench.bench.rows import Key
from p2p_bench.bench.task import Variant
from p2p_bench.controllers import EditContext
from p2p_bench.controllers.binding import bind_edit, changes_itself
from p2p_bench.errors import DataError, ErrorList, P2PError, PromptError
from p2p_bench.prompts.words import TextTokenizer, TokenizedPrompt, tokenize
from p2p_bench.raster import is_file, shortened
from p2p_bench.types import EditPair

log = logging.getLogger(__name__)

_SHOWN = 10
"""Faults that are listed before the rest is only counted."""


def lint_pairs(
    pairs: Sequence[EditPair],
    variants: Sequence[Variant],
    tokenizer: TextTokenizer,
    *,
    steps: int,
    self_fraction: float,
    truncate: bool = False,
    vocabulary: Collection[str] | None = None,
) -> dict[Key, str]:
    """Every edit that cannot be made, with the reason; reads no pixel and no weights.

    Args:
        pairs: The pairs of the data set.
        variants: The variants of the run.
        tokenizer: Tokenizer of the model.
        steps: Number of denoising steps.
        self_fraction: Self-attention limit of the model, as a fraction of the latent side.
        truncate: Prompts that are too long are cut; a fault where the edit goes with what is cut off.
        vocabulary: Words that the model was trained on, if that is known, for messages.

    Returns:
        Reason by (sample, variant, target).
    """
    faults: dict[Key, str] = {}
    read = partial(tokenize, tokenizer=tokenizer, truncate=truncate, vocabulary=vocabulary)
    for pair in pairs:
        try:
            faults.update(_pair_faults(pair, variants, read, steps, self_fraction))
        except Exception as error:  # whatever the words of one pair do, the others are edited
            log.exception("pair %r cannot be checked", pair.id)
            reason = f"the pair cannot be edited ({type(error).__name__}: {error})"
            faults.update(_all_of(pair, variants, reason))
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


def _pair_faults(
    pair: EditPair,
    variants: Sequence[Variant],
    read: Callable[..., TokenizedPrompt],
    steps: int,
    self_fraction: float,
) -> Iterator[tuple[Key, str]]:
    try:
        _check_files(pair)
        source = read(pair.source_prompt, role="source prompt")
    except P2PError as error:
        yield from _all_of(pair, variants, str(error))
        return
    for index, prompt in enumerate(pair.target_prompts):
        try:
            target = read(prompt, role=f"target prompt {index}")
        except P2PError as error:
            yield from (((pair.id, variant.name, index), str(error)) for variant in variants)
            continue
        for variant in variants:
            try:
                context = EditContext(source=source, target=target, steps=steps, self_fraction=self_fraction)
                _check_edit(pair, variant, context)
            except P2PError as error:
                yield (pair.id, variant.name, index), f"variant {variant.name!r}: {error}"


def _all_of(pair: EditPair, variants: Sequence[Variant], reason: str) -> Iterator[tuple[Key, str]]:
    """The same reason for every edit of a pair."""
    for variant in variants:
        yield from (((pair.id, variant.name, index), reason) for index in range(len(pair.target_prompts)))


def _check_edit(pair: EditPair, variant: Variant, context: EditContext) -> None:
    controller = variant.controller.for_pair(pair.word_weights, pair.blend_words)
    bound = bind_edit(controller, context)
    if context.source.text != context.target.text or pair.word_weights:
        return
    if not changes_itself(bound, context):
        raise PromptError(
            f"source and target prompt are both {context.source.text!r} and nothing is weighted, so there is "
            "nothing to edit; write what the edit is about, or give the pair word_weights"
        )


def _check_files(pair: EditPair) -> None:
    for kind, path in (("image", pair.image), ("mask", pair.mask)):
        if path is not None and not is_file(path):
            raise DataError(
                f"{kind} {shortened(str(path))} is missing; put it there or correct the line of the data set"
            )
