"""Each quirk of PIE-Bench's released evaluator, against torchmetrics, scipy or values found by hand."""

import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio

from p2p_bench.metrics import EditView, evaluate
from p2p_bench.metrics.base import split_reasons
from p2p_bench.metrics.clip_backbone import ClipNetwork
from p2p_bench.metrics.lpips import load_lpips
from p2p_bench.metrics.pie import as_strip, released_images, rounded, truncated
from p2p_bench.metrics.pie_clip import PieClip
from p2p_bench.metrics.pie_lpips import PieLpips
from p2p_bench.metrics.pie_pixel import PiePixels
from p2p_bench.metrics.pie_structure import PieStructure
from p2p_bench.resources import resource_path
from tests.metrics.dino import random_dino
from tests.metrics.photographs import damaged, photo_views, photograph
from tests.metrics.trunks import random_trunk


@pytest.fixture(scope="module")
def view() -> EditView:
    return photo_views()[1]


def masked(view: EditView) -> tuple[np.ndarray, np.ndarray]:
    """Source and edited image in float32, black inside the mask; the edit cut off to 8 bits."""
    assert view.mask is not None
    kept = 1 - view.mask.numpy()
    edited = (view.edited.numpy() * 255).astype(np.uint8).astype(np.float32) / 255
    return view.source.numpy() * kept, edited * kept


def tensors(view: EditView) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = masked(view)
    return torch.from_numpy(a)[None].contiguous(), torch.from_numpy(b)[None].contiguous()


def test_mse_and_psnr_are_means_over_the_whole_image(view: EditView) -> None:
    (row,) = PiePixels(jpeg=False)([view])
    a, b = tensors(view)
    assert row["pie_mse"] == pytest.approx(mean_squared_error(b, a).item(), rel=1e-5)
    assert row["pie_psnr"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0).item(), abs=1e-4)
    half = torch.zeros(16, 16)
    half[:, 4:] = 1
    flat = EditView(torch.zeros(3, 16, 16), torch.full((3, 16, 16), 51.2 / 255), "a", "b", mask=half)
    (row,) = PiePixels(jpeg=False)([flat])
    assert row["pie_mse"] == pytest.approx(0.2**2 / 4, rel=1e-6)  # not 0.2**2, the unedited pixels' own


def test_ssim_takes_windows_inside_the_image(view: EditView) -> None:
    a, b = (image.astype(np.float64) for image in masked(view))

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, 1.5, 1.5), radius=(0, 5, 5))[:, 5:-5, 5:-5]

    mu, nu = mean(a), mean(b)
    cov, var = mean(a * b) - mu * nu, mean(a * a) - mu**2 + mean(b * b) - nu**2
    similarity = (2 * mu * nu + 1e-4) * (2 * cov + 9e-4) / ((mu**2 + nu**2 + 1e-4) * (var + 9e-4))
    assert PiePixels(jpeg=False)([view])[0]["pie_ssim"] == pytest.approx(similarity.mean(), abs=1e-7)


def test_images_smaller_than_the_window_lose_their_ssim_alone() -> None:
    half = torch.zeros(10, 16)
    half[:, 4:] = 1
    small = EditView(torch.zeros(3, 10, 16), torch.full((3, 10, 16), 0.2), "a", "b", mask=half)
    (row,) = PiePixels(jpeg=False)([small])
    values, reasons = split_reasons(row)
    assert reasons == {"pie_ssim": "no window of 11 x 11 pixels fits"}
    assert values["pie_mse"] == pytest.approx(0.2**2 / 4, rel=1e-6)


def test_lpips_is_squeezenet_on_black_pixels(view: EditView, tmp_path: Path) -> None:
    path = random_trunk("squeeze", tmp_path)
    (row,) = PieLpips(path, jpeg=False)([view])
    package = load_lpips("squeeze", path)
    assert isinstance(package, lpips.LPIPS)
    a, b = tensors(view)
    with torch.no_grad():
        black = package(a * 2 - 1, b * 2 - 1).item()
        kept = 1 - view.mask
        grey = package((view.source * 2 - 1)[None] * kept, (b * 2 - 1) * kept).item()
    assert row["pie_lpips"] == pytest.approx(black, rel=1e-5)
    assert abs(grey - black) > 1e-3 * black


def test_eight_bits_are_cut_off_and_files_are_read_exactly(view: EditView) -> None:
    levels = torch.arange(256).float().view(1, 16, 16).expand(3, 16, 16) / 255
    assert torch.equal(truncated(levels), levels)
    assert torch.equal(rounded(levels), levels)
    assert (truncated(levels + 0.9 / 255) * 255).round().flatten()[:3].tolist() == [0, 1, 2]
    between = EditView(levels, (levels + 0.9 / 255).clamp(0, 1), "a", "b", mask=torch.eye(16))
    assert split_reasons(PiePixels(jpeg=False)([between])[0])[1] == {
        "pie_psnr": "the images are equal outside the mask, so their PSNR is infinite"
    }


