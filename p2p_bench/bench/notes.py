"""What a reader of an edit should know although nothing failed."""

from collections.abc import Iterable, Sequence

from p2p_bench.controllers import Controller, NoControl
from p2p_bench.models import ModelSpec
from p2p_bench.models.vocabulary import never_seen, warn_never_seen
from p2p_bench.prompts.words import TokenizedPrompt, quoted
from p2p_bench.types import EditPair


def edit_notes(
    spec: ModelSpec,
    pair: EditPair,
    index: int,
    controller: Controller,
    prompts: Sequence[TokenizedPrompt] = (),
) -> str:
    """Notes on one edit, with semicolons; "" if there is nothing to know.

    Args:
        spec: Facts about the model.
        pair: The pair.
        index: Of its target prompt.
        controller: The variant's controller, not yet adapted to the pair.
        prompts: Its source and target prompt as they were read, where they were.
    """
    notes = []
    unknown = never_seen(spec, (pair.source_prompt, pair.target_prompts[index]))
    if unknown:
        notes.append(f"model {spec.name!r} was never trained on {quoted(unknown)}")
    for role, prompt in zip(("source", "target"), prompts, strict=False):
        for number, part in enumerate(prompt.parts):
            reader = f" by tokenizer {number + 1}" if prompt.blocks else ""
            if part.truncated:
                last = part.words[-1].text if part.words else ""
                notes.append(f"{role} prompt cut{reader} after {last!r}")
            if part.unread:
                reader = f"tokenizer {number + 1}" if prompt.blocks else "the tokenizer"
                notes.append(f"{reader} has no token for {quoted(part.unread)} of the {role} prompt")
    if pair.word_weights and controller.for_pair(pair.word_weights) == controller.for_pair({}):
        notes.append("the pair's word weights are not used by this controller")
    if _passes_blend_words_by(controller, pair):
        notes.append("the pair's blend words are not used by this controller")
    return "; ".join(notes)


def _passes_blend_words_by(controller: Controller, pair: EditPair) -> bool:
    """Whether a control makes the same edit without the words that mark the place of the pair's edit.

    Nothing is controlled by the baseline, and of the embedded world's pairs nobody wrote the words down: they
    come with the scene.
    """
    words = pair.blend_words
    if isinstance(controller, NoControl) or pair.scene is not None or words is None or not any(words):
        return False
    return controller.for_pair(pair.word_weights, words) == controller.for_pair(pair.word_weights)


def warn_of_unknown_words(spec: ModelSpec, pairs: Iterable[EditPair]) -> None:
    """Says once which words of some pairs the model was never trained on."""
    warn_never_seen(spec, (text for pair in pairs for text in (pair.source_prompt, *pair.target_prompts)))
