"""Image files that PIL reads otherwise than their formats say, or whose damage it does not see."""

import io
import zlib
from collections.abc import Iterator

from PIL import Image

File = io.BufferedReader | io.BytesIO

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS = b"IDAT"
_ORIENTED = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""How texts of a PNG file begin in which PIL finds an orientation."""
_PIECE = 2**20
"""Bytes that are read at once, whatever length a damaged file states."""
_SMALL = {"L;2": 3, "L;4": 15}
"""White of the PNG files with fewer than 8 bits a pixel that PIL stretches to 255."""
_DEEP = "RGB;16B"
_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284
"""Tags of TIFF files."""


def is_broken_png(file: File) -> bool:
    """Whether the pixels of a PNG file are not those that were written, by their checksums.

    PIL compares those of all chunks but these, and takes what can be unpacked. Where the file is cut off, it
    says so itself.

    Args:
        file: Any file, at its start, where it is again afterwards.
    """
    broken = False
    for kind, size in _chunks(file):
        if kind != _PIXELS:
            continue
        found = zlib.crc32(_PIXELS)
        while size and (piece := file.read(min(size, _PIECE))):
            found, size = zlib.crc32(piece, found), size - len(piece)
        told = file.read(4)
        broken = len(told) == 4 and found != int.from_bytes(told, "big")
        if broken:
            break
    file.seek(0)
    return broken


def may_be_turned(file: File) -> bool:
    """Whether a PNG file holds EXIF or XMP, before or behind its pixels; PIL decodes them to look behind.

    Args:
        file: The file, at its start.
    """
    texts = (b"tEXt", b"zTXt", b"iTXt")
    return any(kind == b"eXIf" or (kind in texts and _names_orientation(file)) for kind, _ in _chunks(file))


def _names_orientation(file: File) -> bool:
    return file.read(max(map(len, _ORIENTED))).startswith(_ORIENTED)


def _chunks(file: File) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk of a PNG file, which is at its first byte meanwhile; none of others."""
    if file.read(len(_PNG)) != _PNG:
        return
    while len(head := file.read(8)) == 8:
        place, size = file.tell(), int.from_bytes(head[:4], "big")
        yield head[4:], size
        file.seek(place + size + 4)


def clear_grey(image: Image.Image) -> int | None:
    """The transparent grey of a PNG file as PIL stretches its pixels; None where PIL has it right.

    Args:
        image: An opened file that is not decoded yet.
    """
    white, stated = _SMALL.get(_raw_mode(image)), image.info.get("transparency")
    return None if white is None or not isinstance(stated, int) else (stated & white) * (255 // white)


def misread(image: Image.Image) -> str:
    """What a file is that PIL makes another picture of, in words; "" where it does not.

    Of a PNG file's colours of 16 bits PIL keeps 8, by which several are alike where one is transparent. TIFF
    files of more than 8 bits it takes for other numbers where they have 12, where 0 is white, and where
    colours lie one behind the other without compression.

    Args:
        image: An opened file that is not decoded yet.
    """
    if _raw_mode(image) == _DEEP and "transparency" in image.info:
        return "a PNG file with a transparent one of 16-bit colours"
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = tags.get(_BITS, (1,))
    if max(bits) <= 8:
        return ""
    if set(bits) not in ({16}, {32}):
        return f"a TIFF file of {max(bits)} bits a channel"
    if tags.get(_PHOTOMETRIC) == 0:
        return f"a TIFF file of {max(bits)} bits in which 0 is white"
    apart = len(bits) > 1 and tags.get(_PLANES) == 2 and image.info.get("compression") == "raw"
    return f"an uncompressed TIFF file of {max(bits)} bits whose colours lie apart" if apart else ""


def is_lossless_webp(file: File) -> bool:
    """Whether the first picture of a WebP file is kept exactly: its chunk is VP8L.

    Args:
        file: The file, at its start.
    """
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8L", b"VP8 "):
            return head[:4] == b"VP8L"
        size = int.from_bytes(head[4:], "little")
        # The chunks of a frame of several lie in it, behind its place and duration.
        file.seek(16 if head[:4] == b"ANMF" else size + size % 2, io.SEEK_CUR)
    return False


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of a PNG file that is not decoded yet lie in it, as PIL calls it; "" of others."""
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    return str(tiles[0][3]) if tiles else ""
