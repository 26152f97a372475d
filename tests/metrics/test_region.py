"""Errors by region against skimage and sums written by hand, on photographs and random masks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from p2p_bench.metrics import EditView, evaluate
from p2p_bench.metrics.base import split_reasons
from p2p_bench.metrics.region import RegionScores
from tests.metrics.photographs import photo_views


@pytest.fixture
def views() -> list[EditView]:
    return photo_views()


def test_errors_are_those_of_selected_pixels(views: list[EditView]) -> None:
    for row, view in zip(RegionScores()(views), views, strict=True):
        assert view.mask is not None
        a, b = view.source.numpy().astype(np.float64), view.edited.numpy().astype(np.float64)
        inside = view.mask.numpy() == 1
        assert row["l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
        assert row["l1_outside"] == pytest.approx(np.abs(a - b)[:, ~inside].mean(), rel=1e-12)
        assert row["l1_inside"] == pytest.approx(np.abs(a - b)[:, inside].mean(), rel=1e-12)
        mse = ((a - b) ** 2)[:, inside].mean()
        assert row["mse_inside"] == pytest.approx(mse, rel=1e-12)
        assert row["psnr_inside"] == pytest.approx(-10 * math.log10(mse), rel=1e-12)


def test_ssim_is_the_mean_of_skimages_map(views: list[EditView]) -> None:
    for row, view in zip(RegionScores()(views), views, strict=True):
        assert view.mask is not None
        _, full = structural_similarity(
            view.source.double().numpy(),
            view.edited.double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            use_sample_covariance=False,
            full=True,
        )
        mask = view.mask.numpy() == 1
        for name, region in (("ssim_inside", mask), ("ssim_outside", ~mask)):
            centres = [
                (y, x)
                for y in range(5, mask.shape[0] - 5)
                for x in range(5, mask.shape[1] - 5)
                if region[y - 5 : y + 6, x - 5 : x + 6].all()
            ]
            assert centres
            expected = np.mean([full[:, y, x] for y, x in centres])
            assert row[name] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_the_other_region_has_no_part(views: list[EditView], side: str) -> None:
    view = views[0]
    assert view.mask is not None
    other = view.mask == (0 if side == "inside" else 1)
    spoilt = replace(view, edited=torch.where(other, 1 - view.edited, view.edited))
    before, after = RegionScores()([view, spoilt])
    names = [name for name in before if name.endswith(side)]
    assert names
    assert [after[name] for name in names] == [before[name] for name in names]
    assert after["l1"] != before["l1"]


def test_undefined_values_say_why(views: list[EditView]) -> None:
    view = views[0]
    holes = torch.zeros_like(view.source[0])
    holes[::8, ::8] = 1
    masks = [None, torch.zeros_like(holes), torch.ones_like(holes), holes]
    rows = evaluate({"region": RegionScores()}, [replace(view, mask=mask) for mask in masks])
    reasons = [split_reasons(row)[1] for row in rows]
    assert [len(found) for found in reasons] == [6, 6, 6, 2]
    assert reasons[0]["l1_inside"] == "there is no mask"
    assert reasons[1] == reasons[2]
    assert reasons[1]["ssim_outside"] == "the mask is empty or covers the whole image"
    assert reasons[3] == {
        f"ssim_{side}": f"no window of 11 x 11 pixels fits {side} the mask" for side in ("inside", "outside")
    }
    assert not any(math.isnan(row["l1"]) for row in rows)
