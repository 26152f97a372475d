"""What a run would compute and what that would cost, without computing it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from rich.text import Text
from rich.tree import Tree
from torch import Tensor

from p2p_bench.bench.lint import lint
from p2p_bench.bench.notes import warn_of_unknown_words
from p2p_bench.bench.open_run import Facts
from p2p_bench.bench.requests import prepared_pair
from p2p_bench.bench.task import Task
from p2p_bench.controllers import BoundController
from p2p_bench.editing.budget import batches
from p2p_bench.editing.request import PreparedRequest
from p2p_bench.editing.rows import Suited, edit_tree, suited_targets
from p2p_bench.editing.tree import Group, Stretch
from p2p_bench.errors import P2PError
from p2p_bench.inversion.base import steps_guided
from p2p_bench.models import DiffusionModel
from p2p_bench.models.conditioning import repeated
from p2p_bench.models.upscaler import Upscaler
from p2p_bench.prompts.words import PromptReader
from p2p_bench.types import EditPair

_SHOWN = 4
"""Edits that are named at a branch of the tree before the rest is only counted."""


@dataclass(frozen=True)
class Plan:
    """The work of a run, in UNet rows of sampling; inversions of images come on top.

    Attributes:
        pairs: Pairs with an edit that can be made.
        inverted: Pairs of these whose image is inverted.
        edits: Edits that can be made.
        left_out: Edits that cannot.
        rows: What is spent: edits share rows as long as they agree.
        upscaler_rows: Those of them that go through an upscaler, after sampling.
        alone: What the edits would take one by one, each with its source.
        widest: Rows through the network at once for one pair, at most.
        steps: Number of steps.
        example: The prefix tree of the first pair that has one.
    """

    pairs: int
    inverted: int
    edits: int
    left_out: int
    rows: int
    upscaler_rows: int
    alone: int
    widest: int
    steps: int
    example: Tree | None

    @property
    def saving(self) -> float:
        """Share of the rows that is not spent."""
        return 1 - self.rows / self.alone if self.alone else 0.0


def plan_run(task: Task, facts: Facts) -> Plan:
    """Plans a whole run; binds every edit but loads no weights.

    Args:
        task: What is to be measured.
        facts: What it reads.
    """
    steps = task.sampler.steps_on(facts.spec)
    if task.editor.own_variant() is not None:
        return _plan_of_own(task, facts, steps)
    reader = task.checkpoint.reader()
    warn_of_unknown_words(facts.spec, facts.pairs)
    pairs = inverted = edits = left_out = rows = enlarging = alone = widest = 0
    per_image = 0 if facts.spec.upscaler is None else facts.spec.upscaler.rows
    example: Tree | None = None
    for pair in facts.pairs:
        prepared, names = _prepared(task, facts, pair, reader, steps)
        left_out += len(task.variants) * len(pair.target_prompts) - len(names)
        if prepared is None:
            continue
        (batch,) = batches([(0, prepared)], task.sampler.rows, steps)
        edited = [suited_targets(prepared, chunk) for chunk in batch.chunks]
        trees = [edit_tree(targets, 0, steps) for targets in edited]
        pairs, inverted, edits = pairs + 1, inverted + pair.has_image, edits + len(names)
        source = prepared.rows_of(0, steps)
        for tree, bound in zip(trees, map(_edits, edited), strict=True):
            rows += source + rows_of(prepared, tree) + descent_rows(prepared, tree, bound)
        enlarged = per_image * sum(1 + len(tree[-1].groups) for tree in trees)
        rows += enlarged
        enlarging += enlarged
        own = sum(
            prepared.rows_of(step, step + 1)
            for edit in _edits(suited_targets(prepared))
            for step in range(steps)
            if edit.map_guidance(step)
        )
        alone += 2 * (own + (source + per_image) * len(names))
        widest = max(widest, batch.rows)
        example = example or _picture(pair, edit_tree(suited_targets(prepared), 0, steps), names)
    return Plan(pairs, inverted, edits, left_out, rows, enlarging, alone, widest, steps, example)


def _plan_of_own(task: Task, facts: Facts, steps: int) -> Plan:
    """The plan of an editor that controls no attention: every edit is sampled alone."""
    faults = lint(task, facts.pairs, facts.spec)
    asked = [(pair.id, len(pair.target_prompts)) for pair in facts.pairs]
    left_out, edits = len(faults), sum(count for _, count in asked) - len(faults)
    pairs = len({sample for sample, _ in asked} - {sample for sample, _, _ in faults})
    rows = edits * task.editor.own_rows(steps)
    widest = task.editor.own_rows(1) if edits else 0
    return Plan(pairs, 0, edits, left_out, rows, 0, rows, widest, steps, None)


def rows_of(prepared: PreparedRequest, tree: Sequence[Stretch]) -> int:
    """UNet rows of all rows of a tree together, its source apart."""
    return sum(prepared.rows_of(stretch.start, stretch.stop) * len(stretch.groups) for stretch in tree)


def descent_rows(prepared: PreparedRequest, tree: Sequence[Stretch], edits: Sequence[BoundController]) -> int:
    """UNet rows of descents to the source's maps, those in which the source shows them included.

    Args:
        prepared: What is edited.
        tree: The tree.
        edits: Of its targets, in their order.
    """
    count = 0
    for stretch in tree:
        for step in range(stretch.start, stretch.stop):
            rows = sum(bool(edits[group[0]].map_guidance(step)) for group in stretch.groups)
            count += (rows + bool(rows)) * prepared.rows_of(step, step + 1)
    return count


def _edits(targets: Suited) -> list[BoundController]:
    return [edit for _, edit in targets.values()]


@torch.no_grad()
def rows_per_second(model: DiffusionModel, rows: int, repeats: int = 2) -> float:
    """Speed of the network, measured on passes of so many rows after one to warm up; attention unedited."""
    shape = (rows, model.spec.latent_channels, *model.spec.latent_size)
    latents = torch.zeros(shape, dtype=model.dtype, device=model.device)
    conditioning, noisiest = repeated(model.unconditional(), rows), model.ladder(model.spec.steps)[0]
    return rows * _per_second(lambda: model.predict(latents, noisiest, conditioning).output, repeats)


@torch.no_grad()
def upscaler_rows_per_second(model: DiffusionModel, upscaler: Upscaler, repeats: int = 2) -> float:
    """Speed of an upscaler's network, measured likewise on one image at a time."""
    image = torch.zeros(1, 3, *upscaler.size, dtype=model.dtype, device=model.device)
    empty, noisiest = model.unconditional(), upscaler.ladder()[0]

    def passed() -> Tensor:
        return upscaler.predict(image, noisiest, image, empty, empty)[0].output

    return upscaler.settings.passes * _per_second(passed, repeats)


