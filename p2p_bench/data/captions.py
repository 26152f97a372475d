"""Prompts from a side file, for data sets that have instructions only.

The file is a JSONL file as `p2p_bench.data.pairs` describes it, with `id`, `source`, `target` and, where
wanted, `blend_words` and `word_weights`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from p2p_bench.data.base import take
from p2p_bench.data.pairs import read_pairs
from p2p_bench.data.records import FolderSet
from p2p_bench.errors import DataError, nearest
from p2p_bench.raster import is_file, shortened
from p2p_bench.types import EditPair

log = logging.getLogger(__name__)

_SHOWN = 3


@dataclass(frozen=True)
class CaptionedSet(FolderSet):
    """A data set in a folder, some or all prompts of which come from a side file.

    Attributes:
        path: See `FolderSet`.
        limit: See `FolderSet`.
        fit: See `FolderSet`.
        name: See `FolderSet`.
        captions: The JSONL file of prompts; None where there is none.
        captioned_only: Leave out edits without a prompt, instead of an error.
    """

    captions: str | Path | None = None
    captioned_only: bool = False

    REPLACES: ClassVar[bool] = False
    """Whether lines may replace prompts that the data set has."""

    LACKS: ClassVar[str]
    """What the data set lacks, for messages."""

    def captioned(self, found: Sequence[EditPair]) -> list[EditPair]:
        """The first `limit` of some pairs with their prompts.

        Args:
            found: Pairs whose missing prompts are "", and missing target prompts none at all.

        Raises:
            DataError: A pair has no prompts, or a line of the file is no pair's.
            ErrorList: The file has several faults.
        """
        lines = {} if self.captions is None else self._lines(found)
        pairs = [_with(pair, lines[pair.id]) if pair.id in lines else pair for pair in found]
        whole = [pair for pair in pairs if pair.source_prompt and pair.target_prompts]
        if whole and self.captioned_only:
            if len(whole) < len(pairs):
                log.warning(
                    "%s: dataset.captioned_only=true leaves out %d of %d edits, which have no prompts",
                    *(self.path, len(pairs) - len(whole), len(pairs)),
                )
            return take(whole, self.limit)
        wanted = take(pairs, self.limit)
        missing = [pair.id for pair in wanted if not (pair.source_prompt and pair.target_prompts)]
        if missing:
            raise DataError(self._told(missing, len(wanted)))
        return wanted

    def _lines(self, found: Sequence[EditPair]) -> dict[str, EditPair]:
        assert self.captions is not None
        path = Path(self.captions).expanduser()
        if not is_file(path):
            raise DataError(
                f"{shortened(str(path))}: no such file; dataset.captions is a JSONL file of prompts"
            )
        targets = {pair.id: pair.target_prompts for pair in found if pair.target_prompts}
        sources = {pair.id: pair.source_prompt for pair in found}
        lines = {line.id: line for line in read_pairs(path, targets=targets)}
        for name, line in lines.items():
            if name not in sources:
                hint = nearest(name[:100], sorted(sources)[:2000])
                raise DataError(f"{path}: the data set has no edit of id {shortened(name)!r}.{hint}")
            other = (line.image, line.scene, line.category, line.instruction)
            if any(other) or line.seed is not None:
                raise DataError(
                    f"{path}, id {name!r}: a line of captions may have id, source, target, blend_words and "
                    "word_weights; the rest is the data set's"
                )
            own = targets.get(name)
            if own is not None and own != line.target_prompts and not self.REPLACES:
                raise DataError(
                    f"{path}, id {name!r}: the data set has a target prompt of its own, "
                    f"{shortened(own[0])!r}; leave target out"
                )
            if sources[name] not in ("", line.source_prompt) and not self.REPLACES:
                raise DataError(
                    f"{path}, id {name!r}: the data set has a source prompt of its own, "
                    f"{shortened(sources[name])!r}; leave the line out, or give that one"
                )
        return lines

    def _told(self, missing: Sequence[str], count: int) -> str:
        first = ", ".join(repr(shortened(name)) for name in missing[:_SHOWN])
        rest = "" if len(missing) <= _SHOWN else ", ..."
        if self.captions is None:
            cure = (
                f"{self.name} {self.LACKS}, and Prompt-to-Prompt needs a prompt of the source and one of the "
                "target. Give them by dataset.captions=FILE, a JSONL file with a line "
                f'{{"id": "{shortened(missing[0])}", "source": "...", "target": "..."}} for each edit'
            )
        else:
            cure = "add their lines, or set dataset.captioned_only=true to edit the others alone"
        where = self.path if self.captions is None else self.captions
        return f"{where}: {len(missing)} of {count} edits have no prompts ({first}{rest}); {cure}"


def _with(pair: EditPair, line: EditPair) -> EditPair:
    return replace(
        pair,
        source_prompt=line.source_prompt,
        target_prompts=line.target_prompts,
        blend_words=line.blend_words or pair.blend_words,
        word_weights=line.word_weights or pair.word_weights,
    )
