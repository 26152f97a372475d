"""One edit of 50 steps on the embedded model, pinned: nothing between the prompt and the pixels may drift.

Renew the pinned values after a deliberate change of the weights or the method with

    .venv/bin/python tests/test_pinned_run.py
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import p2p_bench as p2p

PINNED = Path(__file__).with_name("pinned_run.json")


def thumbnails(model: Any) -> tuple[torch.Tensor, int]:
    """The edit's images (source, swap, addition) at 8 x 8 pixels, and its cost."""
    result = p2p.edit(
        model,
        source="a red circle on grass",
        targets=["a blue circle on grass", "a red striped circle on grass"],
        controller=[p2p.Replace(cross=0.8, self_attn=0.4), p2p.Refine(cross=0.8, self_attn=0.4)],
        seed=7,
        steps=50,
        guidance=4.0,
    )
    return F.adaptive_avg_pool2d(result.images, 8), result.unet_rows


def test_fifty_steps_give_the_pinned_images(world: Any) -> None:
    images, unet_rows = thumbnails(world)
    pinned = json.loads(PINNED.read_text())
    assert unet_rows == pinned["unet_rows"] == 3 * 2 * 50
    # Other processors round otherwise; a wrong step, map or weight moves far more than this.
    torch.testing.assert_close(images, torch.tensor(pinned["images"]), atol=0.02, rtol=0)


def test_the_pinned_images_show_the_edits() -> None:
    source, swapped, refined = torch.tensor(json.loads(PINNED.read_text())["images"])
    assert (swapped - source).abs().max() > 0.2
    assert (refined - source).abs().max() > 0.05


if __name__ == "__main__":
    found, cost = thumbnails(p2p.load_model("world"))
    rounded = [[[[round(v, 4) for v in row] for row in plane] for plane in image] for image in found.tolist()]
    PINNED.write_text(json.dumps({"unet_rows": cost, "images": rounded}) + "\n")
