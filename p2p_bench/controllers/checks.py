"""Checks that several controllers share."""

from typing import Any

from p2p_bench.errors import ConfigError, nearest

PRESETS = ("correct", "paper")
"""Alignment of tokens without slips, or with those of the released code."""


def check_preset(value: Any, name: str) -> None:
    """See that a preset is known.

    Raises:
        ConfigError: It is not.
    """
    if value not in PRESETS:
        hint = nearest(str(value), PRESETS)
        raise ConfigError(f"{name}: expected 'correct' or 'paper', got {value!r}.{hint}")
