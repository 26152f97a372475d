"""Pictures of attention: every token, over the steps, and the parts that self-attention sees."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from p2p_bench.bench.rows import write_atomically
from p2p_bench.editing import EditResult
from p2p_bench.editing.pictures import colours, heatmap_image, to_uint8
from p2p_bench.prompts.changes import bare_words, changed_words
from p2p_bench.prompts.words import TokenizedPrompt

SIDE = 160
"""Height of a cell, in pixels."""

_GAP = 8
_TITLE = 18
"""Height of a line of text."""

_COLUMNS = 9
"""Cells beside one another; more are wrapped."""

_STEPS_SHOWN = 8
_FRAME_MS, _LAST_FRAME_MS = 120, 1600

Picture = Float[Tensor, "3 h w"]


class Cell(NamedTuple):
    """A picture with a title; they need not have one size."""

    title: str
    picture: Picture


def sheet(rows: Sequence[tuple[str, Sequence[Cell]]], side: int = SIDE) -> Float[Tensor, "3 k l"]:
    """Rows of cells, each row under its heading; long rows are wrapped.

    Args:
        rows: Heading and cells of each row, at least one.
        side: Height of a cell, in pixels.
    """
    lines = [
        (heading if start == 0 else "", cells[start : start + _COLUMNS])
        for heading, cells in rows
        for start in range(0, len(cells), _COLUMNS)
    ]
    breadth = max(_breadth(cell.picture, side) for _, cells in lines for cell in cells)
    heights = [(_TITLE + _GAP if heading else 0) + _TITLE + side + _GAP for heading, _ in lines]
    columns = max(len(cells) for _, cells in lines)
    page = Image.new("RGB", (_GAP + columns * (breadth + _GAP), sum(heights) + _GAP), "white")
    draw, font, bold = ImageDraw.Draw(page), ImageFont.load_default(13), ImageFont.load_default(16)
    top = _GAP
    for (heading, cells), height in zip(lines, heights, strict=True):
        if heading:
            draw.text((_GAP, top), heading, "black", bold)
        pictures_top = top + height - side - _GAP
        for place, cell in enumerate(cells):
            left = _GAP + place * (breadth + _GAP)
            draw.text((left, pictures_top - _TITLE), _cut(cell.title, font, breadth), "#333333", font)
            shown = Image.fromarray(to_uint8(cell.picture))
            size = (_breadth(cell.picture, side), side)
            if shown.size != size:
                larger = shown.height > side
                shown = shown.resize(size, Image.Resampling.LANCZOS if larger else Image.Resampling.NEAREST)
            page.paste(shown, (left, pictures_top))
        top += height
    return torch.from_numpy(np.array(page)).permute(2, 0, 1) / 255


def token_sheet(
    result: EditResult, images: Sequence[int], side: int = SIDE, names: Sequence[str] | None = None
) -> Float[Tensor, "3 k l"]:
    """Each image, and where it attends to each token of its prompt; each map on a scale of its own.

    A title gives the token and its largest weight.

    Args:
        result: An edit with recorded attention.
        images: Images shown, 0 is the source.
        side: Height of a cell, in pixels.
        names: What the images are called; None numbers the targets.
    """
    rows = []
    for index, name in zip(images, names or map(_role, images), strict=True):
        image, maps = result.images[index], result.maps.get(index)
        cells = [Cell(name, image)]
        if maps is not None:
            for title, column in _tokens(result.prompts[index]):
                peak = float(maps[column].max())
                cells.append(Cell(f"{title}  {peak:.2f}", _overlay(image, maps[column], peak, side)))
        rows.append((f"{name}: {result.prompts[index].text}", cells))
    return sheet(rows, side)


def changed_places(result: EditResult, target: int) -> list[tuple[int, str]]:
    """(image, word) of the words that an edit removes from the source and adds to the target.

    Where the prompts are equal (re-weighting), all words of the target.
    """
    removed, added = changed_words(result.prompts[0], result.prompts[target])
    removed = removed if result.source_told else ()
    if not removed and not added:
        added = tuple(dict.fromkeys(bare_words(result.prompts[target])))
    return [(0, word) for word in removed] + [(target, word) for word in added]


def step_sheet(result: EditResult, target: int) -> Float[Tensor, "3 k l"]:
    """Where attention to the changed words lies as the steps go on; a word's maps have one scale.

    Args:
        result: An edit with attention recorded by step.
        target: The edited image.
    """
    rows = []
    for image, word in changed_places(result, target):
        maps, picture = result.heatmaps(word, image, "steps"), result.images[image]
        shown = torch.linspace(0, len(maps) - 1, min(_STEPS_SHOWN, len(maps))).round().long().tolist()
        cells = [
            Cell(f"step {step + 1} of {len(maps)}", _overlay(picture, maps[step], 1.0)) for step in shown
        ]
        rows.append(
            (f"{_role(image)}, {word}: {result.prompts[image].text}", [Cell(_role(image), picture), *cells])
        )
    return sheet(rows)


def step_frames(result: EditResult, target: int) -> Iterator[Float[Tensor, "3 k l"]]:
    """The same as an animation, a frame per step."""
    places = changed_places(result, target)
    maps = {place: result.heatmaps(place[1], place[0], "steps") for place in places}
    steps = len(next(iter(maps.values())))
    for step in range(steps):
        cells = [
            Cell(f"{_role(image)}: {word}", _overlay(result.images[image], heat[step], 1.0))
            for (image, word), heat in maps.items()
        ]
        yield sheet([(f"step {step + 1} of {steps}", cells)])


def component_sheet(result: EditResult, images: Sequence[int], count: int = 3) -> Float[Tensor, "3 k l"]:
    """Principal components of self-attention: the first three as red, green and blue, and each alone.

    Args:
        result: An edit with the self-attention of these images recorded.
        images: Images shown, 0 is the source.
        count: Number of components, at least 3.
    """
    rows = []
    for index in images:
        parts = result.self_components(index, count)
        size = (SIDE, _breadth(parts, SIDE))
        parts = interpolate(parts[None], size=size, mode="bicubic")[0].clamp(0, 1)
        cells = [Cell(_role(index), result.images[index]), Cell("components 1 to 3", parts[:3])]
        cells += [Cell(f"component {place}", colours(part)) for place, part in enumerate(parts, start=1)]
        rows.append((f"{_role(index)}: {result.prompts[index].text}", cells))
    return sheet(rows)


def save_gif(path: Path, frames: Iterator[Float[Tensor, "3 h w"]]) -> None:
    """Writes an animation that repeats; the file appears whole or not at all."""
    pages = [Image.fromarray(to_uint8(frame)).quantize(128) for frame in frames]
    times = [_FRAME_MS] * (len(pages) - 1) + [_LAST_FRAME_MS]
    buffer = BytesIO()
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=times, loop=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def _role(index: int) -> str:
    return "source" if index == 0 else f"target {index}"


def _tokens(prompt: TokenizedPrompt) -> Iterator[tuple[str, int]]:
    """Name and column of each token; a word of several tokens is numbered."""
    for word in prompt.words:
        for place, column in enumerate(word.columns, start=1):
            several = len(word.columns) > 1
            yield f"{word.bare} {place}/{len(word.columns)}" if several else word.bare, column


def _overlay(
    image: Picture, heat: Float[Tensor, "s t"], peak: float, side: int = SIDE
) -> Float[Tensor, "3 k l"]:
    """A heatmap over its picture, at the size of a cell."""
    size = (side, _breadth(image, side))
    shown = interpolate(image[None].float(), size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    return heatmap_image(shown, heat, peak)


def _breadth(picture: Float[Tensor, "_ h w"], side: int) -> int:
    """Width of a picture that is brought to a height."""
    return round(picture.shape[-1] / picture.shape[-2] * side)


def _cut(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
