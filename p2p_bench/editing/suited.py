"""Whether a model, and what its rows are told, suit an edit."""

from p2p_bench.controllers import BoundController
from p2p_bench.errors import ConfigError
from p2p_bench.models import ModelSpec


def check_features(spec: ModelSpec, bound: BoundController, steps: int) -> None:
    """See that a model has the features that an edit injects.

    Args:
        spec: Facts about the model.
        bound: The edit.
        steps: Number of denoising steps.

    Raises:
        ConfigError: It has not.
    """
    if "features" in spec.capabilities or not any(bound.features(step) for step in range(steps)):
        return
    raise ConfigError(
        f"controller: {bound.control} injects features of a residual block in the decoder of a U-Net, which "
        f"model {spec.name!r} of family {spec.family!r} does not have; take controller=self_attention or "
        "image_qk, or another model"
    )
