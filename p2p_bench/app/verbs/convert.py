"""`p2p-bench convert DIR|FILE NEW_DIR`: a checkpoint as it is read here, from pickles or one file."""

import argparse
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_bench.app.console import status_console
from p2p_bench.app.paths import user_path
from p2p_bench.errors import ConfigError, MissingWeightsError

if TYPE_CHECKING:
    from torch import Tensor

_COPIED = (".json", ".txt", ".model")
"""What is copied of a checkpoint: configurations and tokenizers."""
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""How pickles are called."""


def main(arguments: list[str], debug: bool) -> int:
    """Converts a checkpoint.

    Args:
        arguments: The checkpoint, and the directory to make.
        debug: Unused; errors are shown by the caller.

    Returns:
        0.

    Raises:
        ConfigError: The new directory is there already, or the checkpoint is of an unknown family.
        MissingWeightsError: The checkpoint is not whole, or a file holds more than tensors.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench convert",
        description="Writes a checkpoint whose weights are pickles (*.bin) anew as safetensors. Only tensors "
        "are read of them; a file that asks for anything else is refused. Of one FILE.safetensors in the "
        "original layout of Stable Diffusion 1.x, 2.x or XL, or of InstructPix2Pix, it makes a directory in "
        "diffusers' layout.",
    )
    parser.add_argument("dir", type=user_path, help="the checkpoint, with model_index.json; or the file")
    parser.add_argument("new_dir", type=user_path, help="directory to make")
    parser.add_argument(
        "--configs",
        help="directory of the file's family, or owner/name in the local Hugging Face cache: its "
        "configurations and tokenizers are taken, not its weights",
    )
    options = parser.parse_args(arguments)
    taken = ""
    if options.dir.is_file():
        taken = f" with the {convert_file(options.dir, options.new_dir, options.configs)}"
    elif options.configs is not None:
        raise ConfigError("convert: --configs goes with a single file; leave it out")
    else:
        convert(options.dir, options.new_dir)
    status_console().print(f"written: {options.new_dir}{taken}; try model=local model.path={options.new_dir}")
    return 0


def convert(directory: Path, made: Path) -> None:
    """Writes a checkpoint anew; see `main`.

    Args:
        directory: The checkpoint; nothing in it is changed.
        made: Directory to make; nothing is left of it where this fails.
    """
    from p2p_bench.models.files import read_json
    from p2p_bench.models.layouts import DEEPFLOYD_UPSCALER, layout_of

    if made.exists():
        raise ConfigError(f"convert: {made} is there already; give a directory that is not")
    index = read_json(directory / "model_index.json", directory.name)
    enlarges = index.get("_class_name") in DEEPFLOYD_UPSCALER.pipelines
    layout = DEEPFLOYD_UPSCALER if enlarges else layout_of(index, directory.name)
    _make(made)
    try:
        shutil.copy(directory / "model_index.json", made)
        others = (str(Path(file).parent) for file in layout.other_files)
        for folder in ("scheduler", *others, *layout.tokenizers, *layout.weights):
            if (directory / folder).is_dir():
                _copy(directory / folder, made / folder)
        for folder, stem in layout.weights.items():
            _write_weights(directory, folder, made / folder, stem)
        _load(made, directory.name, enlarges)
    except BaseException:
        shutil.rmtree(made)
        raise


def _make(made: Path) -> None:
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"convert: {made} cannot be made ({error}); choose another directory") from error


def _load(made: Path, name: str, enlarges: bool) -> None:
    """Sees that all tensors are there, of the right shapes.

    Args:
        made: The checkpoint.
        name: Its name, for messages.
        enlarges: Whether it is a stage that enlarges images, whose U-Net is no model by itself.
    """
    import torch
    from diffusers import UNet2DConditionModel

    from p2p_bench.models.files import upscaler_directory
    from p2p_bench.models.local import LocalCheckpoint
    from p2p_bench.models.parts import load_part

    if enlarges:
        folder = upscaler_directory(made, name) / "unet"
        load_part(UNet2DConditionModel, folder, name, torch.device("cpu"), torch.float32, None)
    else:
        LocalCheckpoint(made, name).load()


