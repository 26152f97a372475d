"""Where the networks lie that were trained on the embedded world."""

from pathlib import Path

from p2p_bench.errors import MissingWeightsError
from p2p_bench.resources import resource_path

WORLD = "world"
"""Label of every value that such a network gives; never to be compared with published ones."""


def embedded_weights(part: str, given: str | Path | None, file: str) -> Path:
    """Folder of a judge's weights.

    Args:
        part: Name of the shipped folder, such as "lpips".
        given: A folder to take in its place; None takes the shipped one.
        file: The weights' file that must lie there.

    Raises:
        MissingWeightsError: It does not.
    """
    if given is None:
        folder = resource_path("p2p_bench", "world", "weights", part)
        remedy = "install p2p_bench again"
    else:
        folder = Path(given).expanduser()
        remedy = "`p2p-bench train-world` makes it"
    if not (folder / file).is_file():
        raise MissingWeightsError(f"world weights {part!r}: {folder / file} is not there; {remedy}")
    return folder
