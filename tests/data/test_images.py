"""Images and masks from disk: every kind that turns up, and every fault."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile  # comes with scikit-image
import torch
from PIL import Image

from p2p_bench import raster
from p2p_bench.data import images
from p2p_bench.data.images import fit_image, fit_mask, load_image, load_mask
from p2p_bench.errors import ConfigError, DataError
from tests.data.fake.pictures import encoded, picture, png


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_rgb(tmp_path: Path, rgb: np.ndarray) -> None:
    image = load_image(saved(tmp_path / "a.png", rgb))
    assert image.shape == (3, 6, 9)
    assert image.dtype == torch.float32
    assert np.array_equal((image.numpy() * 255).round().transpose(1, 2, 0), rgb)


def test_greyscale(tmp_path: Path, rgb: np.ndarray) -> None:
    image = load_image(saved(tmp_path / "a.png", rgb[..., 0]))
    assert image.shape == (3, 6, 9)
    assert torch.equal(image[0], image[2])


def test_sixteen_bits_keep_their_precision(tmp_path: Path) -> None:
    grey = np.array([[0, 1, 32768, 65535]], dtype=np.uint16)
    image = load_image(saved(tmp_path / "a.png", grey))
    assert torch.allclose(image[1], torch.from_numpy(grey.astype(np.float32)) / 65535, atol=1e-7)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "P":
        picture = Image.new("P", (2, 1), 0)
        picture.putpalette([0, 0, 0, 255, 0, 0])
        picture.putpixel((1, 0), 1)
        picture.save(path, transparency=0)
        expected_right = torch.tensor([1.0, 0.0, 0.0])
    else:
        rgba = np.array([[[0, 0, 0, 0], [0, 0, 0, 127]]], dtype=np.uint8)
        saved(path, rgba, mode)
        expected_right = torch.full((3,), 128 / 255)
    image = load_image(path)
    assert torch.equal(image[:, 0, 0], torch.ones(3))
    assert torch.allclose(image[:, 0, 1], expected_right, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_transparent_grey_of_few_bits_is_laid_over_white(tmp_path: Path, depth: int) -> None:
    white = 2**depth - 1
    grey = np.arange(64).reshape(8, 8) % (white + 1)
    path = tmp_path / "a.png"
    path.write_bytes(png(grey, depth, clear=(white // 2,)))
    wanted = np.where(grey == white // 2, 1, grey / white)
    assert np.allclose(load_image(path).numpy(), wanted, atol=1e-6)
    with pytest.raises(DataError, match="transparent pixels"):
        load_mask(path, (8, 8))


def test_a_transparent_colour_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    colours = np.full((2, 2, 3), 0x1234)
    colours[0, 0, 2] = 0x1200  # alike in the 8 bits that are kept
    path = tmp_path / "a.png"
    path.write_bytes(png(colours, 16))
    assert load_image(path).shape == (3, 2, 2)
    path.write_bytes(png(colours, 16, clear=(0x1234, 0x1234, 0x1234)))
    with pytest.raises(DataError, match="a transparent one of 16-bit colours is not read exactly"):
        load_image(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"photometric": "miniswhite"}, "of 16 bits in which 0 is white"),
        ({"photometric": "rgb", "planarconfig": "separate"}, "of 16 bits whose colours lie apart"),
        ({"photometric": "rgb", "planarconfig": "contig"}, ""),
        ({"photometric": "minisblack"}, ""),
    ],
)
def test_tiff_of_many_bits_is_read_right_or_refused(
    tmp_path: Path, options: dict[str, str], told: str
) -> None:
    colours = options["photometric"] == "rgb"
    apart = options.get("planarconfig") == "separate"
    deep = np.random.default_rng(0).integers(0, 2**16, (3, 6, 9) if colours else (6, 9), dtype=np.uint16)
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, deep if apart or not colours else np.moveaxis(deep, 0, -1), **options)
    if told:
        with pytest.raises(DataError, match=f"{told} is not read exactly; save it as PNG"):
            load_image(path)
        return
    assert np.allclose(load_image(path).numpy(), deep / 65535, atol=1.01 / 255 if colours else 1e-6)


def test_tiff_of_twelve_bits_is_refused(tmp_path: Path) -> None:
    tags = [(256, 4), (257, 2), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 2), (279, 12)]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    path = tmp_path / "a.tiff"
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + b"\xff" * 12)
    with pytest.raises(DataError, match="a TIFF file of 12 bits a channel is not read exactly"):
        load_image(path)


def test_no_bit_of_a_png_may_flip(tmp_path: Path) -> None:
    whole = encoded(picture(24))
    wanted = raster.rgb(raster.read_encoded(whole, "a"))
    refused = 0
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 8
        try:
            found = raster.rgb(raster.read_encoded(bytes(content), "a"))
        except DataError:
            refused += 1
            continue
        assert np.array_equal(found, wanted), place
    assert refused > 0.9 * len(whole)


def test_webp_of_several_frames_may_be_lossless(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    for lossless in (True, False):
        picture(16).save(path, save_all=True, append_images=[picture(16, 1)], lossless=lossless)
        assert (raster.kind_of(path) == "WEBP lossless") == lossless


def test_exif_orientation(tmp_path: Path, rgb: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = load_image(saved(tmp_path / "a.png", rgb, exif=exif))
    assert image.shape == (3, 9, 6)
    assert np.array_equal((image.numpy() * 255).round().transpose(1, 2, 0), np.rot90(rgb, -1))


XMP = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize("ending", ["webp", "tiff"])
def test_orientation_in_xmp_counts_where_there_is_none_in_exif(
    tmp_path: Path, rgb: np.ndarray, ending: str
) -> None:
    own = {"xmp": XMP, "lossless": True} if ending == "webp" else {"tiffinfo": {700: XMP}}
    is_turned(saved(tmp_path / f"a.{ending}", rgb, **own), rgb)
    if ending == "webp":
        exif = Image.Exif()
        exif[0x0112] = 1
        both = load_image(saved(tmp_path / "b.webp", rgb, exif=exif, **own))
        assert np.array_equal((both.numpy() * 255).round().transpose(1, 2, 0), rgb)


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("kind", ["eXIf", "iTXt", "tEXt"])
def test_orientation_in_a_png_may_stand_anywhere(
    tmp_path: Path, rgb: np.ndarray, kind: str, place: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tags = exif.tobytes()
    profile = f"Raw profile type exif\0\nexif\n{len(tags):8}\n{tags.hex()}\n".encode()
    found = {"eXIf": tags[6:], "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, "tEXt": profile}[kind]
    chunk = kind.encode() + found
    file = saved(tmp_path / "a.png", rgb)
    whole = file.read_bytes()
    added = struct.pack(">I", len(found)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    file.write_bytes(whole[:place] + added + whole[place:])
    is_turned(file, rgb)


def is_turned(file: Path, pixels: np.ndarray) -> None:
    """An image is read by its orientation, and its size told so."""
    wanted = np.rot90(pixels, -1)
    assert np.array_equal((load_image(file).numpy() * 255).round().transpose(1, 2, 0), wanted)
    assert raster.size_of(file) == wanted.shape[:2]


def test_missing_and_corrupt(tmp_path: Path, rgb: np.ndarray) -> None:
    with pytest.raises(DataError, match="no such image file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="no such image file"):
        load_image(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("not an image")
    with pytest.raises(DataError, match=r"text\.png: not an image"):
        load_image(text)
    whole = saved(tmp_path / "a.png", np.repeat(rgb, 40, axis=0)).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png: the image is damaged"):
        load_image(cut)
    flipped = tmp_path / "flipped.png"
    flipped.write_bytes(whole[:200] + bytes(byte ^ 255 for byte in whole[200:400]) + whole[400:])
    with pytest.raises(DataError, match=r"flipped\.png: the image is damaged"):
        load_image(flipped)


def test_programs_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(DataError, match="not an image"):
        load_image(path)


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_huge_images_are_refused_undecoded(tmp_path: Path, side: int) -> None:
    """One below PIL's own limits, one where PIL warns, one where PIL refuses."""
    header = bytearray(saved(tmp_path / "small.png", np.zeros((1, 1, 3), np.uint8)).read_bytes())
    header[16:24] = side.to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    path = tmp_path / "huge.png"
    path.write_bytes(header)
    with pytest.raises(DataError, match="the limit is 64 megapixels"):
        load_image(path)


