"""Backgrounds, object patterns, styles and weathers as smooth functions of pixel position.

Everything is band-limited (no feature under about five pixels' period) so that a small autoencoder
can keep it. All randomness comes in through `phases`, uniform numbers in [0, 1) that belong to one
scene each.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "n 3 h w"]
Maps = Float[Tensor, "n h w"]
Phases = Float[Tensor, "n p"]

TAU = 2 * math.pi
NUM_FLAKES = 36

COLOUR_RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.10, 0.12),
    "tangerine": (1.00, 0.52, 0.05),
    "yellow": (0.98, 0.90, 0.12),
    "green": (0.08, 0.66, 0.22),
    "turquoise": (0.15, 0.86, 0.82),
    "blue": (0.12, 0.24, 0.90),
    "purple": (0.50, 0.14, 0.68),
    "pink": (1.00, 0.55, 0.78),
    "white": (0.97, 0.97, 0.97),
    "black": (0.06, 0.06, 0.07),
}
LIGHT_COLOURS = ("tangerine", "yellow", "turquoise", "pink", "white")


def second_tone(colour: str) -> tuple[float, float, float]:
    """The tone that a pattern adds to `colour`: darker for light colours, lighter for dark ones."""
    goal, amount = (0.0, 0.68) if colour in LIGHT_COLOURS else (1.0, 0.68)
    red, green, blue = (channel + amount * (goal - channel) for channel in COLOUR_RGB[colour])
    return red, green, blue


def _soft(wave: Tensor, sharpness: float = 1.6) -> Tensor:
    return (0.5 + sharpness * wave).clamp(0, 1)


def pattern_map(pattern: str, across: Maps, down: Maps, depth: Maps, phases: Phases) -> Maps:
    """How much of the second tone each pixel takes.

    Args:
        pattern: one of `PATTERNS`.
        across: position along the object's own horizontal axis, pixels of a 64-pixel side.
        down: position along its vertical axis.
        depth: distance inside the outline, same unit.
        phases: two numbers per object.
    """
    shift_across, shift_down = (phases[:, i, None, None] for i in range(2))
    match pattern:
        case "plain":
            return torch.zeros_like(across)
        case "striped":
            return _soft(torch.sin(TAU * (down / 6.6 + shift_down)))
        case "dotted":
            across, down = TAU * (across / 7.6 + shift_across), TAU * (down / 7.6 + shift_down)
            return _soft(torch.cos(across) + torch.cos(down) - 0.55, 1.0)
        case "checkered":
            across, down = TAU * (across / 11.0 + shift_across), TAU * (down / 11.0 + shift_down)
            return _soft(torch.sin(across) * torch.sin(down), 2.2)
        case "bordered":
            return _soft(3.4 - depth, 0.6)
        case _:
            raise ValueError(f"no drawing is known for the pattern {pattern!r}")


def _noise(x: Maps, y: Maps, phases: Phases, cycles: float, stretch: float = 1.0) -> Maps:
    """Sum of six plane waves of random direction, about unit variance. Uses 12 phases."""
    angle = TAU * phases[:, :6]
    shift = TAU * phases[:, 6:12]
    rate = TAU * cycles * torch.linspace(0.6, 1.3, 6)
    kx, ky = (rate * angle.cos())[..., None, None], (rate * angle.sin() * stretch)[..., None, None]
    waves = torch.sin(kx * x[:, None] + ky * y[:, None] + shift[..., None, None])
    return waves.sum(1) / math.sqrt(3)


def _blend(low: tuple[float, ...], high: tuple[float, ...], amount: Maps) -> Images:
    first, second = (torch.tensor(tone).view(1, 3, 1, 1) for tone in (low, high))
    return first + (second - first) * amount[:, None]


def background_image(background: str, x: Maps, y: Maps, phases: Phases) -> Images:
    """The texture of `background` at positions x, y in [0, 1]. Uses 16 phases."""
    shift = phases[:, 12:16, None, None]
    match background:
        case "grass":
            amount = 0.5 + 0.28 * _noise(x, y, phases, 7.0, 0.6)
            image = _blend((0.20, 0.36, 0.10), (0.46, 0.58, 0.20), amount)
        case "sand":
            ripple = torch.sin(TAU * (7.0 * y + 0.6 * torch.sin(TAU * (x + shift[:, 0])) + shift[:, 1]))
            amount = 0.5 + 0.30 * ripple + 0.08 * _noise(x, y, phases, 5.0)
            image = _blend((0.74, 0.62, 0.42), (0.90, 0.81, 0.60), amount)
        case "water":
            swell = torch.sin(TAU * (5.0 * y + 0.25 * torch.sin(TAU * (2 * x + shift[:, 0])) + shift[:, 1]))
            amount = 0.5 + 0.35 * swell + 0.10 * _noise(x, y, phases, 4.0, 2.0)
            image = _blend((0.14, 0.38, 0.56), (0.42, 0.66, 0.80), amount)
        case "brick":
            image = _blend((0.80, 0.74, 0.68), (0.62, 0.30, 0.24), _bricks(x, y, shift))
        case "wood":
            grain = _noise(x, y, phases, 7.0, 0.12)
            plank = _soft(torch.cos(TAU * (4.0 * x + shift[:, 0])) - 0.86, 5.0)
            amount = 0.55 + 0.22 * grain - 0.75 * plank
            image = _blend((0.30, 0.17, 0.08), (0.66, 0.44, 0.24), amount)
        case "stone":
            amount = 0.5 + 0.30 * _noise(x, y, phases, 3.2)
            image = _blend((0.40, 0.41, 0.43), (0.66, 0.66, 0.67), amount)
        case _:
            raise ValueError(f"no drawing is known for the background {background!r}")
    return image.clamp(0, 1)


def _bricks(x: Maps, y: Maps, shift: Tensor) -> Maps:
    """1 inside a brick, 0 in the mortar."""
    rows, columns = 6.0, 3.0
    row = rows * y + shift[:, 0]
    odd = torch.remainder(torch.floor(row), 2.0)
    column = columns * x + shift[:, 1] + 0.5 * odd
    from_row = (torch.remainder(row + 0.5, 1.0) - 0.5).abs() * (64 / rows)
    from_column = (torch.remainder(column + 0.5, 1.0) - 0.5).abs() * (64 / columns)
    return ((torch.minimum(from_row, from_column) - 0.4) / 1.6).clamp(0, 1)


def apply_style(style: str, image: Images, rims: Maps, x: Maps, y: Maps, phases: Phases) -> Images:
    """Redraws `image` in a style, pixel by pixel.

    Args:
        style: one of `STYLES`.
        image: the scene without weather.
        rims: how much each pixel belongs to an object's outline.
        x: positions in [0, 1].
        y: positions in [0, 1].
        phases: four numbers per scene.
    """
    match style:
        case "photo":
            return image
        case "sketch":
            grey = image.mean(1, keepdim=True)
            hatch = 0.05 * torch.sin(TAU * (9.0 * (x + y) + phases[:, 0, None, None]))
            drawn = 0.52 + 0.40 * (0.65 * image + 0.35 * grey) + 0.08 + hatch[:, None]
            return drawn * (1 - 0.85 * rims[:, None])
        case "mosaic":
            across, down = 8.0 * x + phases[:, 0, None, None], 8.0 * y + phases[:, 1, None, None]
            offset = [(torch.remainder(axis + 0.5, 1.0) - 0.5).abs() * 8.0 for axis in (across, down)]
            grout = ((1.5 - torch.minimum(*offset)) / 1.0).clamp(0, 1)
            parity = torch.remainder(torch.floor(across) + torch.floor(down), 2.0) - 0.5
            tiled = image * (1 + 0.16 * parity[:, None])
            return tiled * (1 - 0.72 * grout[:, None]) + 0.05 * grout[:, None]
        case "vintage":
            grey = image.mean(1, keepdim=True)
            sepia = grey * torch.tensor([1.12, 0.90, 0.62]).view(1, 3, 1, 1)
            vignette = 1.05 - 1.3 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
            return (0.55 * image + 0.45 * sepia) * vignette[:, None]
        case _:
            raise ValueError(f"no drawing is known for the style {style!r}")


def weather_cover(weather: str, strength: Float[Tensor, " n"], x: Maps, y: Maps, phases: Phases) -> Maps:
    """Share of each pixel that fog or snow covers. Uses 12 phases for fog, 2 * `NUM_FLAKES` for snow."""
    match weather:
        case "clear":
            return torch.zeros_like(x)
        case "fog":
            banks = 0.80 + 0.14 * _noise(x, y, phases, 1.2)
            return (0.80 * strength[:, None, None] * banks).clamp(0, 0.85)
        case "snow":
            return _flakes(strength, x, y, phases)
        case _:
            raise ValueError(f"no drawing is known for the weather {weather!r}")


def _flakes(strength: Tensor, x: Maps, y: Maps, phases: Phases) -> Maps:
    """Soft round flakes; more of them, one after the other, as the strength grows."""
    spread = 1.35 / 64
    at_x, at_y = phases[:, :NUM_FLAKES], phases[:, NUM_FLAKES : 2 * NUM_FLAKES]
    order = torch.arange(NUM_FLAKES, dtype=x.dtype)
    opacity = (strength[:, None] * NUM_FLAKES - order).clamp(0, 1) * 1.6
    column = torch.exp(-0.5 * ((x[:, None, 0, :] - at_x[..., None]) / spread) ** 2)
    row = torch.exp(-0.5 * ((y[:, None, :, 0] - at_y[..., None]) / spread) ** 2)
    covered = torch.einsum("nfh,nfw->nhw", row * opacity[..., None], column)
    return covered.clamp(0, 1)


WEATHER_RGB: dict[str, tuple[float, float, float]] = {
    "clear": (0.0, 0.0, 0.0),
    "fog": (0.80, 0.82, 0.85),
    "snow": (0.98, 0.99, 1.00),
}
