"""What checkpoints of flow transformers share: sizes cut into patches, noise levels, T5's tokenizer."""

from pathlib import Path

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.models.flow_levels import FlowLayout, flow_layout
from p2p_bench.models.layouts import SCHEDULER_FILE, Layout
from p2p_bench.models.part_config import PartConfig
from p2p_bench.models.t5 import SharedT5Tokenizer, load_t5_tokenizer


def check_size(name: str, size: int, patch: int) -> None:
    """Sees that images can be cut into patches.

    Args:
        name: Name of the model, for the message.
        size: Side of an image in pixels.
        patch: Side of a patch in pixels.

    Raises:
        ConfigError: They cannot; names the nearest sizes that can.
    """
    if size % patch:
        below = size - size % patch
        raise ConfigError(
            f"model {name!r}: size: {size} pixels are not cut into patches of {patch}; "
            f"take {below or patch} or {below + patch}"
        )


def read_levels(directory: Path, name: str, tokens: int, from_one: bool = False) -> FlowLayout:
    """The noise levels of a checkpoint.

    Args:
        directory: The checkpoint.
        name: Name of the model, for messages.
        tokens: Image tokens, for a shift that grows with them.
        from_one: See `FlowLayout`.

    Raises:
        MissingWeightsError: The scheduler's file is missing, or of a kind that is not known here.
    """
    config = PartConfig.read(directory / SCHEDULER_FILE, name)
    try:
        return flow_layout(config.values, tokens, from_one)
    except ConfigError as error:
        raise MissingWeightsError(f"model {name!r} in {config.file.parent}: {error}") from error


def read_t5(directory: Path, layout: Layout, name: str, width: int) -> SharedT5Tokenizer:
    """The tokenizer of the T5 encoder that a layout has beside CLIPs.

    Raises:
        MissingWeightsError: Its files are missing or damaged, or are another model's.
    """
    assert layout.t5 is not None
    folder, encoder = layout.tokenizers[layout.t5], list(layout.encoders)[layout.t5]
    embeddings = PartConfig.read(directory / encoder / "config.json", name).integer("vocab_size", 32128)
    return load_t5_tokenizer(directory / folder, name, embeddings, SharedT5Tokenizer, width, encoder)
