"""What the page of `p2p-bench studio` shows of an edit."""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench.editing import EditResult
from p2p_bench.editing.pictures import heatmap_image, to_uint8
from p2p_bench.prompts.changes import bare_words, changed_words


def shown(result: EditResult, image: Float[Tensor, "3 h w"] | None, plain: bool) -> dict[str, Any]:
    """Pictures, heatmaps, costs and notes, as plain values.

    Args:
        result: The edit; with `plain` its first target is the target prompt without control.
        image: The real source image, at the model's size.
        plain: See `result`.
    """
    pictures = []
    if image is not None:
        pictures.append(("image", "Your image", "at the model's size", image))
        pictures.append(("source", "Source", "inverted and sampled again", result.images[0]))
    else:
        pictures.append(("source", "Source", "its prompt and the seed's noise", result.images[0]))
    start = "start" if image is not None else "noise"
    if plain:
        pictures.append(("plain", "Target, no control", f"the same {start}, prompt alone", result.images[1]))
        told = result.controls[-1] if result.controls else ""
        pictures.append(("edit", "Edit", told, result.images[-1]))
    else:
        pictures.append(("edit", "Target", f"the same {start}, no control", result.images[-1]))
    rows = result.inversion_rows + result.source_rows + result.target_rows[-1]
    return {
        "pictures": [
            {"name": name, "title": title, "note": note, "src": data_url(picture)}
            for name, title, note, picture in pictures
        ],
        "heatmaps": list(_heatmaps(result)),
        "rows": rows,
        "plain_rows": result.unet_rows - rows,
        "recalled": result.inversion_rows if result.inversion_recalled else 0,
        "notes": list(filter(None, result.notes[-1:])),
    }


def _heatmaps(result: EditResult) -> Iterator[dict[str, Any]]:
    """A heatmap for each word of the source and of the edit, those that the edit changes first."""
    if not any(maps.kind == "cross" for maps in result.attention):
        return
    last = len(result.images) - 1
    changed = changed_words(result.prompts[0], result.prompts[last])
    for at, role, marked in ((0, "source", changed[0]), (last, "edit", changed[1])):
        if at == 0 and not result.source_told:
            continue
        words = sorted(dict.fromkeys(bare_words(result.prompts[at])), key=lambda word: word not in marked)
        for word in words:
            lit = heatmap_image(result.images[at], result.heatmap(word, at))
            yield {"word": word, "role": role, "changed": word in marked, "src": data_url(lit, palette=True)}


def data_url(image: Float[Tensor, "3 h w"], palette: bool = False) -> str:
    """A picture as it stands in a page; with `palette` its 256 main colours are enough."""
    picture = Image.fromarray(to_uint8(image))
    if palette:
        picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
