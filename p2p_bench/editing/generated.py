"""What plain generation leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench.editing.pictures import save_pictures, strip, to_uint8
from p2p_bench.editing.result import EditResult
from p2p_bench.raster import shortened

_TITLE_LETTERS = 24
"""Of a prompt above its picture."""


@dataclass(frozen=True, eq=False, repr=False)
class Generated:
    """Pictures of prompts, and what they cost. All tensors are on the CPU.

    A notebook shows them side by side.

    Attributes:
        images: float32 in [0, 1].
        latents: Final latents, same order; those before the upscaler, where there is one.
        prompts: Prompt of each picture.
        seeds: Seed of each picture.
        unet_rows: UNet rows that all of them took.
    """

    images: Float[Tensor, "n 3 h w"]
    latents: Float[Tensor, "n c k l"]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    unet_rows: int

    @classmethod
    def of(cls, results: Sequence[EditResult], seeds: Sequence[int]) -> "Generated":
        """The sources of some results, none of which has an error.

        Args:
            results: At least one.
            seeds: Seed of each.
        """
        return cls(
            images=torch.stack([one.images[0] for one in results]),
            latents=torch.stack([one.latents[0] for one in results]),
            prompts=tuple(one.prompts[0].text for one in results),
            seeds=tuple(seeds),
            unet_rows=sum(one.unet_rows for one in results),
        )

    def __repr__(self) -> str:
        """One line: what was generated, and what it cost."""
        distinct = list(dict.fromkeys(self.prompts))
        more = f" and {len(distinct) - 1} more" if len(distinct) > 1 else ""
        height, width = self.images.shape[-2:]
        return (
            f"Generated({shortened(distinct[0], most=60)!r}{more}; {len(self.images)} images of {width} x "
            f"{height}, {self.unet_rows} UNet rows)"
        )

    def _repr_png_(self) -> bytes:
        """The pictures side by side, as notebooks show them."""
        buffer = BytesIO()
        Image.fromarray(to_uint8(self._strip())).save(buffer, format="PNG")
        return buffer.getvalue()

    def _strip(self) -> Float[Tensor, "3 k l"]:
        several = len(set(self.prompts)) > 1
        titles = [
            f"{number}: {shortened(prompt, most=_TITLE_LETTERS)}" if several else f"{number}: seed {seed}"
            for number, (prompt, seed) in enumerate(zip(self.prompts, self.seeds, strict=True), start=1)
        ]
        return strip(dict(zip(titles, self.images, strict=True)))

    def pil(self) -> list[Image.Image]:
        """The pictures as PIL images."""
        return [Image.fromarray(to_uint8(image)) for image in self.images]

    def save(self, directory: Path | str) -> list[Path]:
        """Writes the pictures and the strip of them as `picture_1.png`, ..., `strip.png`.

        Args:
            directory: Made if need be; files of these names in it are replaced.

        Returns:
            The files.

        Raises:
            P2PError: The directory cannot be written.
        """
        named = {f"picture_{number}": picture for number, picture in enumerate(self.pil(), start=1)}
        named["strip"] = Image.fromarray(to_uint8(self._strip()))
        return save_pictures(directory, named)
