"""What is wrong with the pairs of a data set for the variants of a run, found with the tokenizer alone."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from p2p_bench.bench.rows import Key
from p2p_bench.bench.task import Variant
from p2p_bench.controllers import EditContext
from p2p_bench.errors import DataError, ErrorList, P2PError
from p2p_bench.prompts.words import TextTokenizer, tokenize
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
) -> dict[Key, str]:
    """Every edit that cannot be made, with the reason; reads no pixel and no weights.

    Args:
        pairs: The pairs of the data set.
        variants: The variants of the run.
        tokenizer: Tokenizer of the model.
        steps: Number of denoising steps.
        self_fraction: Self-attention limit of the model, as a fraction of the latent side.
        truncate: Prompts that are too long are cut, so they are no fault.

    Returns:
        Reason by (sample, variant, target).
    """
    faults: dict[Key, str] = {}
    for pair in pairs:
        try:
            faults.update(_pair_faults(pair, variants, tokenizer, steps, self_fraction, truncate))
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
    tokenizer: TextTokenizer,
    steps: int,
    self_fraction: float,
    truncate: bool,
) -> Iterator[tuple[Key, str]]:
    try:
        _check_files(pair)
        source = tokenize(pair.source_prompt, tokenizer, truncate, role="source prompt")
    except P2PError as error:
        yield from _all_of(pair, variants, str(error))
        return
    for index, prompt in enumerate(pair.target_prompts):
        try:
            target = tokenize(prompt, tokenizer, truncate, role=f"target prompt {index}")
        except P2PError as error:
            yield from (((pair.id, variant.name, index), str(error)) for variant in variants)
            continue
        for variant in variants:
            try:
                context = EditContext(source=source, target=target, steps=steps, self_fraction=self_fraction)
                variant.controller.for_pair(pair.word_weights, pair.blend_words).bind(context)
            except P2PError as error:
                yield (pair.id, variant.name, index), f"variant {variant.name!r}: {error}"


def _all_of(pair: EditPair, variants: Sequence[Variant], reason: str) -> Iterator[tuple[Key, str]]:
    """The same reason for every edit of a pair."""
    for variant in variants:
        yield from (((pair.id, variant.name, index), reason) for index in range(len(pair.target_prompts)))


def _check_files(pair: EditPair) -> None:
    for kind, path in (("image", pair.image), ("mask", pair.mask)):
        if path is not None and not is_file(path):
            raise DataError(
                f"{kind} {shortened(str(path))} is missing; put it there or correct the line of the data set"
            )