def test_limit_is_on_pixels(tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", rgb)
    monkeypatch.setattr(raster, "MAX_PIXELS", 54)
    assert load_image(path).shape == (3, 6, 9)
    monkeypatch.setattr(raster, "MAX_PIXELS", 53)
    with pytest.raises(DataError, match="9 x 6 pixels"):
        load_image(path)


def test_float_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no known range"):
        load_image(saved(tmp_path / "a.tiff", np.zeros((2, 2), np.float32)))


def test_mask(tmp_path: Path) -> None:
    grey = np.array([[0, 100, 200], [255, 127, 128]], dtype=np.uint8)
    mask = load_mask(saved(tmp_path / "m.png", grey), (2, 3))
    assert torch.equal(mask, torch.tensor([[0.0, 0, 1], [1, 0, 1]]))
    one_bit = load_mask(saved(tmp_path / "b.png", grey > 150), (2, 3))
    assert torch.equal(one_bit, torch.tensor([[0.0, 0, 1], [1, 0, 0]]))


def test_bad_masks(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match="the mask is 3 x 2 pixels, its image 4 x 2"):
        load_mask(path, (2, 4))
    with pytest.raises(DataError, match="multiply it by 255"):
        load_mask(saved(tmp_path / "one.png", np.eye(2, dtype=np.uint8)), (2, 2))
    with pytest.raises(DataError, match="needs 8 bits"):
        load_mask(saved(tmp_path / "deep.png", np.zeros((2, 2), np.uint16)), (2, 2))


def test_fit_crops_the_centre() -> None:
    image = torch.zeros(3, 4, 10)
    image[:, :, 3:7] = 1
    assert torch.equal(fit_image(image, (4, 4)), torch.ones(3, 4, 4))
    assert torch.allclose(fit_image(image, (8, 8)), torch.ones(3, 8, 8), atol=1e-5)
    assert fit_image(image, (2, 2)).shape == (3, 2, 2)
    mask = fit_mask(1 - image[0], (4, 8))
    assert torch.equal(mask[0], torch.tensor([1.0, 1, 0, 0, 0, 0, 1, 1]))


def test_fit_keeps_an_image_of_the_right_size() -> None:
    image = torch.rand(3, 5, 7)
    assert torch.equal(fit_image(image, (5, 7), "error"), image)


def test_fit_is_antialiased_and_masks_grow() -> None:
    stripes = torch.zeros(3, 16, 16)
    stripes[:, :, ::2] = 1
    assert torch.allclose(fit_image(stripes, (4, 4)), torch.full((3, 4, 4), 0.5), atol=0.1)
    dot = torch.zeros(16, 16)
    dot[5, 5] = 1
    small = fit_mask(dot, (4, 4))
    assert small[1, 1] == 1
    assert set(small.unique().tolist()) == {0.0, 1.0}
    assert small.sum() < 16


def test_fit_can_refuse() -> None:
    with pytest.raises(DataError, match="the image is 4 x 3 pixels, the model works at 8 x 8"):
        fit_image(torch.zeros(3, 3, 4), (8, 8), "error")
    with pytest.raises(ConfigError, match=r"fit: expected one of crop, pad, resize, error, got 'padd'\. Did"):
        images._part(torch.zeros(3, 3, 4), (8, 8), "padd")


def test_fit_can_pad_with_the_edge() -> None:
    image = torch.arange(4.0).view(1, 1, 4).expand(3, 2, 4) / 4
    padded = fit_image(image, (4, 4), "pad")
    assert torch.allclose(padded, (torch.arange(4.0) / 4).expand(3, 4, 4), atol=1e-6)
    tall = fit_image(image.transpose(1, 2), (8, 8), "pad")
    assert tall.shape == (3, 8, 8)
    assert torch.allclose(tall[:, :, :1].expand(-1, -1, 8), tall, atol=1e-6)
    assert torch.equal(fit_mask(torch.ones(2, 4), (4, 4), "pad").sum(1), torch.tensor([0.0, 4, 4, 0]))
    assert fit_image(torch.zeros(3, 1, 100), (8, 9), "pad").shape == (3, 8, 9)
    assert fit_mask(torch.zeros(1, 100), (8, 9), "pad").shape == (8, 9)


def test_fit_can_stretch() -> None:
    image = torch.zeros(3, 4, 8)
    image[:, :, 4:] = 1
    stretched = fit_image(image, (8, 8), "resize")
    assert torch.allclose(stretched[:, :, :3], torch.zeros(3, 8, 3), atol=0.1)
    assert torch.allclose(stretched[:, :, 5:], torch.ones(3, 8, 3), atol=0.1)
    assert torch.equal(fit_mask(image[0], (8, 8), "resize")[:, 5:], torch.ones(8, 3))


@pytest.mark.parametrize("fit", ["crop", "pad", "resize", "error"])
def test_every_fit_keeps_an_image_of_the_right_size(fit: str) -> None:
    image = torch.rand(3, 5, 7)
    assert torch.equal(fit_image(image, (5, 7), fit), image)
    assert torch.equal(fit_mask(image[0].round(), (5, 7), fit), image[0].round())
