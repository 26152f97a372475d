"""Pairs of the embedded world: the fixed ones of the demo, and as many as asked for from a seed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from p2p_bench.data.base import PairImages, take
from p2p_bench.data.images import fit_image, fit_mask
from p2p_bench.data.pairs import read_pairs
from p2p_bench.fields import AtLeast, OneOf, check_fields
from p2p_bench.resources import resource_path
from p2p_bench.types import EditPair
from p2p_bench.world.scenes import Scene, changed_mask, render
from p2p_bench.world.scenes.pairs import CATEGORIES, WorldPair, make_pairs


def load_scene(pair: EditPair, size: tuple[int, int]) -> PairImages:
    """Source, exact answer and exact mask of a pair with a rendered source.

    Args:
        pair: A pair of the world.
        size: Height and width to bring them to.

    Returns:
        Nothing for a pair that starts from noise: its scene says what is asked for, not where it lies.
        No mask and no answer where the pair names no edit.
    """
    if not pair.rendered or pair.scene is None:
        return PairImages()
    scene = Scene.from_dict(pair.scene)
    if pair.scene_edit is None:
        return PairImages(image=fit_image(render([scene]).images[0], size))
    edit = pair.scene_edit
    after = scene.with_attribute(edit["attribute"], edit["value"], edit["index"])
    image, answer = render([scene, after]).images
    mask = changed_mask(scene, after).to(torch.float32)
    return PairImages(fit_image(image, size), fit_mask(mask, size), fit_image(answer, size))


@dataclass(frozen=True)
class WorldDemo:
    """The fixed pairs of `datasets/world_pairs/demo.jsonl`, from noise and of rendered images.

    Their noise follows the run's seed.

    Attributes:
        limit: Number of pairs from the start; None takes all.
        name: Name in results.
    """

    limit: Annotated[int | None, AtLeast(1)] = None
    name: str = "world_demo"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        check_fields(self, "dataset.")

    def pairs(self) -> list[EditPair]:
        """The pairs in the manifest's order."""
        manifest = read_pairs(resource_path("datasets", "world_pairs", "demo.jsonl"))
        return take([dataclasses.replace(pair, seed=None) for pair in manifest], self.limit)

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Renders a pair; see `load_scene`."""
        return load_scene(pair, size)


@dataclass(frozen=True)
class DrawnPairs:
    """Pairs drawn from a seed.

    Attributes:
        count: Number of pairs drawn.
        seed: Seed of the drawing; the noise follows the run's seed.
        categories: Kinds of edit, in turn; None takes all.
        limit: Number of pairs from the start; None takes all.
        name: Name in results.
    """

    count: Annotated[int, AtLeast(1)] = 64
    seed: Annotated[int, AtLeast(0)] = 0
    categories: Annotated[str | Sequence[str] | None, OneOf(CATEGORIES)] = None
    limit: Annotated[int | None, AtLeast(1)] = None
    name: str = ""

    REAL: ClassVar[bool]
    """Whether sources are rendered, else they are sampled from noise."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        check_fields(self, "dataset.")

    def pairs(self) -> list[EditPair]:
        """The pairs in the order drawn."""
        return take(_drawn(self.count, self.seed, self.categories, self.REAL), self.limit)

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Renders a pair; see `load_scene`."""
        return load_scene(pair, size)


@dataclass(frozen=True)
class WorldPairs(DrawnPairs):
    """Pairs drawn from a seed whose source is sampled from noise: they have no pixels. See `DrawnPairs`."""

    name: str = "world_pairs"
    REAL = False


@dataclass(frozen=True)
class WorldReal(DrawnPairs):
    """Pairs drawn from a seed whose source is rendered, with exact answer and mask. See `DrawnPairs`."""

    name: str = "world_real"
    REAL = True


def _drawn(count: int, seed: int, categories: str | Sequence[str] | None, real: bool) -> list[EditPair]:
    chosen = CATEGORIES if categories is None else categories
    chosen = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    drawn = make_pairs(count, seed, real, chosen)
    return [_edit_pair(pair) for pair in drawn]


def _edit_pair(pair: WorldPair) -> EditPair:
    """The pair without its own seed, so that the run's seed decides the noise."""
    return EditPair(
        id=pair.id,
        source_prompt=pair.source_prompt,
        target_prompts=(pair.target_prompt,),
        category=pair.category,
        blend_words=pair.blend_words,
        word_weights=dict(pair.word_weights),
        scene=pair.scene.to_dict(),
        scene_edit=dataclasses.asdict(pair.edit),
        rendered=pair.real,
    )
