"""The pictures that a finished run kept, to be scored by other metrics."""

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from p2p_bench.data.base import PairDataset
from p2p_bench.data.places import inside
from p2p_bench.editors.base import EditorSettings, Equipment, KnownVariant
from p2p_bench.editors.found import Found, Key, PictureEditor, content_of, facts_of
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.fields import check_fields
from p2p_bench.hashing import digest
from p2p_bench.marks import fits, mark_name
from p2p_bench.raster import is_file, shortened

RESULTS, SUMMARY = "results.parquet", "summary.json"
_KNOWN = (
    "controller", "control", "tau_cross", "tau_self", "inversion", "inversion_from", "steps", "guidance",
    "seed", "notes", "unet_rows", "unet_rows_backward",
)  # fmt: skip
"""Columns that say how an edit was made, and not how it was scored."""

_MARKED = ("image_source", "image_target", "image_vae")
"""Columns of the pictures that are read."""

_SHARED = "the table of the run gives its picture to several edits, or several rows to it; run it again"

_KEPT = "the run kept no picture of it; run it with run.images=null, which keeps those of all pairs"


@dataclass(frozen=True)
class FinishedRunImages(EditorSettings):
    """Pictures of the edits of another run, 8 bits a channel; how they were made is taken over.

    What the run did not make has its reason, as has what it did not keep.

    Attributes:
        path: Directory of the run.
    """

    path: str | Path

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type.
        """
        check_fields(self, "editor.")

    def known_variants(self) -> tuple[KnownVariant, ...]:
        """The variants of the run."""
        facts = self.summary()["variants"]
        return tuple(
            KnownVariant(str(name), str(one["controller"]), str(one["tau_cross"]), str(one["tau_self"]))
            for name, one in facts.items()
        )

    def loads(self, spec: Any) -> str:
        """The pictures."""
        return f"the pictures of the run in {self.path}"

    def summary(self) -> Mapping[str, Any]:
        """The `summary.json` of the run.

        Raises:
            DataError: It is not there or not what a run leaves.
        """
        path = self._folder() / SUMMARY
        try:
            summary: Any = json.loads(path.read_text(encoding="utf-8"))
            if all(isinstance(summary[key], dict) for key in ("variants", "checksums")):
                return dict(summary)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}); is it the directory of a finished run?"
            ) from error
        raise DataError(f"{path}: not what a run leaves")

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the run.

        Raises:
            DataError: They cannot be read.
        """
        path = self._folder() / RESULTS
        try:
            rows: list[dict[str, Any]] = pq.read_table(path, partitioning=None).to_pylist()
            wanted = {"sample_id", "variant", "target_index", "status", "error", "image_target", *_KNOWN}
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable table of rows ({error})") from error
        if rows and (lacking := wanted - set(rows[0])):
            raise DataError(f"{path}: no rows of a run, they lack {', '.join(sorted(lacking))}")
        return rows

    def places(self) -> dict[Key, Found | str]:
        """The pictures of each edit, or why there are none.

        Raises:
            ConfigError: The run kept no pictures.
            DataError: Its files cannot be read.
        """
        found: dict[Key, Found | str] = {}
        rows = self.rows()
        marking = self._marks(rows)
        owners = Counter(row["image_target"] for row in rows)
        for row in rows:
            key = _key(row)
            shared = bool(row["image_target"]) and owners[row["image_target"]] > 1
            found[key] = _SHARED if shared or key in found else self._place(row, marking)
        if not any(isinstance(one, Found) for one in found.values()):
            lost = next((str(found[_key(row)]) for row in rows if row["image_target"]), "")
            first = f" (of the first edit, {lost})" if lost else ""
            raise ConfigError(
                f"{self.path}: there are no pictures of this run to be scored; run it with run.images=null, "
                f"which keeps those of all pairs{first}"
            )
        return found

    def sums(self, dataset: PairDataset) -> Mapping[str, str]:
        """Checksum of the pictures; raises as `places` does."""
        return {"pictures": digest(content_of(self.places()))}

    def facts(self, dataset: PairDataset) -> Mapping[str, Any]:
        """Which run the pictures come from and how good their files are."""
        summary, rows = self.summary(), self.rows()
        return {
            "from": "run", "path": str(self.path),
            "run_id": rows[0]["run_id"] if rows else "",
            "checksums": dict(summary["checksums"]),
            "masks": "given by the data set", **facts_of(self.places()),
            "unchecked": 0 if self._marks(rows) else sum(bool(row["image_target"]) for row in rows),
        }  # fmt: skip

    def ready(self, equipment: Equipment, device: torch.device | str = "cpu") -> PictureEditor:
        """See `EditorSettings.ready`; nothing is read before it is asked for."""
        return PictureEditor(self.places(), equipment.checkpoint.spec().image_size)

    def _marks(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the run marked what it wrote: one of an older version did not, and nothing is known."""
        return any(self._state(row, column) is not None for row in rows for column in _MARKED)

    def _state(self, row: Mapping[str, Any], column: str) -> bool | None:
        """Whether a picture is what its run wrote there; None where there is none, or nothing tells."""
        name = row.get(column)
        try:
            path = inside(self._folder(), name) if name else None
            stat = None if path is None else path.stat()
        except (DataError, OSError):
            return None
        if path is None or stat is None:
            return None
        return _stamped_state(
            path, mark_name(str(row.get("run_id")), str(name)), stat.st_mtime_ns, stat.st_size
        )

    def _place(self, row: Mapping[str, Any], marking: bool) -> Found | str:
        if row["status"] != "ok":
            return str(row["error"] or "the run could not make it")
        if not row["image_target"]:
            return _KEPT
        files = {}
        # Where nothing was reconstructed the source is the original, which comes from the data set.
        restored = row.get("image_source") != row.get("image_original")
        for role, column in (("edited", "image_target"), ("source", "image_source"), ("vae", "image_vae")):
            try:
                path = inside(self._folder(), row[column]) if row.get(column) else None
            except DataError as error:
                return str(error)
            if path is not None and not is_file(path):
                return f"its picture {shortened(row[column])} is no longer in the run's folder"
            read = path is not None and (restored or role != "source")
            if path is not None and read and marking and not self._state(row, column):
                return (
                    f"its picture {shortened(row[column])} is another file than the run wrote there; bring "
                    "that back, or score pictures of your own as a folder, with dataset=..."
                )
            files[role] = path if read else None
        known = {column: row[column] for column in _KNOWN}
        known["mask_from"] = row.get("mask_from") or ""  # not in runs of older versions
        assert files["edited"] is not None
        return Found(files["edited"], files["source"], files["vae"], known)

    def _folder(self) -> Path:
        return Path(self.path).expanduser().resolve()


def _key(row: Mapping[str, Any]) -> Key:
    return row["sample_id"], row["variant"], row["target_index"]


@functools.lru_cache(maxsize=2**16)
def _stamped_state(path: Path, mark: str, time: int, size: int) -> bool | None:
    """Of a file as it was at a time: the pictures of a run are asked for several times."""
    return fits(path.read_bytes(), mark)
