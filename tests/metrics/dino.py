"""A small random network of DINO's class."""

from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel


def random_dino(folder: Path, layers: int = 12, patch: int = 8, width: int = 24) -> Path:
    """A folder in the format of transformers, with as many tokens as ViT-B/8."""
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=3,
        intermediate_size=32,
        image_size=224,
        patch_size=patch,
        layer_norm_eps=1e-6,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        ViTModel(config).save_pretrained(folder)
    return folder
