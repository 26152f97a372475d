"""DINO (Caron et al. 2021): where its weights are found, and the features it gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize, resize

from p2p_bench.errors import MissingWeightsError
from p2p_bench.metrics.networks import Memo, content, shared_network
from p2p_bench.weights import readable, refuse_damaged, refuse_foreign

REPOSITORY = "facebook/dino-vitb8"
_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_KEY_LAYER = 11
_SIDE, _LONGEST = 224, 480
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_REMEMBERED = 32


_PATCH, _OTHER_WIDTHS = 8, (192, 384, 1024)
"""Pixels of a patch of ViT-B/8, and widths of the other sizes that are published."""


class DinoFeatures(NamedTuple):
    """What DINO makes of an image.

    Attributes:
        token: The class token after the last normalisation, (d,).
        keys: Keys of layer 11 (from 0), all tokens, heads joined, (t, d).
    """

    token: Tensor
    keys: Tensor


def locate_dino(weights: str | Path | None) -> Path:
    """Finds the weights of DINO ViT-B/8 without loading them and without a network connection.

    Args:
        weights: Folder in the format of transformers, with `config.json` and `model.safetensors` or
            `pytorch_model.bin`; None looks in the Hugging Face cache.

    Returns:
        The file of the weights; `config.json` lies beside it.

    Raises:
        MissingWeightsError: A file is not there.
    """
    if weights is None:
        found = [try_to_load_from_cache(REPOSITORY, name) for name in (_CONFIG, *_WEIGHTS)]
        folder = Path(found[0]).parent if isinstance(found[0], str) else None
        where = f"the Hugging Face cache at {HF_HUB_CACHE}"
    else:
        folder, where = Path(weights).expanduser(), f"{weights}"
    if folder is not None and (folder / _CONFIG).is_file():
        for name in _WEIGHTS:
            if (folder / name).is_file():
                return folder / name
    raise MissingWeightsError(
        f"DINO weights: {_CONFIG} and {' or '.join(_WEIGHTS)} of {REPOSITORY} are not in {where}; "
        f"on a machine with a network run `hf download {REPOSITORY}`, or give weights=<folder of both>"
    )


def dino_files(weights: str | Path | None) -> tuple[Path, ...]:
    """What decides the network: its weights, found by `locate_dino`, and its configuration."""
    file = locate_dino(weights)
    return file, file.parent / _CONFIG


def dino_input(
    image: Float[Tensor, "3 h w"], antialias: bool = True, scale: float = 1.0
) -> Float[Tensor, "3 y x"]:
    """An image as DINO is given it: shorter side 224, ImageNet's mean and standard deviation.

    Args:
        image: In [0, 1].
        antialias: Whether pixels are averaged when the image is made smaller.
        scale: What the image is multiplied with first; DINO was trained with 1.
    """
    small = resize(image.float() * scale, [_SIDE], max_size=_LONGEST, antialias=antialias)
    scaled: Tensor = normalize(small, _MEAN, _STD)
    return scaled


class DinoNetwork:
    """A loaded DINO.

    Args:
        file: What `locate_dino` found.
        device: Where it runs.

    Raises:
        MissingWeightsError: The file is not whole, or another network's.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        model = readable(lambda: _read(file), "DINO", file)
        width, patch = model.config.hidden_size, model.config.patch_size
        if patch != _PATCH or width in _OTHER_WIDTHS:
            raise MissingWeightsError(
                f"DINO: {file} is a network of width {width} with patches of {patch} pixels; the columns are "
                f"of {REPOSITORY}, of width 768 with patches of {_PATCH}, and another gives other values"
            )
        keys = [part for name, part in model.named_modules() if name.rpartition(".")[2] in ("key", "k_proj")]
        if len(keys) <= _KEY_LAYER:
            raise MissingWeightsError(
                f"DINO: {file} has {len(keys)} layers and no layer {_KEY_LAYER}; it is not a ViT-B"
            )
        self.model: nn.Module = model.eval().requires_grad_(False).to(device)
        self._keys: list[Tensor] = []
        keys[_KEY_LAYER].register_forward_hook(lambda part, given, made: self._keys.append(made))
        self.device = device
        self._memo = Memo[DinoFeatures](_REMEMBERED)

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        if self.device != device:
            self.model, self.device = self.model.to(device), device
            self._memo.clear()

    def features(self, inputs: Sequence[Float[Tensor, "3 y x"]]) -> list[DinoFeatures]:
        """Features of each input, made by `dino_input`; equal inputs go through the network once."""
        return self._memo(
            [content(one) for one in inputs], lambda places: [self._forward(inputs[i]) for i in places]
        )

    def _forward(self, one: Float[Tensor, "3 y x"]) -> DinoFeatures:
        self._keys.clear()
        output = self.model(one[None].to(self.device), interpolate_pos_encoding=True)
        (keys,) = self._keys
        self._keys.clear()
        return DinoFeatures(output.last_hidden_state[0, 0], keys[0])


def shared_dino(weights: str | Path | None, device: torch.device) -> DinoNetwork:
    """The network that `locate_dino` finds, loaded once for all metrics that ask for it.

    Raises:
        MissingWeightsError: Its file is absent, or not the network's.
    """
    file, config = dino_files(weights)
    network = shared_network("DINO", (file, config), "", lambda: DinoNetwork(file, device))
    network.to(device)
    return network


def _read(file: Path) -> Any:
    """The network with the file's weights, of which none is absent, of another shape or damaged."""
    from transformers import ViTModel  # slow to import
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    network: Any = ViTModel

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):  # building draws random weights; nobody else may notice
            model, found = network.from_pretrained(
                file.parent,
                add_pooling_layer=False,
                local_files_only=True,
                use_safetensors=file.suffix == ".safetensors",
                output_loading_info=True,
                dtype=torch.float32,
            )
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
    unexpected = [key for key in found["unexpected_keys"] if not key.startswith("pooler.")]
    refuse_foreign(f"DINO ({file})", found["missing_keys"], unexpected)
    refuse_damaged(f"DINO ({file})", model.state_dict().items())
    return model
