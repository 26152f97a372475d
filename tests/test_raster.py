"""One picture is one image, however it is given; one mask is no other mask, or it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from p2p_bench import raster
from p2p_bench.data.images import load_image, load_masked_image
from p2p_bench.editing.images import as_source_image
from p2p_bench.errors import DataError

# What each format of files holds without loss, by PIL's name of the mode.
LOSSLESS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "I;16B", "F"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("1", "L", "P"),
    "PPM": ("1", "L", "RGB", "I;16", "F"),
    "BMP": ("1", "L", "P", "RGB"),
}
IN_MEMORY = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBa", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16B")
ORIENTED = ("PNG", "TIFF", "WEBP")
TURNS: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a),
}
"""What each EXIF orientation asks for, by its definition."""


def picture(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Random pixels of a mode, transparency and all."""
    rng = np.random.default_rng(seed)
    if mode in ("I", "F"):
        return Image.fromarray(
            rng.integers(0, 60_000, size[::-1]).astype({"I": "int32", "F": "float32"}[mode])
        )
    if mode.startswith("I;16"):
        deep = Image.fromarray(rng.integers(0, 2**16, size[::-1], dtype=np.uint16))
        return (
            deep if mode == "I;16" else Image.frombytes(mode, size, np.asarray(deep).astype(">u2").tobytes())
        )
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, size[::-1]).astype(bool))
    if mode == "P":
        indexed = Image.frombytes(
            "P", size, rng.integers(0, 256, size[0] * size[1], dtype=np.uint8).tobytes()
        )
        indexed.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
        return indexed
    if mode == "PA":
        return picture("P", size, seed).convert("PA")
    if mode in ("La", "RGBa"):
        return picture({"La": "LA", "RGBa": "RGBA"}[mode], size, seed).convert(mode)
    return Image.frombytes(
        mode,
        size,
        rng.integers(
            0, 256, size[0] * size[1] * len(Image.new(mode, (1, 1)).getbands()), dtype=np.uint8
        ).tobytes(),
    )


def given_as(image: Any, size: tuple[int, int]) -> Any:
    """The image, or the refusal without the name of what was refused."""
    try:
        return as_source_image(image, size, "resize")
    except DataError as error:
        return str(error).partition(": ")[2]


def same(one: Any, other: Any) -> bool:
    return (
        torch.equal(one, other)
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        else one == other
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([(file, mode) for file, modes in LOSSLESS.items() for mode in modes]),
    orientation=st.integers(1, 8),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
    palette_alpha=st.booleans(),
)
@example(kind=("PNG", "I;16"), orientation=6, size=(5, 3), seed=0, palette_alpha=False)
@example(kind=("TIFF", "LAB"), orientation=8, size=(5, 3), seed=0, palette_alpha=False)
@example(kind=("TIFF", "F"), orientation=1, size=(5, 3), seed=0, palette_alpha=False)
def test_a_picture_by_path_is_the_same_by_object(
    tmp_path: Path,
    kind: tuple[str, str],
    orientation: int,
    size: tuple[int, int],
    seed: int,
    palette_alpha: bool,
) -> None:
    """Property: any mode, format, orientation and depth; an opened file, and an array of what was opened."""
    file, mode = kind
    path = tmp_path / f"picture.{file.lower()}"
    options: dict[str, Any] = {"lossless": True} if file == "WEBP" else {}
    if file in ORIENTED:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if mode == "P" and palette_alpha and file in ("PNG", "GIF"):
        options["transparency"] = 3
    original = picture(mode, size, seed)
    original.save(path, file, **options)
    by_path = given_as(path, (7, 7))
    with Image.open(path) as opened:
        assert same(by_path, given_as(opened, (7, 7)))
    turned = file in ORIENTED and orientation != 1
    if not turned and "transparency" not in options and mode not in ("I", "YCbCr"):
        # Formats of files may change the mode (PBM's grey, say), but not the picture.
        assert same(by_path, given_as(original, (7, 7)))
    if mode in ("L", "RGB", "RGBA", "LA", "1", "I;16"):
        array = TURNS[orientation if turned else 1](np.asarray(original))
        assert same(by_path, given_as(array, (7, 7)))
        assert array.ndim == 2 or same(by_path, given_as(array[None], (7, 7)))
    if mode == "RGB":
        tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
        assert same(by_path, given_as(tensor, (7, 7)))
        assert same(by_path, given_as((tensor.float() / 255)[None], (7, 7)))
        assert same(by_path, given_as(array.astype(np.float32) / 255, (7, 7)))


