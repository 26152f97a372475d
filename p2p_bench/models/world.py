"""The embedded world's model: small, trained by this project and shipped with it."""

from pathlib import Path
from typing import Annotated

from p2p_bench.fields import Above, AtLeast
from p2p_bench.models.checkpoint import UNetCheckpoint
from p2p_bench.models.settings import SIDE, Dtype
from p2p_bench.resources import resource_path


def world_checkpoint(
    path: Path | str | None = None,
    name: str = "world",
    guidance: Annotated[float, AtLeast(0)] = 4.0,
    steps: Annotated[int, AtLeast(1)] = 25,
    self_fraction: Annotated[float | None, SIDE] = 0.5,
    record_fraction: Annotated[float | None, SIDE] = 0.5,
    dtype: Dtype = "float32",
    null_text_learning_rate: Annotated[float, Above(0)] = 0.1,
) -> UNetCheckpoint:
    """The checkpoint of the embedded world.

    Args:
        path: Another directory of the same format, such as one left by `p2p-bench train-world`; None
            takes the shipped one.
        name: Name in results.
        guidance: Default guidance scale.
        steps: Default number of denoising steps.
        self_fraction: See `UNetCheckpoint`.
        record_fraction: See `UNetCheckpoint`.
        dtype: See `UNetCheckpoint`.
        null_text_learning_rate: See `UNetCheckpoint`; at the published one, embeddings of so small a model do
            not get where they should.

    Raises:
        MissingWeightsError: The installation is damaged.
    """
    return UNetCheckpoint(
        path=resource_path("p2p_bench", "world", "weights", "pipeline") if path is None else path,
        name=name,
        guidance=guidance,
        steps=steps,
        self_fraction=self_fraction,
        record_fraction=record_fraction,
        dtype=dtype,
        null_text_learning_rate=null_text_learning_rate,
    )