def test_the_strips_jpeg_is_that_of_four_pictures() -> None:
    """Text, source, reconstruction and edit side by side, saved as JPEG: its last part."""
    source, text = photograph("coffee", 192, 192), photograph("chelsea", 192, 192)
    reconstruction, edited = (truncated(damaged(source, seed)) for seed in (1, 2))
    strip = torch.cat([text, source, reconstruction, edited], dim=2)
    file = BytesIO()
    Image.fromarray((strip * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "JPEG")
    last = np.array(Image.open(file))[:, -192:]
    ours = as_strip(reconstruction, edited)
    assert np.array_equal((ours * 255).round().byte().permute(1, 2, 0).numpy(), last)
    assert not torch.equal(ours, edited)
    view = EditView(source, edited, "a", "b", reconstruction=reconstruction)
    assert torch.equal(released_images(view)[1], ours)
    assert torch.equal(released_images(view, jpeg=False)[1], edited)


def test_full_and_absent_masks_have_no_value(view: EditView, tmp_path: Path) -> None:
    metrics = {"pixel": PiePixels(), "lpips": PieLpips(random_trunk("squeeze", tmp_path))}
    columns = {"pie_psnr", "pie_mse", "pie_ssim", "pie_lpips"}
    for mask, reason in (
        (torch.ones_like(view.source[0]), "the mask covers the whole image"),
        (None, "there is no mask"),
    ):
        row = evaluate(metrics, [replace(view, mask=mask)])[0]
        assert split_reasons(row)[1] == dict.fromkeys(columns, reason)
    empty = evaluate(metrics, [replace(view, mask=torch.zeros_like(view.source[0]))])[0]
    assert not any(math.isnan(empty[name]) for name in columns)


def test_structure_is_given_0_to_255_and_not_averaged(view: EditView, tmp_path: Path) -> None:
    metric = PieStructure(random_dino(tmp_path), jpeg=False)
    (row,) = metric([replace(view, mask=None)])
    network = metric.network(torch.device("cpu"))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    maps = []
    for image in (view.source, truncated(view.edited)):
        # 192 x 208 becomes 224 x 242, as torchvision rounds down.
        small = interpolate(image[None] * 255, (224, 242), mode="bilinear", align_corners=False)[0]
        with torch.inference_mode():
            keys = network.features([(small - mean) / std])[0].keys
        maps.append(torch.nn.functional.cosine_similarity(keys[:, None], keys[None], dim=-1))
    assert row["pie_structure"] == pytest.approx((maps[0] - maps[1]).square().mean().item(), rel=1e-3)
    large = replace(
        view, source=photograph("coffee", 400, 400), edited=photograph("coffee", 400, 400), mask=None
    )
    assert metric([large])[0]["pie_structure"] == 0


class FixedClip(ClipNetwork):
    """Stands for a network: remembers its inputs and gives features that are told."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.seen, self.prompts = images, [], []

    def to(self, device: torch.device) -> None:
        pass

    def image_features(self, images: list[torch.Tensor]) -> torch.Tensor:
        self.seen += images
        return self.images[: len(images)]

    def text_features(self, prompts: list[str]) -> torch.Tensor:
        self.prompts += prompts
        return torch.tensor([[1.0, 0.0]]).expand(len(prompts), 2)


def test_clip_is_clamped_and_black_outside_and_asks_for_the_right_prompts(view: EditView) -> None:
    network = FixedClip(torch.tensor([[-0.6, 0.8], [0.6, 0.8], [0.8, -0.6]]))
    metric = PieClip(jpeg=False)
    metric._network = network
    (row,) = metric([view])
    assert row == pytest.approx({"pie_clip_whole": 0, "pie_clip_source": 60, "pie_clip_edited": 80})
    assert network.prompts == ["a drawing", "a photo", "a drawing"]
    assert torch.equal(network.seen[0], truncated(view.edited))
    assert torch.equal(network.seen[1], view.source)
    assert torch.equal(network.seen[2], truncated(view.edited) * view.mask)
    reasons = [
        split_reasons(metric([replace(view, mask=mask)])[0])[1]
        for mask in (None, torch.zeros_like(view.source[0]))
    ]
    assert reasons == [{"pie_clip_edited": "there is no mask"}, {"pie_clip_edited": "the mask is empty"}]


def test_long_captions_are_cut_and_scored() -> None:
    """The world's own CLIP stands for the published one."""
    view = photo_views(64, 64)[0]
    long = replace(view, target_prompt=" ".join(["red circle on grass"] * 40))
    (row,) = PieClip("world", None, None)([long])
    assert 0 <= row["pie_clip_whole"] <= 100
    assert not split_reasons(row)[1]


def test_parity_and_corrected_columns_stand_apart() -> None:
    text = [
        resource_path("conf", "metrics", f"pie_{name}.yaml").read_text() for name in ("parity", "corrected")
    ]
    assert all("pie_" in line for line in text[0].splitlines() if "_target_" in line)
    assert not any("metrics.pie_" in line for line in text[1].splitlines() if "_target_" in line)
