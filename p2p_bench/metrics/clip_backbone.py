"""CLIP networks in open_clip's format: where they are found, and the features they give."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from jaxtyping import Float
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from p2p_bench.errors import ConfigError, MissingWeightsError, nearest
from p2p_bench.metrics.embedded import embedded_weights
from p2p_bench.metrics.networks import Memo, content, shared_network
from p2p_bench.weights import readable, refuse_damaged, refuse_foreign, tensor_keys

_CONFIG = "open_clip_config.json"
_WEIGHTS = "open_clip_model.safetensors"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "config.json",
)
"""What decides a tokenizer of transformers, where a folder brings its own."""
_FOLDER = "local-dir:"
_BATCH = 32
_REMEMBERED = 512
_TOKENIZING = threading.Lock()
"""Tokenizers keep padding and cutting as state between calls."""


@dataclass(frozen=True)
class ClipFiles:
    """A CLIP network on this machine.

    Attributes:
        name: What open_clip calls it: an architecture, or `local-dir:` and a folder.
        weights: The safetensors file; None where `name` is a folder that holds it.
        preprocess: Preprocessing that differs from open_clip's own default, such as `mean`.
    """

    name: str
    weights: Path | None
    preprocess: dict[str, Any]

    @property
    def file(self) -> Path:
        """The safetensors file, wherever it lies."""
        return self.weights or Path(self.name.removeprefix(_FOLDER)) / _WEIGHTS

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that decide what it computes: of a folder its configuration and tokenizer too."""
        if self.weights is not None:
            return (self.weights,)
        beside = (self.file.parent / name for name in (_CONFIG, *_TOKENIZER))
        return (self.file, *(path for path in beside if path.is_file()))


def locate_clip(model: str | None, weights: str | Path | None) -> ClipFiles:
    """Finds a CLIP network without loading it and without a network connection.

    Args:
        model: An architecture of open_clip, such as "ViT-L-14-quickgelu"; None where `weights` is a folder.
        weights: A folder with `open_clip_config.json`, a safetensors file and, for a tokenizer other than
            CLIP's own, `tokenizer.json`; or a safetensors file; or one of open_clip's tags for `model`,
            such as "openai", looked for in the Hugging Face cache. None with no `model` takes the
            embedded one.

    Raises:
        MissingWeightsError: A file is not there.
        ConfigError: The arguments do not go together.
    """
    if weights is None:
        if model is not None:
            raise ConfigError(f"CLIP model {model!r} needs weights: a safetensors file or a tag of open_clip")
        return _locate_folder(embedded_weights("clip", None, _WEIGHTS))
    path = Path(weights).expanduser()
    if model is None or path.is_dir():
        if model is not None:
            raise ConfigError(f"CLIP weights {path}: a folder names its own model; leave out model={model!r}")
        return _locate_folder(path)
    return _locate_architecture(model, str(weights))


def _locate_folder(folder: Path) -> ClipFiles:
    if not (folder / _CONFIG).is_file():
        raise MissingWeightsError(
            f"CLIP weights: {folder / _CONFIG} is not there; give a folder in open_clip's format "
            f"({_CONFIG}, {_WEIGHTS}, tokenizer.json), or a model and a safetensors file"
        )
    # open_clip takes the first of several names; only one that is safetensors may be taken.
    if not (folder / _WEIGHTS).is_file():
        raise MissingWeightsError(
            f"CLIP weights: {folder / _WEIGHTS} is not there; other formats are not read, convert them"
        )
    tensor_keys(folder / _WEIGHTS, "CLIP")
    return ClipFiles(f"{_FOLDER}{folder.resolve()}", None, {})


def _locate_architecture(model: str, weights: str) -> ClipFiles:
    import open_clip  # slow to import, and not needed for the folders of the world

    if open_clip.get_model_config(model) is None:
        raise ConfigError(f"open_clip knows no model {model!r}.{nearest(model, open_clip.list_models())}")
    tag = open_clip.get_pretrained_cfg(model, weights)
    if tag.get("quick_gelu") and not open_clip.get_model_config(model).get("quick_gelu"):
        raise ConfigError(
            f"CLIP weights {weights!r} of {model} were trained with the activation QuickGELU, which it "
            f"lacks, so its features would be others; set model={model}-quickgelu"
        )
    if tag:
        return ClipFiles(
            model,
            _cached(model, weights, tag.get("hf_hub", "").strip("/")),
            {key: tag[key] for key in ("mean", "std", "interpolation") if key in tag},
        )
    path = Path(weights).expanduser()
    if path.suffix != ".safetensors":
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise ConfigError(f"CLIP weights {weights!r}: expected a .safetensors file or one of the tags {tags}")
    if not path.is_file():
        raise MissingWeightsError(f"CLIP weights of {model}: {path} is not there; give its safetensors file")
    return ClipFiles(model, path, {})