def _per_second(compute: Callable[[], Tensor], repeats: int) -> float:
    """How often a second something is computed, after a first time."""
    for count in (1, repeats):
        started = time.perf_counter()
        for _ in range(count):
            float(compute().sum())  # waits for the device
        seconds = time.perf_counter() - started
    return repeats / seconds


def _prepared(
    task: Task, facts: Facts, pair: EditPair, reader: PromptReader, steps: int
) -> tuple[PreparedRequest | None, list[str]]:
    """The edits of a pair, and the names of those that can be made; None where there is none."""
    several = len(pair.target_prompts) > 1
    edits = [(variant, index) for variant in task.variants for index in range(len(pair.target_prompts))]
    try:
        prepared = prepared_pair(pair, edits, reader, facts.spec, steps, task.truncate, task.inversion)
    except P2PError:
        return None, []
    names = [
        f"{variant.name}, target {index}" if several else variant.name
        for (variant, index), made in zip(edits, prepared.controllers, strict=True)
        if not isinstance(made, P2PError)
    ]
    if not names:
        return None, []
    request = replace(prepared.request, inversion=task.inversion if pair.has_image else None)
    guidance = facts.spec.guidance if task.sampler.guidance is None else task.sampler.guidance
    guided = steps_guided(facts.spec, steps, task.sampler.guidance_interval, request.inversion)
    return replace(prepared, request=request, guidance=guidance, guided=guided), names


def _picture(pair: EditPair, tree: Sequence[Stretch], names: Sequence[str]) -> Tree:
    """The tree of one pair; a branch is a row and the edits that it is."""
    root = Tree(Text(f"{pair.id}: {pair.source_prompt!r}, source and {len(names)} edits"))
    branches: dict[Group, Tree] = {}
    for number, stretch in enumerate(tree):
        below: dict[Group, Tree] = {}
        for group in stretch.groups:
            parent = next((kept for kept in branches if set(group) <= set(kept)), None)
            if parent == group:
                below[group] = branches[group]
                continue
            last = _end(group, tree[number:]) - 1
            steps = f"step {last}" if last == stretch.start else f"steps {stretch.start} to {last}"
            label = f"{steps}: {_listed([names[index] for index in group])}"
            below[group] = (root if parent is None else branches[parent]).add(Text(label))
        branches = below
    return root


def _end(group: Group, tree: Sequence[Stretch]) -> int:
    """Step after the last in which a group is one row."""
    return next((stretch.start for stretch in tree if group not in stretch.groups), tree[-1].stop)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    shown = "; ".join(names[:_SHOWN])
    return f"{shown}; and {rest} more" if rest > 0 else shown
