"""Networks that several metrics share: each is loaded once, and each image goes through it once."""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from p2p_bench.metrics.base import LOADING

T = TypeVar("T")
N = TypeVar("N")

_LOADED: "WeakValueDictionary[Any, Any]" = WeakValueDictionary()


def shared_network(kind: str, files: Sequence[Path], settings: str, load: Callable[[], N]) -> N:
    """A network that stays loaded as long as a metric holds it; the same for all that ask for the same files.

    Args:
        kind: What it is, such as "CLIP".
        files: What decides it, its weights first; where one has changed since, it is another network.
        settings: Whatever else decides what it computes.
        load: Loads it.
    """
    states = tuple((str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    key = (kind, settings, states)
    with LOADING:
        network = _LOADED.get(key)
        if network is None:
            network = _LOADED[key] = load()
        found: N = network
        return found


class NetworkMetric(ABC, Generic[N]):
    """A metric on one network, which is loaded once and moves to where images are."""

    _network: N | None = None

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """The network's files, looked for and not loaded.

        Raises:
            MissingWeightsError: One is not there; names it, where it was looked for and how to get it.
            ConfigError: The metric's settings name none.
        """

    @abstractmethod
    def shared(self, device: torch.device) -> N:
        """The network, the same for all metrics that ask for its files.

        Raises:
            MissingWeightsError: A file is absent, or not the network's.
        """

    def check(self) -> None:
        """Looks for the network's files; raises as `files` does."""
        self.files()

    def load(self) -> None:
        """Loads the network; raises as `shared` does."""
        self.network(torch.device("cpu"))

    def network(self, device: torch.device) -> N:
        """The network on a device, loaded at the first call."""
        with LOADING:
            if self._network is None:
                self._network = self.shared(device)
            network: Any = self._network
            network.to(device)
            return self._network


class Memo(Generic[T]):
    """What a network made of the last inputs, by their content.

    Args:
        size: Number of inputs that are remembered beyond those of one call.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[bytes, T] = OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, keys: Sequence[bytes], compute: Callable[[list[int]], Sequence[T]]) -> list[T]:
        """The value of each input.

        Args:
            keys: Content of each input, by `content`.
            compute: Values of the inputs at these places: those not known yet, each once.
        """
        with self._lock:
            first = {key: place for place, key in reversed(list(enumerate(keys)))}
            new = sorted(place for key, place in first.items() if key not in self._values)
            if new:
                for place, value in zip(new, compute(new), strict=True):
                    self._values[keys[place]] = value
            for key in keys:
                self._values.move_to_end(key)
            values = [self._values[key] for key in keys]
            while len(self._values) > self.size:
                self._values.popitem(last=False)
            return values

    def clear(self) -> None:
        """Forgets everything, as when the network moves to another device."""
        with self._lock:
            self._values.clear()


def content(pixels: Tensor) -> bytes:
    """A key for `Memo`: type, shape and values of a tensor."""
    array = pixels.detach().cpu().contiguous().numpy()
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).digest()
