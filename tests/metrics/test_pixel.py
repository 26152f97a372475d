"""Pixel metrics against skimage and torchmetrics, and their undefined values."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn.functional import pad
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from p2p_bench.metrics import EditView, PixelScores, Reconstruction
from p2p_bench.metrics.base import split_reasons
from p2p_bench.metrics.masks import NO_MASK, UNDIVIDED
from p2p_bench.metrics.pixel import MAX_PSNR, NO_WINDOW, mse, mse_outside, psnr, psnr_from_mse, ssim
from p2p_bench.metrics.region import RegionScores


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(4, 3, 24, 31, generator=generator)
    strength = torch.tensor([0.01, 0.1, 0.3, 1.0]).view(4, 1, 1, 1)
    return a, (a + strength * torch.randn(4, 3, 24, 31, generator=generator)).clamp(0, 1)


def test_psnr_is_per_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    ours = psnr(a, b)
    for index in range(4):
        theirs = peak_signal_noise_ratio(a[index].numpy(), b[index].numpy(), data_range=1.0)
        assert ours[index].item() == pytest.approx(theirs, abs=1e-5)
    pooled = torchmetrics_psnr(b, a, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert torch.allclose(ours, pooled.double(), atol=1e-4)


def test_ssim(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    ours = ssim(a, b)
    for index in range(4):
        theirs = structural_similarity(
            a[index].double().numpy(),
            b[index].double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert ours[index].item() == pytest.approx(theirs, abs=1e-7)
    # torchmetrics pads by reflection, so it is compared on images that are padded so already.
    padded_a, padded_b = (pad(image, (5, 5, 5, 5), mode="reflect") for image in pair)
    other = torchmetrics_ssim(b, a, data_range=1.0, reduction="none")
    assert torch.allclose(ssim(padded_a, padded_b), torch.as_tensor(other).double(), atol=1e-4)


def test_ssim_needs_a_window() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))


def test_identical_images_have_a_finite_psnr(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, _ = pair
    assert psnr(a, a).tolist() == [MAX_PSNR] * 4
    one_level = torch.full_like(a, 0.5)
    assert psnr(one_level, one_level + 1 / 255)[0].item() == pytest.approx(48.13, abs=0.01)
    assert psnr_from_mse(torch.tensor([math.nan])).isnan().all()


def test_mse_outside_ignores_the_inside(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    mask = torch.zeros(4, 24, 31)
    mask[:, 5:20, 3:9] = 1
    expected = [
        np.mean((a[i].double() - b[i].double()).square().numpy()[:, mask[i].numpy() == 0]) for i in range(4)
    ]
    assert mse_outside(a, b, mask).tolist() == pytest.approx(expected, rel=1e-12)
    changed = torch.where(mask[:, None] == 1, torch.rand_like(b), b)
    assert torch.equal(mse_outside(a, changed, mask), mse_outside(a, b, mask))
    for undivided in (torch.zeros_like(mask), torch.ones_like(mask)):
        assert mse_outside(a, b, undivided).isnan().all()


def view(a: torch.Tensor, b: torch.Tensor, **options: object) -> EditView:
    return EditView(source=a, edited=b, source_prompt="a", target_prompt="b", **options)


def test_scores_of_views(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    mask = torch.zeros(24, 31)
    mask[:12] = 1
    plain, masked, full = PixelScores()(
        [view(a[1], b[1]), view(a[1], b[1], mask=mask), view(a[1], b[1], mask=torch.ones(24, 31))]
    )
    assert plain["psnr"] == psnr(a, b)[1].item()
    assert plain["ssim"] == pytest.approx(ssim(a, b)[1].item(), rel=1e-12)
    assert plain["mse"] == mse(a, b)[1].item()
    assert math.isnan(plain["mse_outside"])
    assert math.isnan(plain["psnr_outside"])
    assert math.isnan(full["mse_outside"])
    assert math.isnan(full["psnr_outside"])
    for values, reason in ((plain, NO_MASK), (full, UNDIVIDED)):
        assert split_reasons(values)[1] == {"mse_outside": reason, "psnr_outside": reason}
    assert masked["mse_outside"] == pytest.approx(mse(a[1:2, :, 12:], b[1:2, :, 12:]).item(), rel=1e-12)
    assert masked["psnr_outside"] == pytest.approx(-10 * math.log10(masked["mse_outside"]))


def test_images_under_a_window_have_all_but_ssim(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair[0][1, :, :8, :8], pair[1][1, :, :8, :8]
    mask = torch.zeros(8, 8)
    mask[:4] = 1
    (pixels,), (regions,) = PixelScores()([view(a, b, mask=mask)]), RegionScores()([view(a, b, mask=mask)])
    assert split_reasons(pixels)[1] == {"ssim": NO_WINDOW}
    assert split_reasons(regions)[1] == {"ssim_outside": NO_WINDOW, "ssim_inside": NO_WINDOW}
    assert not any(math.isnan(value) for name, value in (pixels | regions).items() if "ssim" not in name)


def test_reconstruction_is_undefined_without_a_real_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    generated, real = Reconstruction()(
        [view(a[0], b[0]), view(a[0], b[3], reconstruction=b[1], vae_reconstruction=b[0])]
    )
    assert math.isnan(generated["recon_psnr"])
    assert math.isnan(generated["vae_psnr"])
    assert real["recon_psnr"] == psnr(a[:1], b[1:2]).item()
    assert real["vae_psnr"] == psnr(a[:1], b[:1]).item()
