"""Finds what the project ships: configuration, prompt pairs, weights."""

from pathlib import Path

from p2p_bench.errors import MissingWeightsError

_PACKAGE = Path(__file__).resolve().parent
_BUNDLE = _PACKAGE / "_bundle"
"""Where the wheel puts the top-level folders (`conf`, `datasets`) of the checkout."""


def resource_path(*parts: str) -> Path:
    """Path of a shipped file or folder, in a checkout, an editable install and a wheel alike.

    Args:
        parts: Path relative to the top of the checkout, such as `("conf",)` or
            `("p2p_bench", "world", "weights")`.

    Raises:
        MissingWeightsError: The resource is not there, so the installation is damaged.
    """
    bundle = _PACKAGE.joinpath(*parts[1:]) if parts[0] == _PACKAGE.name else _BUNDLE.joinpath(*parts)
    checkout = _PACKAGE.parent.joinpath(*parts)
    for path in (bundle, checkout):
        if path.exists():
            return path
    raise MissingWeightsError(
        f"{'/'.join(parts)} is missing from this installation (looked at {bundle} and {checkout}); "
        "install it again"
    )
