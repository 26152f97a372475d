"""How the network of a model is called: compiled, by one kernel of attention, with weights kept elsewhere."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from p2p_bench.attention.kernels import attention_by, possible_kernels
from p2p_bench.attention.sites import Site
from p2p_bench.errors import ConfigError
from p2p_bench.models.offload import PartsInTurn, layers_in_turn
from p2p_bench.models.settings import AttentionBackend, Offload

if TYPE_CHECKING:
    from p2p_bench.models.compiled import CompiledNetwork

_COMMON_HEAD = 64
"""Width of a head in most networks, for what is asked before theirs is known."""


@dataclass(frozen=True, eq=False)
class NetworkCall:
    """Calls a network.

    Attributes:
        network: The network.
        compiled: The same, compiled; None: it is not.
        kernel: The only kernel of attention, see `KERNELS`; None: torch chooses.
        parts: What has its weights on the device in turn with it; None: they are always there.
    """

    network: nn.Module
    compiled: "CompiledNetwork | None" = None
    kernel: str | None = None
    parts: PartsInTurn | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the network answers."""
        with ExitStack() as stack:
            stack.enter_context(attention_by(self.kernel))
            if self.parts is not None:
                stack.enter_context(self.parts.using(self.network))
            return (self.compiled or self.network)(*arguments, **named)

    def at_work(self) -> AbstractContextManager[object]:
        """See `DiffusionModel.at_work`."""
        return nullcontext() if self.compiled is None else self.compiled.at_work()

    @property
    def roundings(self) -> tuple[str, ...]:
        """What makes its answers differ, by rounding, from those of the network alone."""
        compiled = () if self.compiled is None else ("compiled",)
        return (*compiled, *(() if self.kernel is None else (self.kernel,)))


@dataclass(frozen=True)
class Calling:
    """What a checkpoint says of how its network is called, and where.

    Attributes:
        name: Name of the model, for messages.
        device: Where it computes.
        dtype: Its number format.
        compile: Whether the network is compiled.
        attention_backend: The only kernel of attention; None: torch chooses.
        offload: Which weights rest in main memory, see `Offload`.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    compile: bool = False
    attention_backend: AttentionBackend = None
    offload: Offload = "none"

    def __post_init__(self) -> None:
        """Refuses what this device cannot do, before weights are loaded.

        Raises:
            ConfigError: It cannot; says what it can.
        """
        if self.offload != "none" and self.device.type == "cpu":
            raise ConfigError(
                f"model.offload={self.offload}: on a CPU all weights of model {self.name!r} are in main "
                "memory already; set model.offload=none, or take an accelerator"
            )
        if self.offload == "sequential" and self.compile:
            raise ConfigError(
                "model.compile: a network whose layers come one by one (model.offload=sequential) cannot be "
                "compiled; set model.compile=false, or model.offload=model"
            )
        self._check_kernel([_COMMON_HEAD])

    @property
    def home(self) -> torch.device:
        """Where weights are loaded to."""
        return self.device if self.offload == "none" else torch.device("cpu")

    def of(
        self, network: nn.Module, sites: Sequence[Site], encoders: Sequence[nn.Module], vae: Any = None
    ) -> NetworkCall | None:
        """How a loaded network is called; None: as it is.

        Args:
            network: The network.
            sites: Its attention sites.
            encoders: The text encoders, and what else computes in turn with the network.
            vae: The autoencoder; None: there is none.

        Raises:
            ConfigError: The kernel does not serve heads of these sizes.
        """
        self._check_kernel(sorted({site.head_dim for site in sites}))
        parts = None
        others = [*encoders, *([] if vae is None else [vae])]
        if self.offload == "model":
            parts = PartsInTurn([network, *others], self.device)
            for other in others:  # a VAE's `encode` and `decode` are calls of what it is made of
                parts.follow(other, list(other.children()) if other is vae else [other])
        elif self.offload == "sequential":
            layers_in_turn([network, *others], self.device)
        if not self.compile and self.attention_backend is None and parts is None:
            return None
        return NetworkCall(network, self._compiled(network), self.attention_backend, parts)

    def of_other(self, network: nn.Module, sites: Sequence[Site]) -> NetworkCall | None:
        """How a network is called that is among the others of `of`; None: as it is. It is not compiled.

        Args:
            network: The network.
            sites: Its attention sites.

        Raises:
            ConfigError: The kernel does not serve heads of these sizes.
        """
        self._check_kernel(sorted({site.head_dim for site in sites}))
        return None if self.attention_backend is None else NetworkCall(network, kernel=self.attention_backend)

    def _compiled(self, network: nn.Module) -> "CompiledNetwork | None":
        if not self.compile:
            return None
        # Brings torch's compiler, which takes a second to import.
        from p2p_bench.models.compiled import CompiledNetwork

        return CompiledNetwork(network)

    def _check_kernel(self, head_dims: Sequence[int]) -> None:
        if self.attention_backend is None:
            return
        possible = possible_kernels(self.device, self.dtype, head_dims)
        if self.attention_backend not in possible:
            number_format = str(self.dtype).removeprefix("torch.")
            raise ConfigError(
                f"model.attention_backend={self.attention_backend}: {str(self.device)!r} has no such kernel "
                f"for {number_format} and heads of width {', '.join(map(str, head_dims))}; possible are "
                f"{', '.join(possible)}, or null, which leaves the choice to torch"
            )
