"""What a step does to self-attention, as data that compares equal exactly where it does the same.

Three things can be done at a site: *injection*, the source's map on the target's values (s, s, t; I);
*mutual* attention, the target's queries on the source's keys and values (t, s, s; I); and the source's
*queries* and keys of the image in all attention, which is injection where the image attends to itself alone.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf

from p2p_bench.attention.sites import Site
from p2p_bench.attention.terms import PixelEdit, SiteEdit, mutual_attention, self_injection
from p2p_bench.errors import ConfigError

LEVELS = 10
"""Sizes of maps that are told apart: sides of 1, 1/2, 1/4, ... of the latent."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Layers:
    """A set of layers of a network: the union of half-open ranges, joined where they meet.

    Make it with `layer_range` and `join`, so that sets which hold the same layers of every network are equal;
    only a mixture of both kinds of ranges may be written in several ways.

    Attributes:
        indices: Ranges of the layer's number in network order, from 0.
        shares: Ranges of that number divided by the number of layers.
    """

    indices: tuple[Range, ...] = ()
    shares: tuple[Range, ...] = ()

    def has(self, site: Site) -> bool:
        """Whether a site belongs to the set."""
        share = site.layer / site.layers
        return any(start <= site.layer < stop for start, stop in self.indices) or any(
            start <= share < stop for start, stop in self.shares
        )

    def __str__(self) -> str:
        """The ranges, such as "layers 10.." or "layers from 0.625 to 1 of all"."""
        if self == EVERY_LAYER:
            return "all layers"
        parts = [
            f"layers {start:g}.." + ("" if stop == inf else f"{stop - 1:g}") for start, stop in self.indices
        ]
        parts += [f"layers from {start:g} to {stop:g} of all" for start, stop in self.shares]
        return " and ".join(parts)


NO_LAYER = Layers()
EVERY_LAYER = Layers(shares=((0.0, 1.0),))


def layer_range(start: float, stop: float, as_share: bool) -> Layers:
    """One range of layers, by share of all layers or by number."""
    return join(Layers(**{"shares" if as_share else "indices": ((start, stop),)}), NO_LAYER)


def without(a: Layers, b: Layers) -> Layers:
    """The layers of `a` that are not in `b`.

    Raises:
        ConfigError: One is given by number and the other by share, so that only a network could tell.
    """
    if NO_LAYER in (a, b):
        return a
    if b == EVERY_LAYER:
        return NO_LAYER
    if (a.indices or b.indices) and (a.shares or b.shares):
        raise ConfigError(
            f"controllers: {a} and {b} are edited in two ways; give both by number or both as shares of all"
        )
    return Layers(_cut(a.indices, b.indices), _cut(a.shares, b.shares))


def _cut(ranges: tuple[Range, ...], holes: tuple[Range, ...]) -> tuple[Range, ...]:
    for low, high in holes:
        ranges = tuple(
            part
            for start, stop in ranges
            for part in ((start, min(stop, low)), (max(start, high), stop))
            if part[0] < part[1]
        )
    return ranges


def join(a: Layers, b: Layers) -> Layers:
    """The union of two sets."""
    indices, shares = _merged(a.indices + b.indices), _merged(a.shares + b.shares)
    return EVERY_LAYER if (0.0, inf) in indices or (0.0, 1.0) in shares else Layers(indices, shares)