def convert_file(file: Path, made: Path, configs: str | None = None) -> str:
    """Writes a single file as a directory; see `main`.

    Args:
        file: The file.
        made: Directory to make; nothing is left of it where this fails.
        configs: Where configurations and tokenizers come from; None looks in the local cache.

    Returns:
        What was taken from there, for people: nothing in the weights shows it.
    """
    if made.exists():
        raise ConfigError(f"convert: {made} is there already; give a directory that is not")
    if file.suffix.lower() != ".safetensors":
        pickled = file.suffix.lower() in _PICKLES
        why = (
            "would be read through pickle, which can run code, and is refused"
            if pickled
            else "is not known here"
        )
        raise MissingWeightsError(f"convert: {file.name} {why}; get it as safetensors")
    from p2p_bench.models.local import LocalCheckpoint
    from p2p_bench.models.single_file import configs_of_file, layout_of_file, networks_of_file, save_network

    layout = layout_of_file(file)
    directory = configs_of_file(file, layout, configs)
    folders = ("scheduler", *layout.tokenizers, *layout.weights)
    if absent := [folder for folder in folders if not (directory / folder).is_dir()]:
        raise MissingWeightsError(
            f"convert: {directory} has no {', '.join(absent)}, whose configurations {file.name} needs; give "
            "--configs DIR of a whole checkpoint of its family"
        )
    _make(made)
    try:
        shutil.copy(directory / "model_index.json", made)
        for folder in ("scheduler", *layout.tokenizers):
            _copy(directory / folder, made / folder)
        for folder, network in networks_of_file(file, directory, layout):
            save_network(network, directory / folder, made / folder, layout.weights[folder])
        spec = LocalCheckpoint(made, file.stem).load().spec  # as it is going to be
    except BaseException:
        shutil.rmtree(made)
        raise
    return f"configurations and tokenizers of {directory}, by which it predicts {spec.prediction_type}"


def _copy(folder: Path, made: Path) -> None:
    made.mkdir(exist_ok=True)
    for file in folder.iterdir():
        if file.suffix in _COPIED and not file.name.endswith(".index.json"):
            shutil.copy(file, made)


def _write_weights(directory: Path, folder: str, made: Path, stem: str) -> None:
    """Weights as safetensors, whatever they were; pickled shards become one file.

    Other files, such as `*.fp16.bin` or `*.non_ema.bin`, hold other weights and are left.
    """
    from safetensors.torch import save_file

    from p2p_bench.models.files import index_file, weight_files

    if safe := weight_files(directory, folder, stem, None):
        index = index_file(directory, folder, stem, None)
        for file in [*safe, index] if index.is_file() else safe:
            shutil.copy(file, made)
        return
    files = _pickles(directory / folder, stem)
    tensors = {key: tensor for file in files for key, tensor in _tensors(file).items()}
    # Tensors that share memory are written once each.
    copies = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    save_file(copies, made / f"{stem}.safetensors", metadata={"format": "pt"})


def _pickles(folder: Path, stem: str) -> list[Path]:
    """The pickled weights of a network: one file, or its shards.

    Raises:
        MissingWeightsError: There are none.
    """
    names = ("pytorch_model", stem) if stem == "model" else (stem,)
    for name in names:
        if (folder / f"{name}.bin").is_file():
            return [folder / f"{name}.bin"]
        if shards := sorted(folder.glob(f"{name}-*-of-*.bin")):
            return shards
    others = sorted(file.name for file in folder.glob("*.bin"))
    found = f", only {', '.join(others)}, which may be other weights: rename what is wanted" if others else ""
    raise MissingWeightsError(f"convert: no {stem}.safetensors and no {names[0]}.bin in {folder}{found}")


def _tensors(file: Path) -> dict[str, "Tensor"]:
    import torch

    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise MissingWeightsError(
            f"convert: {file} holds more than tensors, or is damaged, and is not read "
            f"({str(error).strip().splitlines()[0][:200]}); get it again, from who made it"
        ) from error
    if not isinstance(held, dict) or not all(isinstance(one, torch.Tensor) for one in held.values()):
        raise MissingWeightsError(f"convert: {file} is no mapping of names to tensors; it is no checkpoint's")
    return held
