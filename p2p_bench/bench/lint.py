"""What is wrong with the pairs of a data set for the variants of a run, found with the tokenizer alone."""

from collections.abc import Iterator, Mapping, Sequence

from p2p_bench.bench.rows import Key
from p2p_bench.bench.task import Variant
from p2p_bench.controllers import EditContext
from p2p_bench.errors import DataError, ErrorList, P2PError
from p2p_bench.prompts.words import TextTokenizer, tokenize
from p2p_bench.types import EditPair

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
        faults.update(_pair_faults(pair, variants, tokenizer, steps, self_fraction, truncate))
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
        for variant in variants:
            yield from (
                ((pair.id, variant.name, index), str(error)) for index in range(len(pair.target_prompts))
            )
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


def _check_files(pair: EditPair) -> None:
    for kind, path in (("image", pair.image), ("mask", pair.mask)):
        if path is not None and not path.is_file():
            raise DataError(f"{kind} {path} is missing; put it there or correct the line of the data set")
