"""Marks in PNG files."""

from io import BytesIO

from PIL import Image

from p2p_bench.marks import fits, marked


def png(level: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 3), (level, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_mark_tells_content_and_name() -> None:
    one, other = marked(png(1), "run/a.png"), marked(png(2), "run/a.png")
    assert fits(one, "run/a.png") is True
    assert fits(one, "run/b.png") is False
    assert fits(one[:60] + other[60:], "run/a.png") is False
    assert fits(png(1), "run/a.png") is None
    assert fits(b"", "run/a.png") is None


def test_the_picture_stays_what_it_was() -> None:
    with Image.open(BytesIO(marked(png(7), "run/a.png"))) as picture:
        picture.load()
        assert picture.getpixel((0, 0)) == (7, 0, 0)
        assert len(picture.text["p2p_bench"]) == 64
