"""Learned perceptual distance (LPIPS; Zhang et al. 2018) on torchvision's trunks or on the embedded one."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from p2p_bench.errors import MissingWeightsError
from p2p_bench.fields import fault_of
from p2p_bench.metrics.base import EditView, MetricColumn
from p2p_bench.metrics.embedded import WORLD, embedded_weights
from p2p_bench.metrics.lpips_network import LpipsNetwork
from p2p_bench.metrics.networks import NetworkMetric, shared_network
from p2p_bench.metrics.perceptual_trunk import WEIGHTS, load_trunk
from p2p_bench.weights import load_weights

Net = Literal["world", "alex", "vgg", "squeeze"]

_TORCHVISION_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
# What torch, pickle and safetensors raise on a file that is not what it should be.
_READ_ERRORS = (
    UnpicklingError,
    EOFError,
    SafetensorError,
    LookupError,
    TypeError,
    ValueError,
    RuntimeError,
    OSError,
)


def locate_trunk(net: str, trunk: str | Path | None) -> Path:
    """Finds the weights of a torchvision trunk without loading them.

    Args:
        net: "alex", "vgg" or "squeeze".
        trunk: State of torchvision's network, `.pth` or `.safetensors`; None looks in torch's cache.

    Raises:
        MissingWeightsError: The file is not there.
    """
    name = _TORCHVISION_FILES[net]
    path = Path(torch.hub.get_dir(), "checkpoints", name) if trunk is None else Path(trunk).expanduser()
    if not path.is_file():
        raise MissingWeightsError(
            f"LPIPS trunk {net!r}: {path} is not there; it is torchvision's {name}: put it into "
            f"{Path(torch.hub.get_dir(), 'checkpoints')} or give metrics.lpips.trunk=<path>"
        )
    return path


def load_lpips(net: str, path: Path) -> nn.Module:
    """The network of the `lpips` package, with its own linear heads and the trunk read from a file.

    A `.pth` file is read with `weights_only=True`, which builds tensors and runs no code.

    Args:
        net: "alex", "vgg" or "squeeze".
        path: State of torchvision's network.

    Raises:
        MissingWeightsError: The file does not hold that network, or the package's heads are damaged.
    """
    import lpips  # imports torchvision, which is slow

    try:
        state = _read_state(path)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            # The package passes arguments that torchvision has deprecated.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        # lpips cuts torchvision's `features` into slices and keeps the numbers of the layers.
        names = {key: f"features.{key.split('.', 1)[1]}" for key in network.net.state_dict()}
        trunk = {key: state[name] for key, name in names.items() if name in state}
        heads = torch.load(_heads_file(lpips, net), map_location="cpu", weights_only=True)
        load_weights(network.net, trunk, f"LPIPS trunk {net!r} ({path})")
        load_weights(_heads(network), heads, f"LPIPS heads {net!r} (of the package lpips)")
    except MissingWeightsError:
        raise
    except _READ_ERRORS as error:
        raise MissingWeightsError(
            f"LPIPS trunk {net!r}: {path} is not the state of torchvision's network ({error!r})"
        ) from error
    loaded: nn.Module = network.eval().requires_grad_(False)
    return loaded


def shared_lpips(net: str, trunk: str | Path | None) -> LpipsNetwork:
    """The network of a `net`, loaded once for all metrics that ask for it.

    Raises:
        MissingWeightsError: Its file is absent, or not the network's.
    """
    path = locate_lpips(net, trunk)
    file = path / WEIGHTS if net == WORLD else path
    return shared_network(
        "LPIPS",
        (file,),
        net,
        lambda: LpipsNetwork(load_trunk(path) if net == WORLD else load_lpips(net, path)),
    )


def locate_lpips(net: str, trunk: str | Path | None) -> Path:
    """The file of a published trunk, or the folder of the world's.

    Raises:
        MissingWeightsError: It is not there.
    """
    return embedded_weights("lpips", trunk, WEIGHTS) if net == WORLD else locate_trunk(net, trunk)


def lpips_files(net: str, trunk: str | Path | None) -> tuple[Path, ...]:
    """The file that holds the trunk.

    Raises:
        MissingWeightsError: It is not there.
    """
    path = locate_lpips(net, trunk)
    return (path / WEIGHTS if net == WORLD else path,)


def _heads_file(package: Any, net: str) -> Path:
    return Path(package.__file__).parent / "weights" / "v0.1" / f"{net}.pth"


def _heads(network: nn.Module) -> nn.Module:
    """The linear heads, by the names that they have in the package's file."""
    children = network.named_children()
    return nn.ModuleDict({name: part for name, part in children if name.removeprefix("lin").isdigit()})


def _read_state(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or "features.0.weight" not in state:
        raise KeyError("features.0.weight")
    return state


class Lpips(NetworkMetric[LpipsNetwork]):
    """LPIPS between the edited image and the source, at the images' own size; 0 is equal.

    Args:
        net: "alex", "vgg" or "squeeze" for the published trunks and linear heads; "world" for the trunk
            trained on the embedded world, with equal weights. Values of different nets are not comparable.
        trunk: Weights of a published trunk, see `locate_trunk`; with "world", its folder in place of
            the shipped one.
        column: Name of the column, for several nets in one run.

    Raises:
        ConfigError: `net` is unknown.
    """

    def __init__(self, net: Net = "world", trunk: str | Path | None = None, column: str = "lpips") -> None:
        if fault := fault_of("metrics.lpips.net", net, Net):
            raise fault
        self.net = net
        self.trunk = trunk
        self.column = column

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """`lpips`, or whatever it is to be called."""
        label = f"LPIPS to the source ({self.net})"
        return (
            MetricColumn(
                self.column, False, label=label, backbone=self.net, role="fidelity", range=(0, None)
            ),
        )

    def files(self) -> tuple[Path, ...]:
        """The trunk's file."""
        return lpips_files(self.net, self.trunk)

    def shared(self, device: torch.device) -> LpipsNetwork:
        """See `NetworkMetric`."""
        return shared_lpips(self.net, self.trunk)

    @torch.inference_mode()
    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        if not views:
            return []
        network = self.network(views[0].edited.device)
        values = network.distances([(view.source, view.edited) for view in views])
        return [{self.column: value} for value in values]
