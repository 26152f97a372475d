"""Values that several rooms share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from p2p_bench.fields import AtLeast, OneOf, Words, check_fields

RepairKind = Annotated[str, OneOf(("none", "words", "mask"))]
"""How pixels outside an edit are put back: not, outside the attention to words, or outside a mask."""

Feather = Annotated[float, AtLeast(0)]
"""Softness of a mask's edge: a standard deviation in pixels."""


MaskState = Literal["", "part", "empty", "full", "lost"]
"""What a mask can be: none; in part 1; nowhere; everywhere; or 1 only where the fitted image no longer is."""

MASK_NOTES: dict[str, str] = {
    "empty": "its mask is empty, so nothing may change; no value inside or outside it is defined",
    "full": "its mask covers the whole image at the model's size; no value outside it is defined",
    "lost": "its mask lies outside the part of the image that is kept (see dataset.fit); no value inside or "
    "outside it is defined",
}
"""What to tell of a mask that does not divide its image."""


@dataclass(frozen=True)
class EditPair:
    """One line of a data set: a source prompt and the prompts it is edited into.

    Attributes:
        id: Unique within the data set.
        source_prompt: Describes the source image.
        target_prompts: At least one; each is edited from the same source.
        category: Kind of edit, used to group results.
        seed: Overrides the run's seed for this pair.
        image: Absolute path of the file that holds the source image; None: the source is sampled from noise.
        mask: Absolute path of the file that holds a mask of what may change.
        blend_words: Words of the source and of the target that local blend keeps to.
        word_weights: Factor per target word for re-weighting.
        scene: The world's description of the source scene.
        scene_edit: `{"attribute", "value", "index"}` that turns the scene into its exact answer.
        rendered: The source image is the rendered scene, so the exact answer is known.
        instruction: The edit as an order, where a data set has one: what `editor=instruct` edits by. No
            controller reads it.
    """

    id: Annotated[str, Words("an id", needed=True)]
    source_prompt: str
    target_prompts: tuple[str, ...]
    category: str = ""
    seed: int | None = None
    image: Path | None = None
    mask: Path | None = None
    blend_words: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    word_weights: Mapping[str, float] = field(default_factory=dict)
    scene: Mapping[str, Any] | None = None
    scene_edit: Mapping[str, Any] | None = None
    rendered: bool = False
    instruction: str | None = None

    def __post_init__(self) -> None:
        """Checks the values, and takes a path that is given as text.

        Raises:
            ConfigError: One is of another kind.
        """
        check_fields(self, f"pair {self.id!r}: ")
        for name in ("image", "mask"):
            path = getattr(self, name)
            object.__setattr__(self, name, path if path is None else Path(path))

    @property
    def has_image(self) -> bool:
        """Whether the pair brings its own source image."""
        return self.rendered or self.image is not None
