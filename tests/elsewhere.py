"""A device that is not there: Apple's, played on the CPU.

Tensors on it hold their values on the CPU and say that they lie on `mps`. As on the real one, nothing is in
float64, and an operation that is given tensors of both devices fails. So tests find on any machine what a
real device would refuse: a tensor left behind on the CPU, a format that it lacks. What it computes wrongly
they cannot find.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from lightning.fabric.accelerators.mps import MPSAccelerator as FabricMPS
from lightning.pytorch.accelerators import MPSAccelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from p2p_bench.metrics.networks import _LOADED

MPS = torch.device("mps", 0)
_aten = torch.ops.aten
_ACROSS = {_aten.copy_.default, _aten._to_copy.default}
_INDEXED = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}
"""What takes indices and masks of the CPU too."""
_DEVICE_IS_MEANT_NOT_USED = ("__eq__", "__ne__", "_parse_to", "device")
_KEEPS_OWN = ("new_tensor", "quantile")
"""Makes tensors of its own beneath torch's dispatch."""


@contextmanager
def another_device() -> Iterator[None]:
    """Within it, `mps` is a device of this machine."""
    _LOADED.clear()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    there = staticmethod(lambda: True)
    try:
        with (
            patch.object(torch.backends.mps, "is_available", lambda: True),
            patch.object(torch.accelerator, "synchronize", lambda device: None),
            patch.object(MPSAccelerator, "is_available", there),
            patch.object(FabricMPS, "is_available", there),
            _Dispatch(),
            _Functions(),
        ):
            yield
    finally:
        _LOADED.clear()  # what metrics share was moved there
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


class There(Tensor):
    """A tensor on the device; `values` are what it holds."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "There":
        """Raises: TypeError: In float64."""
        if values.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework has none")
        with torch.inference_mode(False):
            made = Tensor._make_wrapper_subclass(
                cls,
                values.size(),
                strides=values.stride(),
                storage_offset=values.storage_offset(),
                dtype=values.dtype,
                layout=values.layout,
                device="cpu",
            )
        made.values = values
        return made

    def __init__(self, values: Tensor) -> None:
        pass

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # takes what torch's takes, whatever it is
        return f"There({self.values!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes with the values."""
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives, on the device if any of its tensors lies there.

    Raises:
        RuntimeError: Others lie on the CPU.
    """
    if func is _aten._has_compatible_shallow_copy_type.default:
        return False
    tensors = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
    there = any(isinstance(one, There) for one in tensors)
    left = [one for one in tensors if not isinstance(one, There) and one.dim()]
    if func in _INDEXED:
        left = [one for one in left if one.is_floating_point()]
    if there and left and func not in _ACROSS:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two, mps:0 and cpu ({func})"
        )
    made = func(*tree_map(_values, args), **tree_map(_values, dict(kwargs)))
    if func._schema.arguments[0].is_write and isinstance(made, Tensor):
        return args[0]
    return tree_map(_wrapped, made) if there else made


def _values(value: Any) -> Any:
    return value.values if isinstance(value, There) else value


def _wrapped(value: Any) -> Any:
    return There(value) if isinstance(value, Tensor) and not isinstance(value, There) else value


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Sent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return There(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _values(gradient)


class _Fetched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: There) -> Tensor:
        return tensor.values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return There(gradient)


def _moved(tensor: Tensor, away: bool) -> Tensor:
    """The tensor on the device, or from it; gradients find their way."""
    if isinstance(tensor, There) == away:
        return tensor
    if tensor.requires_grad and torch.is_grad_enabled():
        return (_Sent if away else _Fetched).apply(tensor)
    values = _values(tensor).detach().clone()
    return There(values) if away else values


def _names(value: Any, kind: str) -> bool:
    """Whether a value is a device of this kind."""
    if isinstance(value, torch.device):
        return value.type == kind
    return isinstance(value, str) and value.split(":")[0] == kind


class _Functions(TorchFunctionMode):
    """What names a device, which torch would look for on this machine."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], There) and name in ("__get__", "cpu", "tolist", "numpy", *_KEEPS_OWN):
            return self._of_a_tensor_there(func, name, args, kwargs)
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        named = any(_names(value, "mps") for value in (*args, *kwargs.values()))
        if not named or name in _DEVICE_IS_MEANT_NOT_USED:
            return func(*args, **kwargs)

        def here(value: Any) -> Any:
            return torch.device("cpu") if _names(value, "mps") else value

        made = func(*map(here, args), **{key: here(value) for key, value in kwargs.items()})
        return tree_map(lambda one: _moved(one, away=True) if isinstance(one, Tensor) else one, made)

    def _of_a_tensor_there(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        if name == "numpy":
            raise TypeError("can't convert mps:0 device type tensor to numpy; use Tensor.cpu() first")
        if name == "cpu":
            return _moved(tensor, away=False)
        if name == "tolist":
            return tensor.values.tolist()
        if name in _KEEPS_OWN:
            return There(func(tensor.values, *args[1:], **kwargs))
        known = {Tensor.device: MPS, Tensor.is_mps: True, Tensor.is_cpu: False}
        return known.get(func.__self__, func) if func.__self__ in known else func(*args, **kwargs)

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Another format first, on the device that it is on, as Apple's does."""
        given = (*args, *kwargs.values())
        like = next((value for value in given if isinstance(value, Tensor)), None)
        away = next(
            (_names(value, "mps") for value in given if _names(value, "mps") or _names(value, "cpu")), None
        )
        dtype = next((value for value in given if isinstance(value, torch.dtype)), None)
        if like is not None:
            away, dtype = isinstance(like, There), like.dtype
        if dtype is not None and dtype != tensor.dtype:
            tensor = tensor.type(dtype)
        return tensor if away is None else _moved(tensor, away)
