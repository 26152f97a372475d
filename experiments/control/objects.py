"""Where the object of a world picture is: a small network, trained on renders, whose masks are known.

Samples have no known layout, so their masks must be read from the pixels.
"""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from p2p_bench.world.scenes import render, sample_scene

log = logging.getLogger(__name__)
_TRAINING_SEEDS, _TEST_SEEDS = 70_000_000, 79_000_000  # far from those of the world and of the pairs
_IMAGES, _STEPS, _BATCH = 8_000, 1_500, 48


class ObjectReader(nn.Module):
    """Logits of the objects' pixels; three levels with skips."""

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 96)) -> None:
        super().__init__()
        a, b, c = widths
        self.down_1, self.down_2, self.down_3 = _block(3, a, 2), _block(a, b, 2), _block(b, c, 2)
        self.up_2, self.up_1 = _block(c + b, b, 1), _block(b + a, a, 1)
        self.last = nn.Conv2d(a + 3, 1, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, h, w) of images (n, 3, h, w) in [0, 1]."""
        x = images * 2 - 1
        one = self.down_1(x)
        two = self.down_2(one)
        up = self.up_2(torch.cat([_twice(self.down_3(two)), two], 1))
        up = self.up_1(torch.cat([_twice(up), one], 1))
        return self.last(torch.cat([_twice(up), x], 1))[:, 0]

    @torch.no_grad()
    def masks(self, images: Tensor, batch: int = 64) -> Tensor:
        """Bool masks (n, h, w)."""
        return torch.cat([self(chunk) > 0 for chunk in images.split(batch)])


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def object_reader(path: Path) -> ObjectReader:
    """Loads the network from `path`, or trains it (about two minutes on one core) and saves it there."""
    torch.manual_seed(0)
    reader = ObjectReader()
    if path.exists():
        reader.load_state_dict(load_file(path))
        return reader.eval()
    log.info("training the reader of object masks")
    seeds = range(_TRAINING_SEEDS, _TRAINING_SEEDS + _IMAGES)
    scenes = [sample_scene(seed, two_objects=0.1, styled=0.1, weathered=0.1) for seed in seeds]
    chunks = [render(scenes[i : i + 256]) for i in range(0, _IMAGES, 256)]
    images = torch.cat([(chunk.images * 255).byte() for chunk in chunks])
    masks = torch.cat([chunk.object_masks.any(1) for chunk in chunks])
    optimizer = torch.optim.AdamW(reader.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, _STEPS)
    for step in range(_STEPS):
        rows = torch.randint(_IMAGES, (_BATCH,))
        batch = _disturbed(images[rows].float() / 255)
        loss = functional.binary_cross_entropy_with_logits(reader(batch), masks[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            log.info("step %d of %d, loss %.3f", step, _STEPS, loss.item())
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(reader.state_dict(), path)
    return reader.eval()


def _disturbed(images: Tensor) -> Tensor:
    """What samples have and renders have not: blur, noise, shifted colours."""
    count = len(images)
    soft = functional.avg_pool2d(images, 3, 1, 1)
    images = torch.lerp(images, soft, torch.rand(count, 1, 1, 1))
    images = images + 0.05 * torch.randn(count, 3, 1, 1) + 0.03 * torch.randn_like(images)
    return images.clamp(0, 1)


def accuracy(reader: ObjectReader, count: int = 300) -> float:
    """Mean overlap with the true masks of renders it never saw."""
    renders = render(
        [sample_scene(_TEST_SEEDS + i, two_objects=0, styled=0, weathered=0) for i in range(count)]
    )
    found = reader.masks(renders.images)
    pairs = zip(found, renders.object_masks.any(1), strict=True)
    return sum(overlap(first, second) for first, second in pairs) / count


def overlap(first: Tensor, second: Tensor) -> float:
    """Intersection over union of two masks; NaN if both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else float("nan")


def grown(mask: Tensor, pixels: int = 3) -> Tensor:
    """A mask with a margin."""
    return torch.from_numpy(ndimage.binary_dilation(mask.numpy(), iterations=pixels))
