"""IoU of the attention to the changed words with the given mask."""

import numpy as np
import pytest
import torch

from p2p_bench.errors import ConfigError
from p2p_bench.metrics import EditView
from p2p_bench.metrics.attention import AttentionIou, attention_mask


def view(**changes: object) -> EditView:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    return EditView(image, image, "a", "b", **changes)  # type: ignore[arg-type]  # fields of the view


def left(columns: int) -> torch.Tensor:
    mask = torch.zeros(8, 8)
    mask[:, :columns] = 1
    return mask


def iou(**changes: object) -> float:
    return AttentionIou()([view(**changes)])[0]["attention_iou"]


def test_it_is_the_share_of_pixels_by_hand() -> None:
    assert iou(mask=left(4), attention=left(4)) == 1
    assert iou(mask=left(4), attention=left(2)) == 0.5
    assert iou(mask=left(4), attention=1 - left(4)) == 0
    assert iou(mask=left(4), attention=5 * left(6)) == pytest.approx(4 / 6)
    random = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    found = (random > 0.3 * random.max()).numpy()
    inside = left(3).numpy() > 0.5
    expected = np.logical_and(found, inside).sum() / np.logical_or(found, inside).sum()
    assert iou(mask=left(3), attention=random) == pytest.approx(float(expected))


def test_maps_of_another_size_are_brought_to_the_masks() -> None:
    heat = torch.tensor([[1.0, 0.0]])
    found = attention_mask(heat, (8, 8), 0.5)
    assert torch.equal(found, left(4).bool())
    assert iou(mask=left(4), attention=heat.repeat(2, 1)) > 0.6


def test_it_has_no_value_without_a_mask_or_attention() -> None:
    for changes, reason in (
        ({"attention": left(4)}, "there is no mask"),
        ({"attention": left(4), "mask": left(0)}, "empty or covers"),
        ({"attention": left(4), "mask": left(8)}, "empty or covers"),
        ({"mask": left(4)}, "no attention"),
        ({"mask": left(4), "attention": torch.zeros(4, 4)}, "no attention"),
    ):
        value = iou(**changes)
        assert np.isnan(value)
        assert reason in value.reason  # type: ignore[attr-defined]  # an `Undefined`
    with pytest.raises(ConfigError, match="expected a share"):
        AttentionIou(1.0)