@pytest.mark.parametrize("mode", IN_MEMORY)
def test_modes_of_objects_are_what_they_show(mode: str) -> None:
    image = picture(mode, (6, 4))
    found = as_source_image(image, (4, 6))
    if mode == "I;16B":
        grey = np.asarray(image).astype(np.float32) / 65535
        assert torch.equal(found[1], torch.from_numpy(grey))
        return
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
    if mode in ("LA", "La", "PA", "RGBa", "RGBA"):
        rgba = np.asarray(straight.convert("RGBA")).astype(np.float64)
        shown = (rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:])) / 255
    else:
        shown = np.asarray(straight.convert("RGB")).astype(np.float64)
    assert np.abs(found.permute(1, 2, 0).numpy() * 255 - shown).max() <= 1


def test_the_colour_that_is_see_through_is_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    deep = Image.fromarray(np.array([[500, 65535 // 4]], np.uint16))
    quantised = Image.new("RGBA", (2, 1), (0, 0, 0, 0)).quantize(4, method=Image.Quantize.FASTOCTREE)
    for number, (image, options) in enumerate(
        [
            (palette, {"transparency": 0}),
            (Image.new("RGB", (2, 1), (1, 2, 3)), {"transparency": (1, 2, 3)}),
            (Image.new("L", (2, 1), 7), {"transparency": 7}),
            (deep, {"transparency": 500}),
            (quantised, {}),
        ]
    ):
        path = tmp_path / f"{number}.png"
        image.save(path, **options)
        found = load_image(path)
        assert torch.equal(found[:, 0, 0], torch.ones(3)), image.mode
        with Image.open(path) as opened:
            assert torch.equal(as_source_image(opened, (1, 2)), found)
    assert torch.equal(as_source_image(quantised, (1, 2)), torch.ones(3, 1, 2))


def test_of_several_frames_a_file_gives_the_first_and_an_object_its_own(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("frames.gif", "frames.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert load_image(tmp_path / name)[0].min() == 1
        with Image.open(tmp_path / name) as opened:
            opened.seek(1)
            assert as_source_image(opened, (4, 4))[2].min() == 1


REFUSED: dict[str, tuple[Any, str]] = {
    "32-bit integers": (picture("I", (4, 4)), "no known range"),
    "floating point": (picture("F", (4, 4)), "no known range"),
    "no pixels": (Image.new("RGB", (0, 4)), "empty"),
    "bytes": (b"png", "got bytes"),
    "a list": ([[0.0]], "got list"),
    "a number": (3, "got int"),
    "not a number": (torch.full((3, 4, 4), torch.nan), "finite values in [0, 1]"),
    "255": (torch.full((3, 4, 4), 255.0), "got 255 to 255"),
    "signed": (np.full((4, 4, 3), -1.0), "got -1 to -1"),
    "channels last": (torch.zeros(4, 4, 3), "expected (3, h, w), (1, h, w) or (h, w)"),
    "channels first": (np.zeros((3, 4, 4)), "expected (h, w, 3), (h, w, 1) or (h, w)"),
    "several": (torch.zeros(2, 3, 4, 4), "got float32 (2, 3, 4, 4)"),
    "16-bit colour": (np.zeros((4, 4, 3), np.uint16), "got uint16"),
    "int32": (np.zeros((4, 4), np.int32), "got int32"),
    "complex": (torch.zeros(3, 4, 4, dtype=torch.complex64), "got complex64"),
    "masked pixels": (np.ma.masked_less(np.linspace(0, 1, 48).reshape(4, 4, 3), 0.5), "are masked"),
    "objects": (np.full((4, 4), None), "got object"),
    "no values": (torch.zeros(3, 0, 4), "empty"),
    "a scalar": (torch.tensor(0.5), "got float32 ()"),
    "sparse": (torch.zeros(3, 4, 4).to_sparse(), "dense tensor"),
    "meta": (torch.zeros(3, 4, 4, device="meta"), "dense tensor"),
    "a name of 5,000 letters": ("x" * 5000, "no such image file"),
    "a name with a null": ("a\0b.png", "no such image file"),
    "a folder": ("/", "no such image file"),
    "a device": ("/dev/zero", "no such image file"),
}


@pytest.mark.parametrize(("image", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_is_refused_in_a_sentence(image: Any, said: str) -> None:
    with pytest.raises(DataError) as info:
        as_source_image.__wrapped__(image, (4, 4))
    assert said in str(info.value)
    assert len(str(info.value)) < 400


def test_a_huge_tensor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_PIXELS", 15)
    for image in (torch.zeros(3, 4, 4), np.zeros((4, 4)), Image.new("L", (4, 4))):
        with pytest.raises(DataError, match="4 x 4 pixels"):
            as_source_image(image, (4, 4))


def test_an_object_is_left_as_it_was(tmp_path: Path) -> None:
    array = np.zeros((4, 4, 3), np.float32)
    tensor = torch.zeros(3, 4, 4)
    for given_image in (array, tensor):
        as_source_image(given_image, (4, 4))[:] = 1
        assert not given_image.any()
    whole = picture("RGB", (64, 64))
    whole.save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(DataError, match="image: the image is damaged"),
    ):
        as_source_image(opened, (4, 4))


SQUARE = np.zeros((4, 4), bool)
SQUARE[1:3, :2] = True


def masks() -> dict[str, Image.Image]:
    """The same mask in every mode that shows black and white."""
    grey = Image.fromarray(SQUARE.astype(np.uint8) * 255)
    indexed = Image.frombytes("P", (4, 4), (1 - SQUARE.astype(np.uint8)).tobytes())
    indexed.putpalette([255, 255, 255, 0, 0, 0])
    shown = {mode: grey.convert(mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr")}
    lab = Image.merge("LAB", (grey, *[Image.new("L", (4, 4), 128)] * 2))
    return {**shown, "P": indexed, "PA": indexed.convert("PA"), "LAB": lab}


@pytest.mark.parametrize("mode", masks())
def test_masks_are_read_by_what_they_show(mode: str) -> None:
    """A palette's index 1 may be black, and the lightness of L*a*b* is no colour."""
    found = raster.mask(raster.as_picture(masks()[mode], "mask"))
    assert np.array_equal(found, SQUARE)


def coloured(*colour: int) -> Image.Image:
    return Image.fromarray(SQUARE[..., None] * np.array(colour, np.uint8))


NO_MASKS: dict[str, tuple[Image.Image, str]] = {
    "labels in colour": (coloured(128, 0, 0), "the mask has colours"),
    "red strokes": (coloured(255, 0, 0), "the mask has colours"),
    "labels": (Image.fromarray(SQUARE * np.uint8(38)), "the brightest pixel of the mask is 38 of 255"),
    "ones": (Image.fromarray(SQUARE * np.uint8(1)), "multiply it by 255"),
    "alpha": (coloured(0, 0, 0, 255), "transparent pixels"),
    "white on glass": (coloured(255, 255, 255, 255), "transparent pixels"),
    "16 bits": (picture("I;16", (4, 4)), "needs 8 bits"),
    "floats": (picture("F", (4, 4)), "needs 8 bits"),
}


@pytest.mark.parametrize(("image", "said"), NO_MASKS.values(), ids=NO_MASKS)
def test_a_picture_that_would_be_another_mask_is_refused(image: Image.Image, said: str) -> None:
    with pytest.raises(DataError, match=said):
        raster.mask(raster.as_picture(image, "mask"))


def test_a_jpeg_is_a_mask(tmp_path: Path) -> None:
    large = np.kron(SQUARE, np.ones((16, 16))).astype(bool)
    Image.fromarray(np.repeat(large[..., None] * np.uint8(255), 3, axis=2)).save(
        tmp_path / "m.jpg", quality=60
    )
    assert np.array_equal(raster.mask(raster.read_picture(tmp_path / "m.jpg")), large)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(4, 4), (4, 6)])
def test_a_mask_lies_on_the_image_as_it_is_shown(
    tmp_path: Path, orientation: int, turned: bool, shape: tuple[int, int]
) -> None:
    """Where only the image is turned and sizes do not tell how the mask was drawn, nothing is guessed."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    white = np.zeros(shape, bool)
    white[0, :2] = True
    pixels = white.astype(np.uint8) * 255
    upright = TURNS[orientation](white)
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    drawn = pixels if turned else TURNS[orientation](pixels)
    Image.fromarray(np.ascontiguousarray(drawn)).save(tmp_path / "mask.png", exif=exif if turned else None)
    known = turned or orientation == 1 or (orientation > 4 and shape[0] != shape[1])
    if not known:
        with pytest.raises(DataError, match=f"EXIF orientation {orientation}"):
            load_masked_image(tmp_path / "image.png", tmp_path / "mask.png")
        return
    image, mask = load_masked_image(tmp_path / "image.png", tmp_path / "mask.png")
    assert np.array_equal(mask.numpy(), upright)
    assert torch.equal(image[0], mask)


@pytest.mark.parametrize("name", ["a.mpo", "a.jpg", "a.tif"])
def test_jpeg_within_another_kind_of_file_is_no_lossless_one(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    if name == "a.tif":
        options = {"compression": "jpeg"}
    Image.new("RGB", (8, 8), "red").save(tmp_path / name, **options)
    assert raster.kind_of(tmp_path / name) in raster.LOSSY
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.tif", compression="tiff_lzw")
    assert raster.kind_of(tmp_path / "b.tif") == "TIFF"
