"""A very small CLIP with a vision transformer and random weights, in open_clip's folder format."""

import functools
import json
import tempfile
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from p2p_bench.models import ModelSpec
from tests.models.tiny import tiny_tokenizer

_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-clip-")
"""Networks of this session; removed when it ends."""


def tiny_clip(width: int = 16, image_size: int = 8) -> str:
    """The folder of a network that is made once per session: patches of 4, two layers, two heads.

    Args:
        width: Of its tokens; that of the tiny checkpoint's text.
        image_size: Side of the images it reads.
    """
    return _made(width, image_size)


@functools.cache
def _made(width: int, image_size: int) -> str:
    folder = Path(_FOLDER.name) / f"{width}-{image_size}"
    tokenizer = tiny_tokenizer(folder)
    text = {"context_length": 16, "vocab_size": len(tokenizer), "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": image_size, "layers": 2, "width": width, "patch_size": 4}
    vision["head_width"] = width // 2
    config = {
        "model_cfg": {
            "embed_dim": 8,
            "vision_cfg": vision,
            "text_cfg": {**text, "hf_tokenizer_name": "local"},
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        for name, weight in model.visual.named_parameters():
            if name.endswith(("ln_post.weight", "ln_post.bias")):
                weight.data += 0.3 * torch.randn_like(weight)
    save_file({name: one.contiguous() for name, one in model.state_dict().items()}, folder / _WEIGHTS)
    return str(folder)


_WEIGHTS = "open_clip_model.safetensors"


def encoder(option: str, spec: ModelSpec) -> list[str]:
    """Overrides of an inversion for small models: an image encoder as wide as their text, and less to do."""
    if option != "style_diffusion" or spec.text_width is None:
        return []
    return [f"inversion.encoder_weights={tiny_clip(spec.text_width)}", "inversion.inner_steps=4"]
