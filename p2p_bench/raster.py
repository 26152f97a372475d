"""Pictures as users have them (files, PIL objects, arrays) brought to one form, or refused with a reason.

Every source image and every mask comes through here, so that a picture is the same however it is given:

| kind | what becomes of it |
|---|---|
| EXIF orientation, or that of XMP where there is none | applied |
| greyscale, black and white, palette, CMYK, YCbCr, HSV, L*a*b* | RGB |
| transparency: alpha (premultiplied too), a palette's, a transparent colour | laid over white |
| 16-bit greyscale | keeps its precision; 16-bit colour is read at 8 bits, as PIL does |
| what PIL misreads: PNG with a transparent one of 16-bit colours, some TIFF of over 8 bits | refused |
| several frames (GIF, TIFF, WebP) | the first of a file, the current one of a PIL object |
| colour profiles | ignored |
| 32-bit integers, floating-point files | refused: their range is not known |
| PNG files whose pixels have another checksum than stands there | refused, as other damaged files |
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageOps, UnidentifiedImageError

from p2p_bench.errors import DataError
from p2p_bench.misread import clear_grey, is_broken_png, is_lossless_webp, may_be_turned, misread

MAX_PIXELS = 64 * 2**20
"""Pictures above this are refused before they are decoded."""

# Readers of plain pixels only: others start programs (EPS) or have no use here.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# What PIL's readers and converters raise on damaged files.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    struct.error,
    zlib.error,
)
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_NO_RANGE = {"I": "32-bit integer", "F": "floating-point"}
_MOST_COLOUR = 32
"""Largest difference between the channels of a mask's pixel: JPEG leaves a few levels in black and white."""
LAST_UNTURNED = 4
"""EXIF orientations up to this one keep width and height."""

_ORIENTATION, _ORIENTATIONS = 0x0112, range(1, 9)


@dataclass(frozen=True)
class Picture:
    """A decoded picture, the right way up.

    Attributes:
        name: What messages call it: its path, or the argument it came by.
        image: The pixels, in any of PIL's modes.
        orientation: The EXIF orientation that was applied; 1 where there was none to apply.
        sixteen_bits: Whether its integers run from 0 to 65535.
    """

    name: str
    image: Image.Image
    orientation: int
    sixteen_bits: bool


def is_file(path: Path) -> bool:
    """Whether there is a regular file, of any name: one that no file system could hold is not there."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image file as it is shown, from its header.

    Raises:
        DataError: The file is missing or no readable image.
    """
    _, (width, height), orientation = _header(path)
    return (height, width) if orientation <= LAST_UNTURNED else (width, height)


def kind_of(path: Path) -> str:
    """What an image file is: PNG, JPEG, WEBP (with losses), "WEBP lossless", ...; "" where it is none."""
    try:
        kind, _, _ = _header(path)
    except DataError:
        return ""
    if kind != "WEBP":
        return kind
    with path.open("rb") as file:
        return "WEBP lossless" if is_lossless_webp(file) else kind


LOSSY = ("JPEG", "WEBP", "TIFF JPEG")
"""Kinds of files that do not keep every pixel, as `kind_of` calls them."""


def _header(path: Path) -> tuple[str, tuple[int, int], int]:
    """Format, width and height, and EXIF orientation of an image file; no pixel is decoded."""
    name = shortened(str(path))
    if not is_file(path):
        raise DataError(f"{name}: no such image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                # PIL decodes a PNG to look for the tag behind the pixels.
                asked = image.format != "PNG" or _oriented(path)
                turned = image.getexif().get(_ORIENTATION) if asked else 1
                orientation = turned if isinstance(turned, int) and turned in _ORIENTATIONS else 1
                return _format(image), image.size, orientation
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many pixels") from error
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error


def _oriented(path: Path) -> bool:
    with path.open("rb") as file:
        return may_be_turned(file)


def _format(image: Image.Image) -> str:
    """PIL's name, but for JPEG that lies in another kind of file: that of several pictures, or a TIFF."""
    if image.format == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        return "TIFF JPEG"
    return "JPEG" if image.format == "MPO" else str(image.format)


def read_picture(path: Path) -> Picture:
    """Decodes an image file.

    Raises:
        DataError: The file is missing, is no readable image, is damaged or has more than `MAX_PIXELS`.
    """
    name = shortened(str(path))
    if not is_file(path):
        raise DataError(f"{name}: no such image file")
    try:
        with path.open("rb") as file:
            return _decoded(file, name)
    except PermissionError as error:
        raise DataError(f"{name}: the file may not be read ({error.strerror})") from error
    except OSError as error:
        raise _damaged(name, error) from error


def read_encoded(content: bytes, name: str) -> Picture:
    """Decodes the bytes of an image file, as columns of tables hold them.

    Args:
        content: The bytes.
        name: What messages call it.

    Raises:
        DataError: As of `read_picture`.
    """
    return _decoded(io.BytesIO(content), name)


def _decoded(file: io.BufferedReader | io.BytesIO, name: str) -> Picture:
    try:
        with warnings.catch_warnings():
            # PIL has a limit of its own above ours and only warns there.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if is_broken_png(file):
                raise DataError(
                    f"{name}: the image is damaged: its pixels are not those that were written (checksum)"
                )
            with Image.open(file, formats=_FORMATS) as image:
                return as_picture(image, name)
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: not an image, or damaged at its start; readable formats are {', '.join(_FORMATS)}"
        ) from error
    except DataError:
        raise
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error


