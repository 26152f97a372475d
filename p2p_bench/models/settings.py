"""Settings that checkpoints of all families have."""

from typing import Annotated

import torch

from p2p_bench.fields import Between, OneOf

Dtype = Annotated[str, OneOf(("float64", "float32", "bfloat16", "float16"))]
"""Number formats of weights."""

SIDE = Between(0, 1, "a fraction of the latent side", open_low=True)
"""What sizes of attention maps are given in."""

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
