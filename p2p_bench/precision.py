"""Double precision where the device has none."""

from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """The values in float64, on their device, or on the CPU where their device has no such format (Apple's).

    Scores are taken in float64, so that they are those of a CPU on every device.
    """
    return (values.cpu() if values.device.type == "mps" else values).double()
