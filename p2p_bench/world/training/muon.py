"""Muon for matrices and convolutions, AdamW for the rest, as one optimiser.

Muon (Jordan et al. 2024) orthogonalises the momentum of each weight matrix; the update is scaled to
the root mean square that AdamW has (Liu et al. 2025, arXiv 2502.16982), so both share one learning
rate. `torch.optim.Muon` takes no convolutions and is missing from the oldest torch supported here.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from p2p_bench.world.training.runner import warm_cosine

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Float[Tensor, "m n"], rounds: int = 5) -> Float[Tensor, "m n"]:
    """Approximate U V^T of `matrix` = U S V^T by quintic Newton-Schulz iterations in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    norm: Tensor = x.norm()
    x = x / (norm + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Updates groups marked `orthogonal` by Muon and the others by AdamW."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.01) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; `closure` recomputes the loss, as Lightning asks for."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            if group["orthogonal"]:
                for parameter in parameters:
                    self._muon(parameter, group["lr"])
            else:
                self._adam(parameters, group["lr"])
        return loss

    def _muon(self, parameter: Tensor, lr: float, momentum: float = 0.95) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        assert gradient is not None
        state["momentum"].lerp_(gradient, 1 - momentum)
        matrix = gradient.lerp(state["momentum"], momentum).flatten(1)
        size = 0.2 * math.sqrt(max(matrix.shape))
        parameter.add_(orthogonalise(matrix).view(parameter.shape), alpha=-lr * size)

    def _adam(self, parameters: list[Tensor], lr: float, beta1: float = 0.9, beta2: float = 0.98) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["count"] = torch.zeros(())
                state["first"] = torch.zeros_like(parameter)
                state["second"] = torch.zeros_like(parameter)
            state["count"] += 1
            count = float(state["count"])
            gradient = parameter.grad
            assert gradient is not None
            state["first"].lerp_(gradient, 1 - beta1)
            state["second"].lerp_(gradient**2, 1 - beta2)
            mean = state["first"] / (1 - beta1**count)
            spread = (state["second"] / (1 - beta2**count)).sqrt_().add_(1e-8)
            parameter.addcdiv_(mean, spread, value=-lr)


def muon_groups(
    modules: Iterable[nn.Module], shallow: tuple[str, ...] = ("conv_in", "conv_out")
) -> list[dict[str, Any]]:
    """Weights of inner linear and convolution layers go to Muon, all else to AdamW without decay.

    First and last layers and embeddings map from or to few, unlike channels; orthogonal updates do not
    suit them.

    Args:
        modules: whose parameters.
        shallow: parts of the names of such layers, beside embeddings.
    """
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            outer = "embedding.weight" in name or any(part in name for part in shallow)
            (rest if outer or parameter.ndim < 2 else matrices).append(parameter)
    return [{"params": matrices, "orthogonal": True}, {"params": rest, "weight_decay": 0.0}]


def muon_adamw(groups: Iterable[dict[str, Any]], learning_rate: float, steps: int) -> dict[str, Any]:
    """`MuonAdamW` with `warm_cosine`, in the form that Lightning wants from `configure_optimizers`."""
    optimizer = MuonAdamW(groups, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, min(200, steps // 4 + 1)))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
