"""Templates, style sheets and scripts of the pages."""

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ASSETS = Path(__file__).parent / "assets"


@lru_cache
def asset(name: str) -> str:
    """Text of a file among the assets."""
    return (_ASSETS / name).read_text(encoding="utf-8")


@lru_cache
def environment() -> Environment:
    """Where templates are found; everything they write is escaped."""
    return Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