def as_picture(image: Image.Image, name: str) -> Picture:
    """A PIL image, decoded and the right way up; the object itself is not changed.

    Raises:
        DataError: It is empty, too large, or its file is damaged or closed.
    """
    width, height = image.size
    if not width * height:
        raise DataError(f"{name}: the image is empty ({width} x {height} pixels)")
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height} pixels")
    if told := misread(image):
        raise DataError(f"{name}: {told} is not read exactly; save it as PNG with 8 bits a channel")
    clear = clear_grey(image)
    sixteen_bits = image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM"))
    try:
        stated = image.getexif().get(_ORIENTATION)  # before loading, with which PIL turns a TIFF
        orientation = stated if isinstance(stated, int) and stated in _ORIENTATIONS else 1
        _load(image, unmapped=image.format == "TIFF" and orientation > LAST_UNTURNED)
        upright = ImageOps.exif_transpose(image)
        if clear is not None:
            upright.info["transparency"] = clear
        return Picture(name, upright, orientation, sixteen_bits)
    except _DECODE_ERRORS as error:
        raise _damaged(name, error) from error


def rgb(picture: Picture) -> Float[np.ndarray, "3 h w"]:
    """A picture as RGB in [0, 1], float32; how is told at the head of this module.

    Raises:
        DataError: Its pixels have no known range, or PIL cannot convert them.
    """
    image = picture.image
    if picture.sixteen_bits:
        grey = np.asarray(image).astype(np.float32) / 65535
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[np.asarray(image) == clear] = 1
        return np.repeat(grey[None], 3, axis=0)
    if image.mode in _NO_RANGE:
        raise DataError(
            f"{picture.name}: {_NO_RANGE[image.mode]} pixels have no known range; save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, _converted(picture, "RGBA"))
        return _scaled(np.asarray(image.convert("RGB")))
    return _scaled(np.asarray(_converted(picture, "RGB")))


def mask(picture: Picture) -> Bool[np.ndarray, "h w"]:
    """A picture as a mask: true where it is white, split at half grey.

    What is no picture in black and white is refused, since it would be read as some other mask: colours
    (labels, say), transparent pixels, 16 bits, or nothing brighter than half grey though not all is black.

    Raises:
        DataError: The picture is none.
    """
    name, image = picture.name, picture.image
    if picture.sixteen_bits or image.mode in _NO_RANGE:
        raise DataError(f"{name}: a mask needs 8 bits or 1 bit a pixel, this has mode {image.mode}")
    if image.has_transparency_data and np.asarray(_converted(picture, "RGBA"))[..., 3].min() < 255:
        raise DataError(
            f"{name}: the mask has transparent pixels, which may stand for either; save it without alpha, "
            "white where the image may change and black elsewhere"
        )
    channels = np.asarray(_converted(picture, "RGB"))
    if int(np.ptp(channels, axis=-1).max()) > _MOST_COLOUR:
        raise DataError(
            f"{name}: the mask has colours; save it in black and white, white where the image may change"
        )
    grey = np.asarray(Image.fromarray(channels).convert("L"))
    peak = int(grey.max())
    if peak == 1:
        raise DataError(f"{name}: the mask holds 0 and 1, but white is 255; multiply it by 255")
    if 0 < peak <= 127:
        raise DataError(
            f"{name}: the brightest pixel of the mask is {peak} of 255, so none is white; white is 255"
        )
    return grey > 127


def array_rgb(array: np.ndarray, name: str, channels_first: bool = False) -> Float[np.ndarray, "3 h w"]:
    """An array of pixels as RGB in [0, 1], float32.

    Args:
        array: (h, w), (h, w, channels) or (1, h, w, channels): uint8 in [0, 255] of 1 to 4 channels (grey,
            grey and alpha, RGB, RGBA) or float in [0, 1] of 1 or 3. (h, w) may also be bool or uint16.
        name: The argument it came by.
        channels_first: The layout is (channels, h, w), of 1 or 3 channels, as tensors have it.

    Raises:
        DataError: It has another layout, masked pixels, or values out of range.
    """
    if np.ma.is_masked(array):
        raise DataError(f"{name}: some pixels of the array are masked, so they have no value; fill them")
    pixels = array[0] if array.ndim == 4 and len(array) == 1 else array
    if channels_first and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    count = pixels.shape[2] if pixels.ndim == 3 else 1
    kind = _array_kind(pixels.dtype)
    counts = {"uint8": (1, 3) if channels_first else (1, 2, 3, 4), "float": (1, 3)}
    fits = pixels.ndim == 2 if kind in ("bool", "uint16") else count in counts.get(kind, ())
    if pixels.ndim not in (2, 3) or not fits:
        layouts = "(3, h, w), (1, h, w) or (h, w)" if channels_first else "(h, w, 3), (h, w, 1) or (h, w)"
        raise DataError(
            f"{name}: expected {layouts}, float in [0, 1] or uint8 in [0, 255], "
            f"got {array.dtype} {tuple(array.shape)}"
        )
    if not pixels.size:
        raise DataError(f"{name}: the image is empty, its shape is {tuple(array.shape)}")
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise _too_large(name, f"{pixels.shape[1]} x {pixels.shape[0]} pixels")
    if kind != "float":
        plain = pixels[..., 0] if pixels.ndim == 3 and count == 1 else pixels
        native = np.ascontiguousarray(plain, dtype=plain.dtype.newbyteorder("="))
        return rgb(as_picture(Image.fromarray(native), name))
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"{name}: expected finite values in [0, 1], got {low:g} to {high:g}")
    channels = np.moveaxis(pixels.reshape(*pixels.shape[:2], count), -1, 0).astype(np.float32)
    return np.broadcast_to(channels, (3, *channels.shape[1:])).copy()


