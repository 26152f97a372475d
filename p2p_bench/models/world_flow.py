"""The embedded world's second model: a flow transformer, trained by this project on the same scenes."""

from pathlib import Path
from typing import Annotated

from p2p_bench.fields import Above, AtLeast
from p2p_bench.guidance import GuidanceInterval, Interval
from p2p_bench.models.sd3_checkpoint import SD3Checkpoint
from p2p_bench.models.settings import SIDE, Dtype
from p2p_bench.resources import resource_path

GUIDED: Interval = (0.15, 1.0)
"""At the highest noise guidance would draw every object toward the middle (`experiments/world`)."""
_T5_COLUMNS = 1  # it was trained with so many columns of zeros in the place of a T5


def world_flow_checkpoint(
    path: Path | str | None = None,
    name: str = "world_flow",
    guidance: Annotated[float, AtLeast(0)] = 4.0,
    steps: Annotated[int, AtLeast(1)] = 28,
    self_fraction: Annotated[float, SIDE] = 0.5,
    record_fraction: Annotated[float, SIDE] = 0.5,
    dtype: Dtype = "float32",
    null_text_learning_rate: Annotated[float, Above(0)] = 0.1,
    guidance_interval: GuidanceInterval = GUIDED,
) -> SD3Checkpoint:
    """The checkpoint of the embedded flow model, in the `StableDiffusion3Pipeline` directory format.

    Args:
        path: Another directory of the same format, such as one left by `p2p-bench train-world world=flow`;
            None takes the shipped one.
        name: Name in results.
        guidance: Default guidance scale.
        steps: Default number of denoising steps.
        self_fraction: See `SD3Checkpoint`.
        record_fraction: See `SD3Checkpoint`.
        dtype: See `SD3Checkpoint`.
        null_text_learning_rate: See `SD3Checkpoint`.
        guidance_interval: See `SD3Checkpoint`.

    Raises:
        MissingWeightsError: The installation is damaged.
    """
    return SD3Checkpoint(
        path=resource_path("p2p_bench", "world", "weights", "pipeline_flow") if path is None else path,
        name=name,
        guidance=guidance,
        steps=steps,
        self_fraction=self_fraction,
        record_fraction=record_fraction,
        dtype=dtype,
        null_text_learning_rate=null_text_learning_rate,
        guidance_interval=guidance_interval,
        t5=False,
        t5_tokens=_T5_COLUMNS,
    )
