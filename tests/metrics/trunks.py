"""Files of torchvision's trunks with random weights."""

from pathlib import Path

import torch
import torchvision

from p2p_bench.metrics.lpips import Net

_MODELS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


def random_trunk(net: Net, folder: Path) -> Path:
    """A file in the layout of torchvision's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        features = getattr(torchvision.models, _MODELS[net])(weights=None).features
    path = folder / f"{net}.pth"
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    return path
