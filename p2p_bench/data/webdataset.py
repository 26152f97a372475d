"""WebDataset shards: tar files in which the files of a sample share their name; see datasets/webdataset."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from p2p_bench import raster
from p2p_bench.data.archives import Member, members_of, read_member
from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.images import masked_image
from p2p_bench.data.pairs import read_line
from p2p_bench.data.places import set_folder
from p2p_bench.data.records import (
    Faults,
    chosen,
    fitted_pixels,
    optional_text,
    parse_json,
    record_of,
    refuse_misspelt,
)
from p2p_bench.data.tables import files_like
from p2p_bench.errors import DataError
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

_ALSO = ("category", "seed", "blend_words", "word_weights")
"""Keys of a JSONL line that a sample's JSON may have, with the same meaning."""

_OTHER_MASK = re.compile(r"masks?\.(png|jpe?g|webp)")
"""What a mask may be called instead."""

_ABSENT = "-"
"""Stands for a prompt that the side file has, while the rest of the line is read."""


@dataclass(frozen=True)
class WebDataset(CaptionedSet):
    """The samples of tar files, shard by shard; the id is a sample's name in its shard.

    Attributes:
        path: Folder of the shards.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`; its lines may replace prompts.
        captioned_only: See `CaptionedSet`.
        files: Pattern of the shards below the folder.
        image: Ending of the source image behind the sample's name, or several of which a sample has one.
        mask: Ending of the mask, white where the image may change; a sample may be without.
        json: Ending of the object that holds the prompts.
        source: Its key of the source prompt.
        target: Its key of the target prompt, a text or a list of texts.
        instruction: Its key of the instruction.
    """

    files: str = "**/*.tar"
    image: str | Sequence[str] = ("jpg", "jpeg", "png", "webp")
    mask: str = "mask.png"
    json: str = "json"
    source: str = "source_prompt"
    target: str = "target_prompt"
    instruction: str = "instruction"

    NAME: ClassVar[str] = "webdataset"
    REPLACES: ClassVar[bool] = True
    LACKS: ClassVar[str] = "has samples without prompts under dataset.source and dataset.target"

    def pairs(self) -> list[EditPair]:
        """The samples in the order of the shards; of each its JSON is read and no picture.

        Raises:
            DataError: The folder or a shard cannot be used, or prompts are missing.
            ErrorList: Several samples cannot be used.
        """
        folder = set_folder(self.path)
        faults = Faults(folder, "folder")
        for path in files_like(folder, (self.files,), "shards"):
            for key, parts in members_of(path).items():
                with faults.of(f"sample {shortened(key)!r}", path):
                    faults.add(self._pair(key, parts, path))
        return self.captioned(faults.settled(None))

    def content(self, pair: EditPair) -> Sequence[bytes]:
        """See `HasContent`."""
        assert pair.image is not None
        parts = members_of(pair.image)[pair.id]
        members = [self._image(parts), *([] if pair.mask is None else [parts[self.mask]])]
        return [read_member(pair.image, member) for member in members]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image and the mask of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: One cannot be used.
        """
        assert pair.image is not None
        pictures = [
            raster.read_encoded(content, f"{pair.image}, sample {pair.id!r}, {part}")
            for content, part in zip(self.content(pair), ("image", "mask"), strict=False)
        ]
        if len(pictures) == 1:
            return fitted_pixels(torch.from_numpy(raster.rgb(pictures[0])), None, size, self.fit)
        return fitted_pixels(*masked_image(*pictures), size, self.fit)

    def _image(self, parts: Mapping[str, Member]) -> Member:
        """The member that is a sample's source image.

        Raises:
            DataError: There is none, or more than one.
        """
        endings = chosen(self.image) or ()
        found = [ending for ending in endings if ending in parts]
        if len(found) != 1:
            what = f"{len(found)} source images, {', '.join(found)}" if found else "no source image"
            raise DataError(
                f"expected one of {', '.join(endings)} (dataset.image), there is {what}; its parts are "
                f"{shortened(', '.join(parts))}"
            )
        return parts[found[0]]

    def _pair(self, key: str, parts: Mapping[str, Member], path: Path) -> EditPair:
        self._image(parts)
        other = next((part for part in parts if _OTHER_MASK.fullmatch(part)), None)
        if other is not None and self.mask not in parts:
            raise DataError(f"{other}: is not read as a mask; masks are called {self.mask}, see dataset.mask")
        said = record_of(parse_json(_text(path, parts[self.json]))) if self.json in parts else {}
        refuse_misspelt(said, (*_ALSO, self.instruction))
        mask = path if self.mask in parts else None
        instruction = optional_text(said, self.instruction)
        pair = self._read(key, said, path)
        return replace(pair, image=path, mask=mask, instruction=instruction)

    def _read(self, key: str, said: Mapping[str, Any], path: Path) -> EditPair:
        """What a JSONL line says, with those prompts that there are; all of its faults in one."""
        source, target = (
            None if _is_blank(said.get(key)) else said[key] for key in (self.source, self.target)
        )
        name = "target_prompts" if isinstance(target, list) else "target_prompt"
        line = {"id": key, "source_prompt": _ABSENT if source is None else source}
        line |= {name: _ABSENT if target is None else target}
        line |= {one: said[one] for one in _ALSO if one in said}
        pair, told = read_line(json.dumps(line).encode(), 1, path.parent)
        if pair is None:
            raise DataError("; ".join(told))
        return replace(
            pair,
            source_prompt="" if source is None else pair.source_prompt,
            target_prompts=() if target is None else pair.target_prompts,
        )


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(path: Path, member: Member) -> str:
    content = read_member(path, member)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shortened(member.name)}: not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
