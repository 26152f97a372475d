"""Weights that rest in main memory and come to the device when they are needed."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


class _Weights:
    """Frozen tensors in main memory, which come to the device as copies."""

    def __init__(self, tensors: Iterable[Tensor], device: torch.device) -> None:
        self.resting = [(one, one.data) for one in tensors]
        self.device = device

    def come(self) -> None:
        """Has them be on the device."""
        for one, data in self.resting:
            one.data = data.to(self.device, copy=True)

    def go(self) -> None:
        """Has them be what lies in main memory."""
        for one, data in self.resting:
            one.data = data


class PartsInTurn:
    """Networks of which one at a time has its weights on the device, until another is called.

    A thread that calls another than the one in use waits.

    Args:
        parts: The networks, in main memory.
        device: Where they compute.
    """

    def __init__(self, parts: Sequence[nn.Module], device: torch.device) -> None:
        self._weights = {part: _Weights(_tensors(part, deep=True), device) for part in parts}
        self._free = threading.Condition()
        self._here: nn.Module | None = None
        self._users = 0

    @contextmanager
    def using(self, part: nn.Module) -> Iterator[None]:
        """Within it the weights of a part are on the device."""
        self._take(part)
        try:
            yield
        finally:
            self._leave()

    def follow(self, part: nn.Module, called: Iterable[nn.Module]) -> None:
        """Has the weights of a part on the device whenever one of some modules in it is called."""
        for module in called:
            module.register_forward_pre_hook(lambda *_: self._take(part))
            module.register_forward_hook(lambda *_: self._leave(), always_call=True)

    def _take(self, part: nn.Module) -> None:
        with self._free:
            self._free.wait_for(lambda: not self._users or self._here is part)
            if self._here is not part:
                if self._here is not None:
                    self._weights[self._here].go()
                self._weights[part].come()
                self._here = part
            self._users += 1

    def _leave(self) -> None:
        with self._free:
            self._users -= 1
            self._free.notify_all()


def layers_in_turn(parts: Iterable[nn.Module], device: torch.device) -> None:
    """Has the weights of each layer on the device while it computes; not for gradients, which come later.

    Args:
        parts: The networks, in main memory.
        device: Where they compute.
    """
    for layer in chain.from_iterable(part.modules() for part in parts):
        if any(True for _ in _tensors(layer, deep=False)):
            one = _Layer(_Weights(_tensors(layer, deep=False), device))
            layer.register_forward_pre_hook(one.take)
            layer.register_forward_hook(one.leave, always_call=True)


class _Layer:
    """A layer's own weights, which leave the device with the last thread that uses them."""

    def __init__(self, weights: _Weights) -> None:
        self.weights = weights
        self.lock = threading.Lock()
        self.users = 0

    def take(self, *_: Any) -> None:
        """Before the layer computes."""
        with self.lock:
            if not self.users:
                self.weights.come()
            self.users += 1

    def leave(self, *_: Any) -> None:
        """After it."""
        with self.lock:
            self.users -= 1
            if not self.users:
                self.weights.go()


def _tensors(module: nn.Module, deep: bool) -> Iterator[Tensor]:
    """Weights and buffers of a module, with or without those of the modules in it."""
    return chain(module.parameters(deep), module.buffers(deep))
