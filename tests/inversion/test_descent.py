import torch

from p2p_bench.inversion.descent import Descent


def curvature(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1


def losses(theta: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (curvature(4)[rows] * (theta - rows[:, None, None]).square()).flatten(1).sum(1)


def test_every_row_is_optimised_by_adam_alone() -> None:
    start = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    descent, rows = Descent.start(start), torch.arange(4)
    updates = [5, 9, 2, 9]
    for inner in range(9):
        rows = torch.tensor([row for row in range(4) if inner < updates[row]])
        descent, _ = descent.updated(rows, losses, learning_rate=0.05)
    assert descent.counts.tolist() == updates
    for row, count in enumerate(updates):
        theta = start[row : row + 1].clone().requires_grad_(True)
        adam = torch.optim.Adam([theta], lr=0.05)
        for _ in range(count):
            adam.zero_grad()
            losses(theta, torch.tensor([row])).sum().backward()
            adam.step()
        assert float((descent.theta[row] - theta[0]).detach().abs().max()) <= 1e-12


def test_losses_are_those_before_the_update_and_carry_no_graph() -> None:
    start = torch.zeros(2, 3, 2, dtype=torch.float64)
    descent, loss = Descent.start(start).updated(torch.tensor([1]), losses, 0.1)
    assert torch.equal(loss, losses(start[1:], torch.tensor([1])))
    assert not loss.requires_grad
    assert not descent.theta.requires_grad
    assert torch.equal(descent.theta[0], start[0])
