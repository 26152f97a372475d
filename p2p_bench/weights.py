"""Whether the tensors of a file are the weights of a network: none absent, foreign, misshapen or damaged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from p2p_bench.errors import MissingWeightsError

T = TypeVar("T")

READ_ERRORS = (
    OSError,
    SafetensorError,
    StrictDataclassError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
"""What json, safetensors and the libraries that build networks raise on files that are not theirs."""

_SHOWN = 4
"""Keys that are named before the rest is only counted."""


def refuse_foreign(
    where: str,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]] = (),
) -> None:
    """Refuses a file whose keys are not those of the network that its configuration describes.

    Args:
        where: Part and file, to begin the message with.
        missing: Keys of the network that the file lacks.
        unexpected: Keys of the file that the network lacks.
        mismatched: Keys of both, with the shape in the file and that in the network.

    Raises:
        MissingWeightsError: There is one; names them.
    """
    shapes = [f"{key} {tuple(found)} for {tuple(wanted)}" for key, found, wanted in sorted(mismatched)]
    keys = {"missing": sorted(missing), "not of this network": sorted(unexpected)}
    _refuse(
        where,
        {**keys, "of another shape": shapes},
        "the file is not whole, or belongs to another configuration",
    )


def refuse_damaged(where: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuses weights that no training leaves: not finite, or a kernel that is zero everywhere.

    A bias, a buffer or a scalar may be all zero: that is how they start, and some stay so. A kernel (a tensor
    of two or more dimensions) or the `weight` of a normalisation at zero cuts its layer off.

    Args:
        where: Part and file, to begin the message with.
        tensors: The tensors by name.

    Raises:
        MissingWeightsError: There is one; names them.
    """
    kinds: dict[str, list[str]] = {"not finite": [], "all zero": []}
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        tensor = tensor.detach() if tensor.element_size() > 1 else tensor.float()  # 8 bits know no order
        # A maximum and a minimum, in place of a mask of the tensor's size; NaN goes through both.
        low, high = (float(value) for value in tensor.aminmax()) if tensor.numel() else (1.0, 1.0)
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            kinds["not finite"].append(name)
        elif low == high == 0 and (tensor.ndim > 1 or name.rpartition(".")[2] == "weight"):
            kinds["all zero"].append(name)
    _refuse(where, kinds, "the file is damaged, or its values do not fit the number format")


def refuse_quantized(where: str, formats: Mapping[str, str]) -> None:
    """Refuses weights that are no floating-point numbers, which stand for others by a scale held elsewhere.

    Libraries take them for the numbers that they stand for.

    Args:
        where: Part and file, to begin the message with.
        formats: The number format of each that is none, by its key.

    Raises:
        MissingWeightsError: There is one; names them.
    """
    if formats:
        found = _listed([f"{key} ({formats[key]})" for key in sorted(formats)])
        raise MissingWeightsError(
            f"{where}: not in floating-point numbers: {found}; quantized weights are not read here: get them "
            "as they were before"
        )


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], where: str, foreign: Iterable[str] = ()
) -> None:
    """Puts tensors into a network that has exactly these keys, and checks them.

    Args:
        network: The network.
        state: The tensors.
        where: Part and file, to begin a message with.
        foreign: Further keys of the file, which have no place in the network.

    Raises:
        MissingWeightsError: They are not the network's, or damaged, or no floating-point numbers.
    """
    own = network.state_dict()
    both = own.keys() & state.keys()
    shapes = [(key, state[key].shape, own[key].shape) for key in both if state[key].shape != own[key].shape]
    refuse_foreign(where, own.keys() - state.keys(), {*(state.keys() - own.keys()), *foreign}, shapes)
    odd = {key for key in both if own[key].is_floating_point() and not state[key].is_floating_point()}
    refuse_quantized(where, {key: str(state[key].dtype).removeprefix("torch.") for key in odd})
    refuse_damaged(where, state.items())
    network.load_state_dict(state)


def tensor_keys(file: Path, where: str) -> list[str]:
    """Keys of a safetensors file, from its header.

    Raises:
        MissingWeightsError: The file is cut short or not safetensors.
    """
    return readable(lambda: _keys(file), where, file)


def tensor_formats(file: Path, where: str) -> dict[str, str]:
    """Keys of a safetensors file and their number formats ("F16", "I8"), from its header.

    Raises:
        MissingWeightsError: The file is cut short or not safetensors.
    """
    return readable(lambda: _formats(file), where, file)


def readable(read: Callable[[], T], where: str, file: Path) -> T:
    """What `read` returns.

    Args:
        read: Reads a file, or builds what it describes.
        where: Part, to begin the message with.
        file: The file or folder, for the message.

    Raises:
        MissingWeightsError: It cannot be read; names the file and says why.
    """
    try:
        return read()
    except MissingWeightsError:
        raise
    except READ_ERRORS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise MissingWeightsError(f"{where}: {file} cannot be read ({reason}); get it again") from error


def _keys(file: Path) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return list(tensors.keys())


def _formats(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as tensors:
        return {key: tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118  # no dict


def _refuse(where: str, kinds: Mapping[str, Sequence[str]], likely: str) -> None:
    found = [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]
    if found:
        raise MissingWeightsError(f"{where}: {'; '.join(found)}; {likely}: get the weights again")


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
