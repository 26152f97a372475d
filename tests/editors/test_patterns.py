"""Names of pictures by a pattern, in both directions."""

from pathlib import Path

import pytest

from p2p_bench.editors.patterns import Pattern
from p2p_bench.errors import ConfigError
from p2p_bench.types import EditPair

ROOT = Path("/set")
PAIR = EditPair("a/1.x", "s", ("t",), category="colour", image=ROOT / "images" / "0_random" / "7.jpg")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{id}.png", "a/1.x.png"),
        ("{index:05d}_{target}", "00012_3"),
        ("{variant}/{category}/{id}", "mine/colour/a/1.x"),
        ("{variant}/{path}.jpg", "mine/images/0_random/7.jpg"),
        ("{name}", "7"),
    ],
)
def test_a_pattern_names_the_picture_of_an_edit(text: str, name: str) -> None:
    assert Pattern(text).of(PAIR, 12, 3, "mine", ROOT) == name


@pytest.mark.parametrize(
    ("text", "file", "variant"),
    [
        ("{variant}/{id}", "mine/1.png", "mine"),
        ("{variant}/{id}", "mine/deeper/1.PNG", "mine"),
        ("{variant}/{id}.jpg", "mine/1.png", None),
        ("{variant}/{variant}_{id}", "mine/mine_1.png", "mine"),
        ("{variant}/{variant}_{id}", "mine/other_1.png", None),
        ("{id}", "mine/1.png", ""),
    ],
)
def test_a_file_tells_its_variant(text: str, file: str, variant: str | None) -> None:
    assert Pattern(text).variant_of(file) == variant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{idx}.png", "Did you mean 'id'"),
        ("{id.__class__}", "unknown field"),
        ("{id!r}", "unknown field"),
        ("{}", "unknown field {}"),
        ("{id", "cannot be read"),
        ("{id:05d}", "no format of a number"),
        ("{index:999999999d}", "no format of a number"),
        ("{variant}.png", "names no sample"),
    ],
)
def test_patterns_that_mean_nothing_are_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=r"score\.pattern") as refused:
        Pattern(text)
    assert told in str(refused.value)


def test_paths_need_files() -> None:
    with pytest.raises(ConfigError, match="pair 'x' has none"):
        Pattern("{path}").of(EditPair("x", "s", ("t",)), 0, 0, "", ROOT)
