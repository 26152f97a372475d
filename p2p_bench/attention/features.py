"""Features: the output of a residual block's last convolution, gathered from other rows as a plan says.

Plug-and-play (Tumanyan et al., arXiv 2211.12572, section 4) puts the source's features of one residual block
of the decoder in the place of the target's, before the block's shortcut is added.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Int64
from torch import Tensor, nn

from p2p_bench.errors import ConfigError

BLOCK = "up_blocks.1.resnets.1"
"""The fifth of the twelve residual blocks in the decoder of Stable Diffusion, as released."""


def feature_block(network: nn.Module) -> nn.Module | None:
    """The residual block of a network whose features can be put into other rows; None where it has none."""
    try:
        block = network.get_submodule(BLOCK)
    except AttributeError:
        return None
    return block if isinstance(getattr(block, "conv2", None), nn.Module) else None


@contextmanager
def injected_features(network: nn.Module, rows: Int64[Tensor, " rows"] | None) -> Iterator[None]:
    """Within it one pass of the network goes on with the features of other rows.

    A hook gathers, and is gone afterwards. Other threads may be in passes of the same network.

    Args:
        network: The network.
        rows: For each row, the row whose features it goes on with, `StepPlan.features`; None: its own.

    Raises:
        ConfigError: The network has no such block, or did not run it as a module.
    """
    if rows is None:
        yield
        return
    block, owner, gathered = feature_block(network), threading.get_ident(), 0
    if block is None:
        raise ConfigError(f"controller: a {type(network).__name__} has no features to inject at {BLOCK}")

    def gather(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        nonlocal gathered
        if threading.get_ident() != owner:
            return None
        gathered += 1
        return output.index_select(0, rows)

    handle = block.get_submodule("conv2").register_forward_hook(gather)
    try:
        yield
    finally:
        handle.remove()
    if gathered != 1:
        raise ConfigError(
            f"controller: features were to be injected once at {BLOCK}, and were {gathered} times: the "
            "network is not called as it stands; leave it uncompiled"
        )