def shortened(text: str, most: int = 200) -> str:
    """Text for a message: its middle left out where it is long, what cannot be shown escaped."""
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 4 :]}"
    return text if text.isprintable() else text.encode("unicode_escape", "surrogatepass").decode("ascii")


def _load(image: Image.Image, unmapped: bool) -> None:
    """Decodes an opened file.

    PIL maps an uncompressed TIFF into memory with the width and height that it has after it is turned, which
    scrambles it; a file without a name it reads instead.
    """
    name = getattr(image, "filename", None)
    if not unmapped or not name:
        image.load()
        return
    image.filename = ""  # type: ignore[attr-defined]  # of files that PIL opened, which this is
    try:
        image.load()
    finally:
        image.filename = name  # type: ignore[attr-defined]  # as above


def _array_kind(dtype: np.dtype[Any]) -> str:
    return "float" if dtype.kind == "f" else dtype.name


def _converted(picture: Picture, mode: str) -> Image.Image:
    image = picture.image
    try:
        # Premultiplied grey converts to nothing but itself undone.
        return (image.convert("LA") if image.mode == "La" else image).convert(mode)
    except _DECODE_ERRORS as error:
        raise DataError(
            f"{picture.name}: an image of mode {image.mode} cannot be made RGB ({error}); save it as RGB"
        ) from error


def _scaled(pixels: np.ndarray) -> Float[np.ndarray, "3 h w"]:
    return np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32) / 255, -1, 0))


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: the image is damaged and cannot be decoded ({error})")


def _too_large(name: str, found: str) -> DataError:
    limit = MAX_PIXELS // 2**20
    return DataError(f"{name}: the image has {found}, the limit is {limit} megapixels; make it smaller")
