"""Signed distances of the world's shapes, in units of the radius, negative inside, y downward."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Points = Float[Tensor, "n h w"]


def _box(u: Tensor, v: Tensor, half_width: float, half_height: float) -> Tensor:
    du, dv = u.abs() - half_width, v.abs() - half_height
    outside = torch.hypot(du.clamp(min=0), dv.clamp(min=0))
    return outside + torch.maximum(du, dv).clamp(max=0)


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    v = v - 0.12
    slanted = u.abs() * math.cos(math.pi / 6) - v * 0.5
    return torch.maximum(slanted, v) - 0.54


def _star(u: Tensor, v: Tensor) -> Tensor:
    tip, notch, fold = 1.08, 0.46, math.pi / 5
    radius, turn = torch.hypot(u, v), torch.atan2(u, -v)
    turn = (torch.remainder(turn + fold, 2 * fold) - fold).abs()
    edge_x, edge_y = notch * math.cos(fold) - tip, notch * math.sin(fold)
    length = math.hypot(edge_x, edge_y)
    along = (radius * turn.cos() - tip) * edge_y - radius * turn.sin() * edge_x
    return along / length


def _heart(u: Tensor, v: Tensor) -> Tensor:
    scale = 1.72
    x, y = u.abs() / scale, 0.56 - v / scale
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    half = 0.5 * (x + y).clamp(min=0)
    body = torch.minimum(x**2 + (y - 1) ** 2, (x - half) ** 2 + (y - half) ** 2).sqrt() * torch.sign(x - y)
    return scale * torch.where(x + y > 1, lobe, body)


def _crescent(u: Tensor, v: Tensor) -> Tensor:
    u = u + 0.12
    return torch.maximum(torch.hypot(u, v) - 0.98, 0.76 - torch.hypot(u - 0.58, v))


def signed_distance(shape: str, u: Points, v: Points) -> Points:
    """Distance of the points (u, v) from the outline of `shape`, whose radius is about 1."""
    match shape:
        case "circle":
            return torch.hypot(u, v) - 0.92
        case "square":
            return _box(u, v, 0.8, 0.8)
        case "triangle":
            return _triangle(u, v)
        case "star":
            return _star(u, v)
        case "heart":
            return _heart(u, v)
        case "cross":
            return torch.minimum(_box(u, v, 1.0, 0.36), _box(u, v, 0.36, 1.0))
        case "ring":
            return (torch.hypot(u, v) - 0.7).abs() - 0.28
        case "crescent":
            return _crescent(u, v)
        case _:
            raise ValueError(f"no outline is known for the shape {shape!r}")
