"""A network compiled as a whole, but for what its attention sites do under a plan."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from p2p_bench.attention.opaque import numbered, opaque_attention
from p2p_bench.attention.plan import StepPlan
from p2p_bench.errors import ConfigError

_POSITIONS = ("txt_ids", "img_ids")
"""Arguments of FLUX whose leading axis is not that of the rows."""


class CompiledNetwork:
    """Calls a network through `torch.compile`; results are equal but for rounding.

    Whatever changes from pass to pass is a tensor to the compiler: latents, timestep, text, and the plan by a
    number (see `attention.opaque`); a pass without a plan has an empty one. The number of rows is a symbol to
    it, so that no row is padded: there is one graph for a single row, one for up to 63, and in a U-Net one
    for more, which diffusers' upsampling treats apart, as convolutions on a CPU do 16 and more. A pass
    that gradients are wanted of is not compiled, nor is one that injects features, which a hook does, or one
    whose maps are read.

    Args:
        network: A diffusers `UNet2DConditionModel`, or a transformer.
        backend: What compiles the graphs, see `torch.compile`.
    """

    def __init__(self, network: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
        self.network = network
        transformer = hasattr(network, "transformer_blocks")
        self._told = "joint_attention_kwargs" if transformer else "cross_attention_kwargs"

        def forward(*arguments: Any, **named: Any) -> Any:
            return network(*arguments, **named)

        # What is compiled is counted, and limited, by code: networks of one class should not share theirs.
        forward.__code__ = forward.__code__.replace()
        self._compiled = torch.compile(forward, backend=backend, fullgraph=True, dynamic=False)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the network answers; attention is given a `StepPlan` as `plan`, or none.

        Raises:
            ConfigError: The network cannot be compiled here.
        """
        given = list(_tensors([arguments, named]))
        told = named.get(self._told) or {}
        plan = told.get("plan")
        hooked = plan is not None and (plan.features is not None or plan.maps is not None)
        given += [] if plan is None or plan.values is None else [plan.values]
        if hooked or (torch.is_grad_enabled() and any(one.requires_grad for one in given)):
            return self.network(*arguments, **named)
        rows = len(given[0])
        for one in _tensors([arguments, {key: named[key] for key in named.keys() - set(_POSITIONS)}]):
            if one.ndim and len(one) == rows > 1:
                torch._dynamo.maybe_mark_dynamic(one, 0)
        plan = plan or StepPlan(rows, {})
        with torch.no_grad(), opaque_attention(self.network), numbered(self.network, plan) as number:
            text_length = named["encoder_hidden_states"].shape[1]
            named = {**named, self._told: {**told, "plan": number, "text_length": text_length}}
            return self._answer([_as_tensor(one, given[0]) for one in arguments], named)

    def at_work(self) -> AbstractContextManager[object]:
        """Within it attention is ready for passes, each of which else makes it so; the same results."""
        return opaque_attention(self.network)

    def _answer(self, arguments: list[Any], named: dict[str, Any]) -> Any:
        try:
            return self._compiled(*arguments, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            if "out of memory" in str(error):
                raise
            reason = " ".join(str(error).split("\n\n")[0].split())[:200]
            raise ConfigError(
                f"model.compile: torch {torch.__version__} cannot compile the network here ({reason}); "
                "set model.compile=false"
            ) from error


def _as_tensor(one: Any, like: Tensor) -> Any:
    """A timestep as a tensor, or there would be a graph for each; the network takes it in this format."""
    return torch.tensor(one, dtype=torch.float32, device=like.device) if isinstance(one, float) else one


def _tensors(one: Any) -> Iterable[Tensor]:
    """The tensors in arguments, in their order."""
    if isinstance(one, Tensor):
        yield one
    elif isinstance(one, dict):
        yield from _tensors(list(one.values()))
    elif isinstance(one, list | tuple):
        for part in one:
            yield from _tensors(part)
