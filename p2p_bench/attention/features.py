"""Features: the output of a residual block's last convolution, gathered from other rows as a plan says.

Plug-and-play (Tumanyan et al., arXiv 2211.12572, section 4) puts the source's features of one residual block
of the decoder in the place of the target's, before the block's shortcut is added.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from p2p_bench.attention.plan import StepPlan

BLOCK = "up_blocks.1.resnets.1"
"""The fifth of the twelve residual blocks in the decoder of Stable Diffusion, as released."""


def feature_block(network: nn.Module) -> nn.Module | None:
    """The residual block of a network whose features can be put into other rows; None where it has none."""
    try:
        block = network.get_submodule(BLOCK)
    except AttributeError:
        return None
    return block if isinstance(getattr(block, "conv2", None), nn.Module) else None


class _Pass(threading.local):
    """The plan of the pass that a thread is in."""

    plan: StepPlan | None = None


def read_features(network: nn.Module) -> Callable[[], None]:
    """Lets passes of a network follow `StepPlan.features`.

    A hook on the network reads the plan of each pass, as the attention processors are given it, and one on
    the block's last convolution gathers. Without features in its plan a pass computes the same as unhooked.

    Args:
        network: Any network; one without the block is left alone.

    Returns:
        What removes the hooks.
    """
    block = feature_block(network)
    if block is None:
        return lambda: None
    now = _Pass()

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        now.plan = (kwargs.get("cross_attention_kwargs") or {}).get("plan")

    def gather(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        rows = None if now.plan is None else now.plan.features
        return None if rows is None else output.index_select(0, rows)

    convolution = block.get_submodule("conv2")
    handles = [
        network.register_forward_pre_hook(begin, with_kwargs=True),
        convolution.register_forward_hook(gather),
    ]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove
