"""How many rows go through the network at once: batches of requests, and parts of one that is larger."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

import torch

from p2p_bench.cache import Cache
from p2p_bench.editing.request import PreparedRequest
from p2p_bench.editing.rows import edit_tree, suited_targets
from p2p_bench.errors import ConfigError, P2PError
from p2p_bench.hashing import digest
from p2p_bench.models import DiffusionModel
from p2p_bench.sampling.sampler import ROWS

log = logging.getLogger(__name__)

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


_MANY = 512
"""Rows that an accelerator is tried with first."""


class RowBudget:
    """The most samples that go through the network at once; it shrinks where memory does not suffice.

    Args:
        rows: Conditional and unconditional ones counted apart.
        remember: Told the rows that are left each time there are fewer.

    Raises:
        ConfigError: `rows` is below 1.
    """

    def __init__(self, rows: int, remember: Callable[[int], object] | None = None) -> None:
        if rows < 1:
            raise ConfigError(f"max_rows: expected at least 1, got {rows}")
        self.rows = rows
        self._remember = remember

    def halve(self, used: int) -> None:
        """Takes half of what was too much.

        Args:
            used: Rows that did not fit, at most the budget unless a single edit takes more.
        """
        before, self.rows = self.rows, max(1, min(self.rows, used) // 2)
        log.warning("out of memory with up to %d rows at once; going on with %d", before, self.rows)
        if self._remember is not None:
            self._remember(self.rows)


def budget_of(model: DiffusionModel, max_rows: int | Literal["auto"], cache: Cache | None) -> RowBudget:
    """The rows that a sampler's settings say, see `Sampler.max_rows`; "auto" is looked for in the cache."""
    return found_budget(model, cache) if max_rows == "auto" else RowBudget(max_rows)


def found_budget(model: DiffusionModel, cache: Cache | None) -> RowBudget:
    """As many rows as memory takes: what was found before, or a large number that is halved until it fits.

    Args:
        model: The model; what is found is for it, its device and its number format.
        cache: Where it is remembered, until the cache is cleared; None starts anew every time.
    """
    kind = model.device.type
    device = torch.cuda.get_device_name(model.device) if kind == "cuda" else kind
    key = digest(
        {"rows of": [model.spec.checksum, model.spec.image_size, str(model.dtype), *model.roundings, device]}
    )

    def remember(rows: int) -> None:
        if cache is not None:
            cache.write(key, str(rows).encode(), {"method": "rows at once", "model": model.spec.name})

    known = b"" if cache is None else cache.read(key) or b""
    start = ROWS if kind == "cpu" else _MANY  # a processor's memory ends in other ways than an error
    return RowBudget(int(known) if known.isdigit() and int(known) else start, remember)


@dataclass(frozen=True, eq=False)
class Batch:
    """Requests of equal inversions that are sampled together.

    Attributes:
        places: Where each request stands in the call.
        members: The requests.
        rows: Samples through the network at once.
        chunks: Targets, by index, that are sampled at a time, where there is a single request: more than one
            chunk if it exceeds the budget. Each takes the source once.
        divisible: Whether a smaller budget would make it smaller: it is more than one edit at a time.
    """

    places: tuple[int, ...]
    members: tuple[PreparedRequest, ...]
    rows: int
    chunks: tuple[frozenset[int], ...] = ()
    divisible: bool = True

    @property
    def requests(self) -> list[tuple[int, PreparedRequest]]:
        """Each request with its place."""
        return list(zip(self.places, self.members, strict=True))


def batches(prepared: Sequence[tuple[int, PreparedRequest]], max_rows: int, steps: int) -> list[Batch]:
    """Groups requests of equal inversions, in order, as many as the row budget takes.

    Args:
        prepared: Requests, each with its place in the call.
        max_rows: The row budget.
        steps: Number of steps.
    """
    made: list[Batch] = []
    waiting: dict[object, Batch] = {}
    for place, one in prepared:
        key = one.request.inversion
        alone = _alone(place, one, max_rows, steps)
        before = waiting.get(key)
        if before is not None and before.rows + alone.rows <= max_rows and len(alone.chunks) <= 1:
            places, members = (*before.places, place), (*before.members, one)
            waiting[key] = Batch(places, members, before.rows + alone.rows)
            continue
        if before is not None:
            made.append(before)
        waiting[key] = alone
    return [*made, *waiting.values()]


def _alone(place: int, prepared: PreparedRequest, max_rows: int, steps: int) -> Batch:
    """A request as a batch of its own, in as many chunks as the row budget asks for."""
    passes = prepared.passes
    if prepared.request.alone:
        return Batch((place,), (prepared,), passes, divisible=False)
    leaves = _leaves(prepared, steps)
    most = max(1, min(len(leaves), max_rows // passes - 1))
    chunks = [frozenset(chain.from_iterable(part)) for part in _parts(leaves, most)]
    return Batch((place,), (prepared,), passes * (1 + most), tuple(chunks), divisible=most > 1)


def _leaves(prepared: PreparedRequest, steps: int) -> list[list[int]]:
    """The targets that are one row to the end; neighbours in the prefix tree, which share rows, in a row."""
    targets = suited_targets(prepared)
    order, tree = list(targets), edit_tree(targets, 0, steps)
    paths: list[list[int]] = [[] for _ in order]
    for stretch in tree:
        for number, group in enumerate(stretch.groups):
            for place in group:
                paths[place].append(number)
    leaves = sorted(tree[-1].groups, key=lambda group: paths[group[0]])
    return [[order[place] for place in leaf] for leaf in leaves]


def _parts(leaves: Sequence[list[int]], most: int) -> list[Sequence[list[int]]]:
    """Consecutive parts, as even as can be."""
    count = -(-len(leaves) // most)
    edges = [index * len(leaves) // count for index in range(count + 1)]
    return [leaves[start:stop] for start, stop in pairwise(edges)]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an accelerator's or the processor's memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _NO_MEMORY)


def too_large(model: str, error: RuntimeError) -> P2PError:
    """What is said where not even one edit at a time fits."""
    reason = str(error).splitlines()[0]
    return P2PError(
        f"model {model!r}: memory does not suffice for a single edit ({reason}); set model.dtype=bfloat16, "
        "take smaller images, or free memory"
    )
