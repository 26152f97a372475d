"""MS-SSIM against one written in numpy and scipy, and against torchmetrics where definitions are near."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as other

from p2p_bench.metrics.base import split_reasons
from p2p_bench.metrics.ms_ssim import MsSsim, ms_ssim
from tests.metrics.photographs import damaged, photo_views, photograph


def by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """Wang's formula, one scale after another."""

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, 1.5, 1.5), radius=(0, 5, 5))[:, 5:-5, 5:-5]

    result = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mu, nu = mean(a), mean(b)
        cov, var = mean(a * b) - mu * nu, mean(a * a) - mu**2 + mean(b * b) - nu**2
        factor = (2 * cov + 0.03**2) / (var + 0.03**2)
        if scale == 4:
            factor = factor * (2 * mu * nu + 0.01**2) / (mu**2 + nu**2 + 0.01**2)
        result *= max(factor.mean(), 0.0) ** weight
        h, w = a.shape[1] // 2 * 2, a.shape[2] // 2 * 2
        a, b = (x[:, :h, :w].reshape(3, h // 2, 2, w // 2, 2).mean(axis=(2, 4)) for x in (a, b))
    return result


def test_against_numpy() -> None:
    views = photo_views(181, 208)
    rows = MsSsim()(views)
    for row, view in zip(rows, views, strict=True):
        expected = by_hand(view.source.double().numpy(), view.edited.double().numpy())
        assert row["ms_ssim"] == pytest.approx(expected, abs=1e-9)
    assert rows[0]["ms_ssim"] > rows[1]["ms_ssim"] > rows[2]["ms_ssim"]


def test_near_torchmetrics() -> None:
    """It counts the reflected border too, so only nearly the same."""
    source = photograph("coffee", 400, 400)
    edited = damaged(source, 0)
    theirs = float(other(edited[None], source[None], data_range=1.0))
    assert ms_ssim(source[None], edited[None]).item() == pytest.approx(theirs, abs=5e-3)


def test_inverse_images_are_zero_and_small_ones_undefined() -> None:
    image = photograph("chelsea")[None]
    assert ms_ssim(image, 1 - image).item() == 0
    assert ms_ssim(image, image).item() == 1
    (row,) = MsSsim()(photo_views(175, 208)[:1])
    assert split_reasons(row)[1] == {"ms_ssim": "MS-SSIM needs images of 176 pixels each way"}
    with pytest.raises(ValueError, match="at least 176 pixels"):
        ms_ssim(torch.zeros(1, 3, 175, 200), torch.zeros(1, 3, 175, 200))
