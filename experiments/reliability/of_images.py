"""Pictures of every kind, given as a file, as a PIL object, as an array and as a tensor."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case, Outcome, call, empty_folder
from PIL import Image
from torch import Tensor

from p2p_bench.editing.images import as_source_image

ORIENTATION = 0x0112
Pixels = np.ndarray  # (h, w, 3), 8 bits


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    """About `count` cases, half of them good."""
    makers = (_file, _damaged, _file, _oriented, _array, _no_array, _no_range)
    yield from (makers[index % len(makers)](rng) for index in range(count))


def _pixels(rng: random.Random, grey: bool = False) -> Pixels:
    """A smooth picture of a drawn size and drawn colours."""
    height, width = rng.randint(2, 40), rng.randint(2, 40)
    corner = np.array([[[rng.random() for _ in range(3)] for _ in range(2)] for _ in range(2)])
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    mixed = (corner[0, 0] * (1 - x) + corner[0, 1] * x) * (1 - y) + (
        corner[1, 0] * (1 - x) + corner[1, 1] * x
    ) * y
    pixels = np.round(mixed * 255).astype(np.uint8)
    return np.repeat(pixels[..., :1], 3, axis=-1) if grey else pixels


def _on_white(pixels: Pixels, alpha: np.ndarray) -> np.ndarray:
    """Pixels under an alpha of 0 or 255, over white."""
    return np.where(alpha[..., None] == 0, 255, pixels)


def _file(rng: random.Random) -> Case:
    """A file whose pixels are known."""
    colour, grey = _pixels(rng), _pixels(rng, grey=True)
    alpha = np.where(np.indices(colour.shape[:2]).sum(0) % 3 == 0, 0, 255).astype(np.uint8)
    grey_alpha = np.where(np.indices(grey.shape[:2]).sum(0) % 3 == 0, 0, 255).astype(np.uint8)
    black_white = np.where(grey > 127, 255, 0).astype(np.uint8)
    sixteen = grey[..., 0].astype(np.uint16) * 257
    options: dict[str, tuple[Image.Image, str, np.ndarray, dict[str, Any]]] = {
        "RGB": (Image.fromarray(colour), rng.choice(["png", "bmp", "tiff", "ppm"]), colour, {}),
        "RGB, WebP": (Image.fromarray(colour), "webp", colour, {"lossless": True}),
        "RGB, compressed TIFF": (Image.fromarray(colour), "tiff", colour, {"compression": "tiff_lzw"}),
        "grey": (Image.fromarray(grey[..., 0]), rng.choice(["png", "bmp", "tiff", "pgm"]), grey, {}),
        "black and white": (Image.fromarray(black_white[..., 0]).convert("1"), "png", black_white, {}),
        "16-bit grey": (Image.fromarray(sixteen), rng.choice(["png", "tiff"]), grey, {}),
        "alpha": (Image.fromarray(np.dstack([colour, alpha])), "png", _on_white(colour, alpha), {}),
        "grey and alpha": (
            Image.merge("LA", [Image.fromarray(grey[..., 0]), Image.fromarray(grey_alpha)]),
            "png",
            _on_white(grey, grey_alpha),
            {},
        ),
        "palette": (Image.fromarray(grey[..., 0]).convert("P"), rng.choice(["png", "gif", "bmp"]), grey, {}),
        "two frames": (
            Image.fromarray(colour),
            "tiff",
            colour,
            {"save_all": True, "append_images": [Image.new("RGB", (5, 5))]},
        ),
        "hidden colour": (Image.fromarray(np.dstack([colour, alpha * 0])), "png", colour * 0 + 255, {}),
    }
    kind = rng.choice(list(options))
    image, ending, expected, how = options[kind]
    name = rng.choice(["p", "a b", "ü,=[x]", "$HOME", "x" * 100])

    def run() -> str | None:
        path = Path(f"{name}.{ending}")
        image.save(path, **how)
        with Image.open(path) as opened:
            return _differs(expected, path=path, text=str(path), opened=opened, made=None if how else image)

    return _case(f"file: {kind}", f"{ending} {expected.shape}", True, run)


def _oriented(rng: random.Random) -> Case:
    """A file that is to be turned."""
    pixels, orientation = _pixels(rng), rng.choice([*range(1, 9), 0, 9, 77])
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: p.swapaxes(0, 1)[:, ::-1],
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: p.swapaxes(0, 1)[::-1],
    }
    expected = turns.get(orientation, lambda p: p)(pixels)
    ending = rng.choice(["png", "webp", "tiff"])

    def run() -> str | None:
        image, path = Image.fromarray(pixels), Path(f"turned.{ending}")
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        image.save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
        with Image.open(path) as opened:
            return _differs(expected, path=path, opened=opened)

    return _case("file to be turned", f"{ending}, EXIF orientation {orientation}", True, run)


def _damaged(rng: random.Random) -> Case:
    """A file that cannot be read."""
    ending = rng.choice(["png", "jpg", "tiff", "gif", "bmp", "webp"])
    kind = rng.choice(["cut short", "noise", "empty", "wrong ending", "header alone", "bytes swapped"])

    def run() -> str | None:
        path = Path(f"damaged.{ending}")
        Image.fromarray(_pixels(random.Random(0))).resize((64, 64)).save(path)
        data = path.read_bytes()
        path.write_bytes(
            {
                "cut short": data[: len(data) // 2],
                "noise": random.Random(1).randbytes(500),
                "empty": b"",
                "wrong ending": b"source,target\na,b\n",
                "header alone": data[:12],
                "bytes swapped": data[::-1],
            }[kind]
        )
        _read(path)
        return None

    return _case(f"file: {kind}", ending, False, run, ("damaged", "image"))


def _array(rng: random.Random) -> Case:
    """An array or a tensor in a layout that is documented."""
    colour, grey = _pixels(rng), _pixels(rng, grey=True)
    unit = colour.astype(np.float32) / 255
    options: dict[str, tuple[np.ndarray, Any]] = {
        "array of bytes": (colour, colour),
        "array, not contiguous": (colour[:, ::-1], colour[:, ::-1]),
        "array of numbers": (colour, unit),
        "array of float64": (colour, unit.astype(np.float64)),
        "array with a leading axis": (colour, unit[None]),
        "grey array": (grey, grey[..., 0]),
        "grey array, one channel": (grey, grey[..., :1]),
        "tensor": (colour, torch.from_numpy(unit).permute(2, 0, 1)),
        "tensor with a leading axis": (colour, torch.from_numpy(unit).permute(2, 0, 1)[None]),
        "tensor of bytes": (colour, torch.from_numpy(colour).permute(2, 0, 1)),
        "tensor with gradients": (colour, torch.from_numpy(unit).permute(2, 0, 1).requires_grad_()),
        "tensor of float64": (colour, torch.from_numpy(unit).double().permute(2, 0, 1)),
    }
    kind = rng.choice(list(options))
    expected, image = options[kind]
    return _case(kind, f"{tuple(image.shape)}", True, lambda: _differs(expected, image=image))


def _no_array(rng: random.Random) -> Case:
    """An array or a tensor that is no picture."""
    unit = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {
        "two channels": unit[:2],
        "five axes": unit[None, None],
        "two pictures": torch.stack([unit, unit]),
        "one axis": unit.flatten(),
        "no pixels": unit[:, :0],
        "above 1": unit * 2,
        "below 0": unit - 1,
        "not finite": torch.where(unit > 0.9, torch.nan, unit),
        "infinite": torch.where(unit > 0.9, torch.inf, unit),
        "complex": unit.to(torch.complex64),
        "0 to 255 as float": unit * 255,
        "objects": np.array([["a", "b"]], dtype=object),
        "text": np.array([["a", "b"]]),
        "integers of 64 bits": (unit * 255).long(),
        "channels first, as an array": unit.numpy(),
        "sparse": unit.to_sparse(),
        "a list": unit.tolist(),
        "a number": 3,
        "bytes": b"picture",
    }
    kind = rng.choice(list(options))
    return _case(f"no picture: {kind}", "", False, lambda: _read(options[kind]) and None, ("image",))


def _no_range(rng: random.Random) -> Case:
    """Pixels whose range nobody knows."""
    kind = rng.choice(["floating point", "32-bit integers"])

    def run() -> str | None:
        values = np.linspace(0, 70000, 100).reshape(10, 10)
        image = Image.fromarray(values.astype(np.float32 if kind == "floating point" else np.int32))
        path = Path("values.tiff")
        image.save(path)
        _read(image if rng.random() < 0.5 else path)
        return None

    return _case(f"file: {kind}", "", False, run, ("range",))


def _read(image: Any) -> Tensor:
    return as_source_image(image, (16, 16), "resize")


def _differs(expected: np.ndarray, **given: Any) -> str | None:
    """How a picture, as it was read from each of the things given, differs from what it shows."""
    size = expected.shape[:2]
    wanted = torch.from_numpy(np.ascontiguousarray(expected.swapaxes(0, 2).swapaxes(1, 2))).float() / 255
    for name, image in given.items():
        if image is None:
            continue
        found = as_source_image(image, (size[0], size[1]), "error")
        if float((found - wanted).abs().max()) > 1e-6:
            return f"as {name} it is off by {float((found - wanted).abs().max()):.3f}"
    return None


def _case(
    kind: str, shown: str, valid: bool, run: Callable[[], str | None], names: tuple[str, ...] = ()
) -> Case:
    return Case("images", kind, valid, lambda: _in_a_folder(run), shown, names)


def _in_a_folder(run: Callable[[], str | None]) -> Outcome:
    with empty_folder():
        return call(run)
