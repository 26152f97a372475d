"""Marks in PNG files, by which a picture is known again: its content, its name and who wrote it."""

import hashlib
import zlib

_KEYWORD = b"p2p_bench\0"
_END = 12
"""Bytes of the chunk that ends a PNG file."""
_MARK = 12 + len(_KEYWORD) + hashlib.sha256().digest_size * 2
"""Bytes of the chunk of text that is the mark."""


def mark_name(run_id: str, path: str) -> str:
    """What a run marks its picture as; `path` is below its directory."""
    return f"{run_id}/{path}"


def marked(png: bytes, name: str) -> bytes:
    """A PNG file with a mark in it, which viewers pass by.

    Args:
        png: The file, without a mark.
        name: What the picture is called, and whose it is.
    """
    body = png[:-_END]
    return body + _chunk(body, name) + png[-_END:]


def fits(content: bytes, name: str) -> bool | None:
    """Whether a file is what was marked under a name; None where it has no mark.

    Args:
        content: The file, of any kind.
        name: As it was marked.
    """
    body, mark = content[: -_MARK - _END], content[-_MARK - _END : -_END]
    if mark[8 : 8 + len(_KEYWORD)] != _KEYWORD:
        return None
    return mark == _chunk(body, name)


def _chunk(body: bytes, name: str) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0" + body).hexdigest().encode()
    text = b"tEXt" + _KEYWORD + digest
    return (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