def _merged(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif start < stop:
            merged.append((start, stop))
    return tuple(merged)


@dataclass(frozen=True)
class LevelEdit:
    """What is done at maps of one size: mutual attention, injection or the source's queries at some layers.

    No layer is in two of the sets, but for injection at every layer, which is what is done elsewhere.
    """

    mutual: Layers = NO_LAYER
    injected: Layers = NO_LAYER
    queries: Layers = NO_LAYER


@dataclass(frozen=True)
class SelfEdit:
    """What one step does to self-attention.

    Attributes:
        levels: By number of halvings of the latent side; the last one stands for all deeper ones.
        alone: The same at the layers of a transformer in which the image attends to itself alone, whose
            queries are never the source's, as published.
    """

    levels: tuple[LevelEdit, ...] = (LevelEdit(),) * LEVELS
    alone: tuple[LevelEdit, ...] = (LevelEdit(),) * LEVELS

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: the planner of a sweep asks for it at every step."""
        return hash((self.levels, self.alone))

    def pixels(self, site: Site) -> PixelEdit:
        """What is done to pixel columns, at a site of self-attention or a joint one."""
        level = self._level(site)
        if level.queries.has(site):
            return "queries"
        return "mutual" if level.mutual.has(site) else "injected" if level.injected.has(site) else "own"

    def queries(self, site: Site) -> bool:
        """Whether queries of the image are the source's at a site, of whatever kind."""
        return self._level(site).queries.has(site)

    def _level(self, site: Site) -> LevelEdit:
        levels = self.alone if site.kind == "self" and site.place == "block" else self.levels
        return levels[min(site.level, LEVELS - 1)]

    def terms(self, site: Site) -> SiteEdit | None:
        """Terms that replace the target's self-attention at `site`, or None."""
        done = self.pixels(site)
        if done == "mutual":
            return mutual_attention()
        return self_injection() if done in ("injected", "queries") else None

    def __str__(self) -> str:
        """What is done where, in words."""
        parts: list[str] = []
        for layers in dict.fromkeys(level.injected for level in self.levels):
            if layers != NO_LAYER:
                where = "" if layers == EVERY_LAYER else f" at {layers}"
                sizes = _sizes([level.injected == layers for level in self.levels])
                parts.append(f"source's maps{where}, {sizes}")
        for layers in dict.fromkeys(level.mutual for level in self.levels):
            if layers != NO_LAYER:
                sizes = _sizes([level.mutual == layers for level in self.levels])
                parts.append(f"source's keys and values at {layers}, {sizes}")
        queries = dict.fromkeys(level.queries for level in self.levels)
        parts += [f"source's queries and keys of the image at {one}" for one in queries if one != NO_LAYER]
        return "; ".join(parts) or "not edited"


NO_SELF_EDIT = SelfEdit()


@lru_cache(maxsize=64)
def injection(fraction: float | int, layers: Layers = EVERY_LAYER) -> SelfEdit:
    """Injection at maps of at most a fraction of the latent side, at some layers."""
    sizes = [2.0**-level <= fraction for level in range(LEVELS)]
    levels = tuple(LevelEdit(injected=layers if on else NO_LAYER) for on in sizes)
    return SelfEdit(levels, levels)


def mutual(layers: Layers) -> SelfEdit:
    """Mutual attention at some layers, maps of all sizes."""
    levels = (LevelEdit(mutual=layers),) * LEVELS
    return SelfEdit(levels, levels)


def image_queries(layers: Layers) -> SelfEdit:
    """The source's queries and keys of the image at some layers, maps of all sizes."""
    return SelfEdit((LevelEdit(queries=layers),) * LEVELS)


def override(first: SelfEdit, second: SelfEdit) -> SelfEdit:
    """`second` where it edits, `first` elsewhere. Associative, with `NO_SELF_EDIT` as its unit."""
    return SelfEdit(
        tuple(map(_override, first.levels, second.levels)), tuple(map(_override, first.alone, second.alone))
    )


def _override(first: LevelEdit, second: LevelEdit) -> LevelEdit:
    if second.injected == EVERY_LAYER:
        return second
    mutual = join(without(without(first.mutual, second.queries), second.injected), second.mutual)
    queries = join(without(without(first.queries, second.mutual), second.injected), second.queries)
    injected = first.injected
    if injected != EVERY_LAYER:
        injected = join(without(without(injected, second.mutual), second.queries), second.injected)
    # One way to write it: where every layer is edited, those that are injected are "elsewhere".
    others = join(mutual, queries)
    if others == EVERY_LAYER:
        return LevelEdit(mutual, NO_LAYER, queries)
    if injected != NO_LAYER and join(injected, others) == EVERY_LAYER:
        injected = EVERY_LAYER
    return LevelEdit(mutual, injected, queries)


def _sizes(on: list[bool]) -> str:
    """The sizes of maps at levels that are on."""
    levels = [level for level, is_on in enumerate(on) if is_on]
    if len(levels) == LEVELS:
        return "all sizes"
    if levels[-1] == LEVELS - 1 and len(levels) == LEVELS - levels[0]:
        return f"up to {2.0 ** -levels[0]:g} of the latent side"
    return "at " + ", ".join(f"{2.0**-level:g}" for level in levels) + " of the latent side"
