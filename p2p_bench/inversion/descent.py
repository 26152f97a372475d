"""Adam (Kingma and Ba, arXiv 1412.6980) for rows that are optimised side by side and never mix.

Notation:
    theta            the rows' parameters
    g                gradient of each row's own loss
    m, v             running means of g and of its square
    beta_1, beta_2   their decay
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's published values."""

RowLosses = Callable[[Float[Tensor, "k *shape"], Int64[Tensor, " k"]], Float[Tensor, " k"]]
"""Loss of each of some rows, from their parameters and their indices in the batch."""


@dataclass(frozen=True, eq=False)
class Descent:
    """Rows under optimisation. Nothing is shared between rows, so a batch gives what each row gives alone.

    Attributes:
        theta: Parameters of each row, at least float32.
        m: Running mean of each row's gradients.
        v: Running mean of their squares.
        counts: Updates each row has had.
    """

    theta: Float[Tensor, "n *shape"]
    m: Float[Tensor, "n *shape"]
    v: Float[Tensor, "n *shape"]
    counts: Int64[Tensor, " n"]

    @classmethod
    def start(cls, theta: Float[Tensor, "n *shape"]) -> "Descent":
        """Rows before their first update."""
        zero = torch.zeros_like(theta)
        return cls(theta, zero, zero, torch.zeros(len(theta), dtype=torch.int64, device=theta.device))

    def updated(
        self, rows: Int64[Tensor, " k"], losses: RowLosses, learning_rate: float
    ) -> tuple["Descent", Float[Tensor, " k"]]:
        """One update of some rows; the others stay as they are.

        Args:
            rows: Indices of the rows, in rising order.
            losses: Loss of each of these rows; differentiable in the parameters.
            learning_rate: Step size.

        Returns:
            The rows after the update, and the losses before it.
        """
        loss, g = _gradients(self.theta.index_select(0, rows), rows, losses)
        count = self.counts.index_select(0, rows) + 1
        m = BETA_1 * self.m.index_select(0, rows) + (1 - BETA_1) * g
        v = BETA_2 * self.v.index_select(0, rows) + (1 - BETA_2) * g.square()
        power = count.to(g.dtype).view(-1, *[1] * (g.ndim - 1))
        m_hat, v_hat = m / (1 - BETA_1**power), v / (1 - BETA_2**power)
        theta = self.theta.index_select(0, rows) - learning_rate * m_hat / (v_hat.sqrt() + EPSILON)
        return Descent(
            self.theta.index_copy(0, rows, theta),
            self.m.index_copy(0, rows, m),
            self.v.index_copy(0, rows, v),
            self.counts.index_copy(0, rows, count),
        ), loss


def _gradients(
    theta: Float[Tensor, "k *shape"], rows: Int64[Tensor, " k"], losses: RowLosses
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k *shape"]]:
    """Losses, and the gradient of each in its own row: that of their sum, since rows do not mix."""
    with torch.enable_grad():
        theta = theta.detach().requires_grad_(True)
        loss = losses(theta, rows)
        (g,) = torch.autograd.grad(loss.sum(), theta)
    return loss.detach(), g
