"""Networks that several metrics share: each is loaded once, and each image goes through it once."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from torch import Tensor

from p2p_bench.metrics.base import LOADING

T = TypeVar("T")
N = TypeVar("N")

_LOADED: "WeakValueDictionary[Any, Any]" = WeakValueDictionary()


def shared_network(kind: str, file: Path, settings: str, load: Callable[[], N]) -> N:
    """A network that stays loaded as long as a metric holds it; the same for all that ask for the same file.

    Args:
        kind: What it is, such as "CLIP".
        file: Its weights; a file that has changed since is another network.
        settings: Whatever else decides what it computes.
        load: Loads it.
    """
    facts = file.stat()
    key = (kind, str(file.resolve()), settings, facts.st_mtime_ns, facts.st_size)
    with LOADING:
        network = _LOADED.get(key)
        if network is None:
            network = _LOADED[key] = load()
        found: N = network
        return found


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
