"""The directory of a checkpoint: where it is, whether it is whole, what it hashes to."""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from p2p_bench.errors import MissingWeightsError
from p2p_bench.hashing import digest, sha256_file
from p2p_bench.models.layouts import (
    DEEPFLOYD_UPSCALER,
    NETWORK_STEM,
    TOKENIZER_SETTINGS,
    Layout,
    check_upscaler_layout,
    layout_of,
)

TRANSFORMERS_STEM = "model"
"""How transformers calls weight files; diffusers calls its own otherwise."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def checkpoint_directory(
    path: Path | str, name: str, revision: str | None = None, setting: str = "model.path"
) -> Path:
    """The directory of a checkpoint.

    Args:
        path: A directory, or `owner/name` of a checkpoint that the Hugging Face cache on this machine holds.
            Nothing is downloaded.
        name: Name of the model, for the message.
        revision: Branch, tag or commit of `owner/name`; None: its main branch.
        setting: What the path was given as, for the message.

    Raises:
        MissingWeightsError: Neither is there.
    """
    where = f"model {name!r}" if setting == "model.path" else f"model {name!r}: {setting}"
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory.resolve()
    if directory.is_file() and directory.suffix == ".json":
        raise MissingWeightsError(f"{where}: {directory} is one of its files; give the directory of all")
    if directory.is_file() and setting == "model.path":
        raise MissingWeightsError(
            f"{where}: {directory.name} is a single file, expected a directory in diffusers' format; "
            f"make it one, once and without the network: `p2p-bench convert {directory} NEW_DIR`, then "
            "model.path=NEW_DIR"
        )
    if not _REPOSITORY.fullmatch(str(path)):
        raise MissingWeightsError(
            f"{where}: no directory {str(path)!r}; give the directory of a checkpoint in diffusers' "
            "format (the one that holds model_index.json)"
        )
    try:
        return Path(snapshot_download(str(path), revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        wanted = f"{path} --revision {revision}" if revision else str(path)
        raise MissingWeightsError(
            f"{where}: {path} is neither a directory nor in the local Hugging Face cache; "
            f"fetch it once with `hf download {wanted}`, or give its directory ({setting}=DIR)"
        ) from error


def read_layout(directory: Path, name: str) -> Layout:
    """Which family a checkpoint is of.

    Raises:
        MissingWeightsError: It has no `model_index.json` that can be read.
        ConfigError: It is of a family that is not known here.
    """
    return layout_of(read_json(directory / "model_index.json", name), name)


def check_complete(directory: Path, name: str, variant: str | None, t5: bool = True) -> None:
    """Checks that every file of a checkpoint is there, its weights as safetensors.

    Args:
        directory: The checkpoint.
        name: Name of the model, for messages.
        variant: Infix of the weight files.
        t5: Whether a T5 encoder that the model can do without is wanted.

    Raises:
        MissingWeightsError: Names what is missing, all at once.
        ConfigError: It is of a family that is not known here.
    """
    layout = read_layout(directory, name)
    _check_files(directory, layout if t5 else layout.without_t5(), name, variant)


def upscaler_directory(
    path: Path | str, name: str, variant: str | None = None, revision: str | None = None
) -> Path:
    """The directory of an upscaler of DeepFloyd IF, once every file of it is known to be there.

    Args:
        path: A directory, or `owner/name` in the local Hugging Face cache.
        name: Name of the model that it belongs to, for messages.
        variant: Infix of the weight files.
        revision: Branch, tag or commit of `owner/name`; None: its main branch.

    Raises:
        MissingWeightsError: It is not there or not whole, or its weights are pickles.
        ConfigError: It is no upscaler of the family.
    """
    directory = checkpoint_directory(path, name, revision, "model.upscaler")
    check_upscaler_layout(read_json(directory / "model_index.json", name), name)
    own = variant_of(directory, "unet", NETWORK_STEM, variant)  # it was asked of stage I
    _check_files(directory, DEEPFLOYD_UPSCALER, name, own)
    return directory


def _check_files(directory: Path, layout: Layout, name: str, variant: str | None) -> None:
    missing = [file for file in layout.config_files if not (directory / file).is_file()]
    folders = (folder for folder in layout.tokenizers if not has_tokenizer(directory / folder, layout))
    missing += [f"{one}/tokenizer.json (or {' with '.join(layout.files_of(one))})" for one in folders]
    unsafe, others = [], set()
    known = any(_files(directory, part, stem, variant) for part, stem in layout.weights.items())
    for component, stem in layout.weights.items():
        # One that no part has is a mistake, and no reason to take the plain files.
        files = (weight_files if known else _files)(directory, component, stem, variant)
        missing += [f"{component}/{file.name}" for file in files if not file.is_file()]
        if files:
            continue
        if any((directory / component).glob("*.bin")):
            unsafe.append(f"{component}/{stem}.bin")
        else:
            missing.append(f"{component}/{_weight_stem(stem, variant)}.safetensors")
            others |= _variants(directory / component, stem)
    if unsafe:
        remedy = "`p2p-bench convert DIR NEW_DIR` reads its tensors alone and writes them as safetensors"
        raise MissingWeightsError(
            f"model {name!r} in {directory}: {', '.join(unsafe)} would be read through pickle, which can run "
            f"code, so it is refused; {remedy}"
        )
    if missing:
        left_out = " (model.t5=false does without T5)" if layout.t5_optional else ""
        there = f"; what is there has another name: try model.variant={' or '.join(sorted(others))}"
        raise MissingWeightsError(
            f"model {name!r}: {directory} is not a whole {layout.pipelines[0]} checkpoint; "
            f"missing: {', '.join(missing)}{left_out if _of_t5(layout, missing) else ''}"
            f"{there if others else ''}"
        )


def _variants(folder: Path, stem: str) -> set[str]:
    """Infixes of the weight files in a folder; "null" for none."""
    names = (file.name.removeprefix(f"{stem}.") for file in folder.glob(f"{stem}.*safetensors"))
    return {name.removesuffix("safetensors").removesuffix(".") or "null" for name in names}


def _of_t5(layout: Layout, missing: Sequence[str]) -> bool:
    """Whether all that is missing belongs to a T5 encoder that the model can do without."""
    rest = layout.without_t5()
    folders = {*layout.encoders, *layout.tokenizers} - {*rest.encoders, *rest.tokenizers}
    return all(file.split("/")[0] in folders for file in missing)


def has_tokenizer(folder: Path, layout: Layout) -> bool:
    """Whether a tokenizer's files are in its folder."""
    return (folder / "tokenizer.json").is_file() or all(
        (folder / file).is_file() for file in layout.files_of(folder.name)
    )


