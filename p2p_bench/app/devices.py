"""Where verbs compute that make pictures without a trainer."""

from omegaconf import DictConfig

from p2p_bench.errors import ConfigError


def single_device(config: DictConfig) -> str:
    """The device of the trainer's accelerator.

    Raises:
        ConfigError: There is none of this name.
    """
    from p2p_bench.models.device import device_of

    device = device_of(str(config.trainer.accelerator))
    if device in ("cpu", "cuda", "mps"):
        return device
    raise ConfigError(f"trainer.accelerator: expected auto, cpu, cuda or mps, got {device!r}")
