"""From a pair of a data set to what is asked of an editor, and what of it cannot be asked."""

from collections.abc import Sequence
from dataclasses import replace

from p2p_bench.bench.task import Task, Variant
from p2p_bench.controllers import BoundController, EditContext
from p2p_bench.controllers.binding import changes_itself
from p2p_bench.data.base import LoadedPair
from p2p_bench.editing import EditRequest, Target
from p2p_bench.editing.request import PreparedRequest, prepare
from p2p_bench.editing.suited import check_untold
from p2p_bench.errors import P2PError, PromptError
from p2p_bench.hashing import noise_seed
from p2p_bench.inversion import Inversion
from p2p_bench.models import ModelSpec
from p2p_bench.prompts.words import PromptReader
from p2p_bench.types import EditPair

Edit = tuple[Variant, int]
"""A variant and the index of a target prompt."""


def edit_request(pair: EditPair, edits: Sequence[Edit]) -> EditRequest:
    """Edits of a pair, without its pixels.

    Args:
        pair: The pair.
        edits: At least one.
    """
    return EditRequest(
        id=pair.id,
        source_prompt=pair.source_prompt,
        targets=tuple(
            Target(
                pair.target_prompts[index],
                variant.controller.for_pair(pair.word_weights, pair.blend_words),
                variant.name,
                index,
                pair.instruction,
            )
            for variant, index in edits
        ),
    )


def loaded_request(task: Task, loaded: LoadedPair, edits: Sequence[Edit]) -> EditRequest:
    """Edits of a pair whose pixels are loaded."""
    return replace(
        edit_request(loaded.pair, edits),
        seed=sample_seed(task, loaded.pair),
        image=loaded.image,
        inversion=None if loaded.image is None else task.inversion,
        repair=task.repair.of(loaded),
    )


def sample_seed(task: Task, pair: EditPair) -> int:
    """Seed of a pair's noise: its own, else a function of the run's seed and its id."""
    return noise_seed(task.seed, pair.id) if pair.seed is None else pair.seed


def prepared_pair(
    pair: EditPair,
    edits: Sequence[Edit],
    reader: PromptReader,
    spec: ModelSpec,
    steps: int,
    truncate: bool = False,
    inversion: Inversion | None = None,
) -> PreparedRequest:
    """Edits of a pair, prepared; one that cannot be made has its error among the controllers.

    Args:
        pair: The pair.
        edits: At least one.
        reader: Reads prompts.
        spec: Facts about the model.
        steps: Number of denoising steps.
        truncate: Prompts that are too long are cut.
        inversion: How images become start latents, for what it tells of a source; None is not asked.

    Raises:
        P2PError: None of the edits can be made.
    """
    prepared = prepare(reader, spec, edit_request(pair, edits), steps, truncate=truncate)
    source = prepared.prompts[0]
    made = list(prepared.controllers)
    if inversion is not None and pair.has_image and inversion.prompts.replayed_empty:
        made = [bound if isinstance(bound, P2PError) else _untold(bound, steps) for bound in made]
    for place, (target, bound) in enumerate(zip(prepared.prompts[1:], made, strict=True)):
        meant = source.text != target.text or bool(pair.word_weights)
        if isinstance(bound, Exception) or meant:
            continue
        if not changes_itself(bound, EditContext(source, target, steps, spec.self_fraction)):
            made[place] = PromptError(
                f"source and target prompt are both {source.text!r} and nothing is weighted, so there is "
                "nothing to edit; write what the edit is about, or give the pair word_weights"
            )
    return replace(prepared, controllers=tuple(made))


def _untold(bound: BoundController, steps: int) -> BoundController | P2PError:
    """An edit of a source that is told nothing; the error of one that takes something from its words."""
    try:
        check_untold(bound, steps)
    except P2PError as error:
        return error
    return bound