def weight_files(directory: Path, component: str, stem: str, variant: str | None) -> list[Path]:
    """The safetensors files of a component that its library reads; none when there are none.

    Several when it is sharded: those that its index names, whether they are there or not. Where both are
    there, transformers takes the one file, diffusers the shards. See `variant_of` for one without files of
    a variant.

    Raises:
        MissingWeightsError: The index cannot be read.
    """
    return _files(directory, component, stem, variant_of(directory, component, stem, variant))


def variant_of(directory: Path, component: str, stem: str, variant: str | None) -> str | None:
    """The variant that a component has: the one that is asked for, or None where it has no files of it.

    As in diffusers, whose published variants are often of some parts alone (`non_ema` is of the U-Net).

    Raises:
        MissingWeightsError: An index cannot be read.
    """
    return variant if _files(directory, component, stem, variant) else None


def _files(directory: Path, component: str, stem: str, variant: str | None) -> list[Path]:
    """The files of a component under that variant alone."""
    whole = directory / component / f"{_weight_stem(stem, variant)}.safetensors"
    if stem == TRANSFORMERS_STEM and whole.is_file():
        return [whole]
    index = index_file(directory, component, stem, variant)
    if index.is_file():
        return [index.parent / shard for shard in sorted(set(weight_map(index).values()))]
    return [whole] if whole.is_file() else []


def index_file(directory: Path, component: str, stem: str, variant: str | None) -> Path:
    """What says which shard of a component a tensor is in, if it is sharded."""
    end = f"index.{variant}.json" if variant else "index.json"
    return directory / component / f"{stem}.safetensors.{end}"


def weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor, by an index.

    Raises:
        MissingWeightsError: It cannot be read, or names what is no file beside it.
    """
    name = index.parent.parent.name
    placed = read_json(index, name).get("weight_map")
    files = list(placed.values()) if isinstance(placed, dict) else []
    if not files or any(not isinstance(file, str) or Path(file).name != file for file in files):
        raise MissingWeightsError(
            f"model {name!r}: {index} has no weight_map of tensors to files beside it; get the checkpoint "
            "again"
        )
    return placed  # type: ignore[return-value]  # checked above


def read_json(file: Path, name: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        MissingWeightsError: The file is not there, or holds no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingWeightsError(f"model {name!r}: {file} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise MissingWeightsError(
            f"model {name!r}: {file} is not JSON ({error}); get the checkpoint again"
        ) from error
    if not isinstance(value, dict):
        raise MissingWeightsError(
            f"model {name!r}: {file} holds a {type(value).__name__}, expected a JSON object; get the "
            "checkpoint again"
        )
    return value


def checkpoint_checksum(directory: Path, layout: Layout, variant: str | None) -> str:
    """SHA-256 over the configuration, tokenizer and weight files, by their names within the checkpoint."""
    tokenizers = [
        f"{folder}/{file}"
        for folder in layout.tokenizers
        for file in ("tokenizer.json", *layout.files_of(folder), *TOKENIZER_SETTINGS)
    ]
    files = [directory / file for file in (*layout.config_files, *tokenizers)]
    for component, stem in layout.weights.items():
        files += weight_files(directory, component, stem, variant)
    present = [file for file in files if file.is_file()]
    return digest({str(file.relative_to(directory)): file_hash(file) for file in present})


def file_hash(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal; computed once as long as it does not change."""
    status = file.stat()
    return _hash_of_version(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hash_of_version(file: Path, size: int, changed: int) -> str:
    # Size and time of change are part of the key, so that a file written anew is read anew.
    return sha256_file(file)


def _weight_stem(stem: str, variant: str | None) -> str:
    return f"{stem}.{variant}" if variant else stem
