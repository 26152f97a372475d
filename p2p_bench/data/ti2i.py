"""The TI2I sets of Plug-and-Play (arXiv 2211.12572): a YAML file each, or PnPInversion's mapping file."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.images import load_image
from p2p_bench.data.pie_format import prompt_of, without_brackets
from p2p_bench.data.places import inside, needed_file, set_folder
from p2p_bench.data.records import (
    Faults,
    fitted_pixels,
    integer_of,
    kind_of,
    optional_text,
    read_json_object,
    read_text,
    record_of,
    refuse_misspelt,
    text_of,
)
from p2p_bench.errors import DataError
from p2p_bench.raster import is_file, shortened
from p2p_bench.types import EditPair

MAPPING = "mapping_file_ti2i_benchmark.json"


@dataclass(frozen=True)
class TI2I(CaptionedSet):
    """The images of a TI2I set, each with its target prompts; the id is the record's number or key.

    Attributes:
        path: Folder that holds the YAML file or `mapping_file_ti2i_benchmark.json`, and the images.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`; its lines give `source` alone.
        captioned_only: See `CaptionedSet`.
        file: Name of the file; None takes the mapping file if it is there, else the only YAML file.
    """

    file: str | None = None

    NAME: ClassVar[str] = "ti2i"
    LACKS: ClassVar[str] = "has no source prompt for some images"

    def pairs(self) -> list[EditPair]:
        """The pairs in the file's order; no image is opened.

        Raises:
            DataError: The folder or the file cannot be used, or source prompts are missing.
            ErrorList: Several records cannot be used.
        """
        folder = set_folder(self.path)
        path = needed_file(folder, self._file(folder), "prompts and names of images")
        faults = Faults(path)
        read = _mapped if path.suffix.lower() == ".json" else _listed
        for where, record in _records(path):
            with faults.of(f"record {shortened(where)!r}"):
                faults.add(read(where, record_of(record), folder))
        return self.captioned(faults.settled(None))

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image of a pair; one of the generated set has none and starts from noise.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: It cannot be read.
        """
        if pair.image is None:
            return PairImages()
        return fitted_pixels(load_image(pair.image), None, size, self.fit)

    def _file(self, folder: Path) -> str:
        if self.file is not None:
            return self.file
        if is_file(folder / MAPPING):
            return MAPPING
        found = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in (".yaml", ".yml"))
        if len(found) == 1:
            return found[0]
        there = f"there are {shortened(', '.join(found))}" if found else "there is none"
        raise DataError(
            f"{folder}: expected {MAPPING} or one YAML file, {there}; set dataset.file to its name"
        )


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() == ".json":
        yield from read_json_object(path).items()
        return
    try:
        text = read_text(path)
        _refuse_key_twice(yaml.compose(text, Loader=yaml.SafeLoader))
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: broken YAML: {shortened(' '.join(str(error).split()))}") from error
    if not isinstance(found, list):
        raise DataError(f"{path}: expected a list of images with prompts, got {kind_of(found)}")
    yield from ((str(number), record) for number, record in enumerate(found))


def _refuse_key_twice(node: Any) -> None:
    """Raises a `ValueError` where a mapping of a YAML document has a key twice: the first would be lost."""
    children = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise ValueError(f"{shortened(twice)!r} is given more than once in what begins at line {line}")
        children = [value for _, value in node.value]
    for child in children:
        _refuse_key_twice(child)


_LISTED = ("init_img", "source_prompt", "target_prompts", "seed")
_MAPPED = ("image_path", "original_prompt", "editing_prompt", "editing_instruction", "blended_word", "mask")
_PICTURE = re.compile("ima?g", re.IGNORECASE)
"""What names of keys for a picture have in them."""


def _listed(where: str, record: Mapping[str, Any], folder: Path) -> EditPair:
    """A record of a YAML file: `init_img`, `target_prompts`, and a source prompt at times."""
    refuse_misspelt(record, _LISTED)
    named = next((key for key in record if _PICTURE.search(str(key))), "init_img")
    if "init_img" not in record and named != "init_img":  # it would start from noise
        raise DataError(f"{shortened(str(named))}: is not read; call it init_img")
    targets = record.get("target_prompts")
    if not isinstance(targets, list) or not targets:
        raise DataError(f"target_prompts: expected a list of texts, got {kind_of(targets)}")
    prompts = tuple(text_of({"target_prompts": target}, "target_prompts") for target in targets)
    image, source = optional_text(record, "init_img"), optional_text(record, "source_prompt")
    if image is None and (source is None or record.get("seed") is None):
        raise DataError("init_img: missing; without an image a record needs source_prompt and seed")
    if image is None:
        seed = integer_of(record, "seed")
        if not 0 <= seed < 2**63:
            raise DataError(f"seed: expected an integer in [0, 2**63), got {shortened(str(seed))}")
        return EditPair(where, source or "", prompts, seed=seed)
    # Written from the folder above, "/ImageNetR-TI2I/panda/cartoon_30.jpg", whatever this one is called.
    text = image.lstrip("/")
    path, (above, _, below) = inside(folder, text), text.partition("/")
    if below and not (folder / above).exists():
        path = inside(folder, below)
    return EditPair(where, source or "", prompts, image=path)


def _mapped(where: str, record: Mapping[str, Any], folder: Path) -> EditPair:
    """A record of the mapping file, in PIE-Bench's layout."""
    refuse_misspelt(record, _MAPPED)
    image = text_of(record, "image_path")
    for key in ("blended_word", "mask"):
        if record.get(key):
            raise DataError(
                f"{key}: is not read; leave it out, or name the file mapping_file.json and set "
                "dataset=pie_bench"
            )
    return EditPair(
        id=where,
        source_prompt=without_brackets(optional_text(record, "original_prompt") or ""),
        target_prompts=(prompt_of(record, "editing_prompt"),),
        image=_mapped_image(folder, image),
        instruction=optional_text(record, "editing_instruction"),
    )


def _mapped_image(folder: Path, text: str) -> Path:
    """An image of the mapping file, in the folder of images or in that of the set inside it.

    Raises:
        DataError: Both hold one of that name.
    """
    paths = [inside(folder, f"annotation_images/{place}{text}") for place in ("", "ti2i_benchmark/")]
    there = [path for path in dict.fromkeys(paths) if is_file(path)]
    if len(there) > 1:
        named = " and ".join(shortened(str(path)) for path in there)
        raise DataError(f"image_path: {named} are both there, so which is meant is not known")
    return there[0] if there else paths[0]