def _cached(model: str, tag: str, repository: str) -> Path:
    """The weights of a tag in the Hugging Face cache."""
    found = try_to_load_from_cache(repository, _WEIGHTS) if repository else None
    if isinstance(found, str):
        return Path(found)
    get = f"on a machine with a network run `hf download {repository} {_WEIGHTS}`, or " if repository else ""
    raise MissingWeightsError(
        f"CLIP weights {tag!r} of {model}: {_WEIGHTS} of {repository or 'its repository'} is not in "
        f"the Hugging Face cache at {HF_HUB_CACHE}; {get}give weights=<path of a safetensors file>"
    )


class ClipNetwork:
    """A loaded CLIP network.

    Args:
        files: What `locate_clip` found.
        device: Where it runs.
    """

    def __init__(self, files: ClipFiles, device: torch.device) -> None:
        import open_clip  # slow to import
        from open_clip.transform import PreprocessCfg, image_transform_v2

        def build() -> Any:
            return open_clip.create_model(
                files.name,
                pretrained=None if files.weights is None else str(files.weights),
                force_preprocess_cfg=files.preprocess,
                require_pretrained=True,
                weights_only=True,
            )

        with torch.random.fork_rng(devices=[]):  # building draws random weights; nobody else may notice
            self.model = readable(build, "CLIP", files.file)
        _check_loaded(self.model, files.file)
        self.model = self.model.eval().requires_grad_(False).to(device)
        self.tokenizer = readable(lambda: open_clip.get_tokenizer(files.name), "CLIP tokenizer", files.file)
        preprocess = PreprocessCfg(**self.model.visual.preprocess_cfg)
        self.preprocess = image_transform_v2(preprocess, is_train=False)
        self.device = device
        self._images, self._texts = Memo[Tensor](_REMEMBERED), Memo[Tensor](_REMEMBERED)

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        if self.device != device:
            self.model, self.device = self.model.to(device), device
            self._images.clear()
            self._texts.clear()

    def image_features(self, images: Sequence[Float[Tensor, "3 h w"]]) -> Float[Tensor, "n d"]:
        """Features of unit length; equal images go through the network once.

        Images are rounded to 8 bits and pass open_clip's own preprocessing, so that values are those
        of images saved as PNG and scored afterwards.
        """
        pictures = [_to_picture(image) for image in images]
        keys = [content(torch.from_numpy(np.array(picture))) for picture in pictures]

        def encode(places: list[int]) -> list[Tensor]:
            inputs = torch.stack([self.preprocess(pictures[place]) for place in places])
            return list(self._encode(inputs, self.model.encode_image))

        return torch.stack(self._images(keys, encode))

    def text_features(self, prompts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Features of unit length; equal prompts go through the network once.

        A prompt longer than the network's context is cut there, as open_clip does; see `cuts`.
        """

        def encode(places: list[int]) -> list[Tensor]:
            with _TOKENIZING:
                inputs = self.tokenizer([prompts[place] for place in places])
            return list(self._encode(inputs, self.model.encode_text))

        return torch.stack(self._texts([prompt.encode() for prompt in prompts], encode))

    def cuts(self, prompts: Sequence[str]) -> list[bool]:
        """Whether each prompt is longer than the network's context, so that its end is not read."""
        distinct = list(dict.fromkeys(prompts))
        read = self.tokenizer(distinct)
        # One place more: what was cut goes on where the end was put, what was not has padding there.
        longer = self.tokenizer(distinct, context_length=read.shape[1] + 1)
        cut = (longer[:, :-1] != read).any(1)
        is_cut = dict(zip(distinct, cut.tolist(), strict=True))
        return [is_cut[prompt] for prompt in prompts]

    @property
    def context(self) -> int:
        """Tokens of a prompt that the network reads, begin and end included."""
        return int(self.tokenizer([""]).shape[1])

    def _encode(self, inputs: Tensor, encode: Any) -> Tensor:
        parts = torch.split(inputs, _BATCH)
        return torch.cat([encode(part.to(self.device), normalize=True).float() for part in parts])


def shared_clip(model: str | None, weights: str | Path | None, device: torch.device) -> ClipNetwork:
    """The network that `locate_clip` finds, loaded once for all metrics that ask for it.

    Raises:
        MissingWeightsError: Its file is absent, or not the network's.
        ConfigError: The arguments do not go together.
    """
    files = locate_clip(model, weights)
    network = shared_network("CLIP", files.files, str(files), lambda: ClipNetwork(files, device))
    network.to(device)
    return network


def _check_loaded(model: nn.Module, file: Path) -> None:
    """Refuses weights that open_clip has taken but should not: it stretches position embeddings to fit."""
    own = model.state_dict()
    with safe_open(file, "pt") as tensors:
        shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118  # no dict
    both = own.keys() & shapes.keys()
    wrong = [(key, shapes[key], own[key].shape) for key in both if shapes[key] != tuple(own[key].shape)]
    refuse_foreign(f"CLIP ({file})", mismatched=wrong)
    refuse_damaged(f"CLIP ({file})", own.items())


def _to_picture(image: Float[Tensor, "3 h w"]) -> Image.Image:
    if not bool(image.isfinite().all()):
        raise ValueError("CLIP: the image holds values that are not finite")
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy()))
