"""What the importers of published data sets share: strict reading, and faults that are told together."""

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from p2p_bench.data.base import PairImages, take
from p2p_bench.data.images import Fit, fit_image, fit_mask
from p2p_bench.data.pairs import UNWRITTEN, is_unwritten
from p2p_bench.errors import DataError, ErrorList
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.raster import is_file, shortened
from p2p_bench.types import EditPair


@dataclass(frozen=True)
class FolderSet:
    """A data set that lies in a folder.

    Attributes:
        path: The folder.
        limit: Number of pairs from the start; None takes all.
        fit: How an image of another size is brought to the model's, as of `JsonlPairs`.
        name: Name in results; that of the data set where not given.
    """

    path: str | Path
    limit: Annotated[int | None, AtLeast(1)] = None
    fit: Fit = "crop"
    name: str = ""

    NAME: ClassVar[str]
    """Name of the data set."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        check_fields(self, "dataset.")
        if not self.name:
            object.__setattr__(self, "name", self.NAME)


class Faults:
    """Pairs of a data set, and what is wrong with the records that became none.

    Args:
        path: The file or folder that is read, for the messages.
        kind: Which of the two.
    """

    def __init__(self, path: Path, kind: str = "file") -> None:
        self.path = path
        self.kind = kind
        self.pairs: list[EditPair] = []
        self._errors: list[DataError] = []
        self._seen: set[str] = set()

    @contextmanager
    def of(self, where: str, path: Path | None = None) -> Iterator[None]:
        """Turns a `DataError` into one that names the file (`path` where there are several), and goes on."""
        try:
            yield
        except DataError as error:
            self._errors.append(DataError(f"{path or self.path}, {where}: {error}"))

    def add(self, pair: EditPair) -> None:
        """Keeps a pair.

        Raises:
            DataError: Its id is taken.
        """
        if pair.id in self._seen:
            raise DataError(f"id {shortened(pair.id)!r} is taken by an earlier one; ids must be unique")
        self._seen.add(pair.id)
        self.pairs.append(pair)

    def settled(self, limit: int | None, wanted: str = "") -> list[EditPair]:
        """The pairs, once nothing is wrong with any record and there is an image.

        Args:
            limit: Number of pairs from the start; None takes all.
            wanted: What was asked of the pairs, for the message where none is left.

        Raises:
            DataError: One fault; or there is no pair; or all of its images are missing.
            ErrorList: Several faults.
        """
        if self._errors:
            raise self._errors[0] if len(self._errors) == 1 else ErrorList(self._errors)
        if not self.pairs:
            raise DataError(f"{self.path}: the {self.kind} holds no pairs{wanted}")
        pairs = take(self.pairs, limit)
        images = [pair.image for pair in pairs if pair.image is not None]
        if images and not any(map(is_file, images)):
            raise DataError(
                f"{self.path}: none of its {len(images)} images exists, the first is "
                f"{shortened(str(images[0]))}; put them there, as datasets/README.md says"
            )
        return pairs


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without the mark that some editors put before it.

    Raises:
        DataError: It cannot be read or is no such text.
    """
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def parse_json(text: str) -> Any:
    """JSON in which no object has a key twice.

    Raises:
        DataError: It is none.
    """

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for place, key in enumerate(keys) if key in keys[:place])
            raise DataError(f"{shortened(twice)}: given more than once")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except DataError:
        raise
    except json.JSONDecodeError as error:
        raise DataError(f"broken JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"broken JSON: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        DataError: It cannot be read, or holds something else.
    """
    try:
        found = parse_json(read_text(path))
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object {{id: ...}}, got {kind_of(found)}")
    return found


def stamp_of(path: Path) -> tuple[str, int, int]:
    """Path, time and size of a file: a key of what is read from it once.

    Raises:
        DataError: It is not there.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    return str(path), stat.st_mtime_ns, stat.st_size


def text_of(record: Mapping[str, Any], key: str) -> str:
    """The text of a record under a key.

    Raises:
        DataError: It is missing, is no text or is blank.
    """
    text = optional_text(record, key)
    if text is None:
        raise DataError(f"{key}: missing" if record.get(key) is None else f"{key}: is empty")
    return text


def optional_text(record: Mapping[str, Any], key: str) -> str | None:
    """The same, None where it is missing, null or blank.

    Raises:
        DataError: It is no text, or what programs write in the place of one.
    """
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"{key}: expected text, got {kind_of(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{key}: is not valid Unicode text: {error.reason}") from error
    check_written(key, value)
    return value if value.strip() else None


def check_written(key: str, text: str | None) -> None:
    """Refuses what programs write into a table in the place of a missing text.

    Raises:
        DataError: The text is that.
    """
    if text is not None and is_unwritten(text):
        raise DataError(f"{key}: {text.strip()!r} {UNWRITTEN}; leave it empty")


def refuse_misspelt(record: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses a key that is a known one, which is absent, but for capitals, a plural or what joins its words.

    Raises:
        DataError: There is one; it would not be read.
    """
    absent = {_bare(key): key for key in known if key not in record}
    for key in record:
        if (meant := absent.get(_bare(str(key)))) is not None:  # keys of YAML are anything
            raise DataError(f"{shortened(str(key))}: is not read; call it {meant}")


def _bare(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "").replace(" ", "").removesuffix("s")


def integer_of(record: Mapping[str, Any], key: str) -> int:
    """The integer of a record under a key.

    Raises:
        DataError: It is missing or none.
    """
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{key}: expected an integer, got {kind_of(value)}")
    return value


def record_of(value: Any) -> Mapping[str, Any]:
    """A value that has to be an object.

    Raises:
        DataError: It is none.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"expected an object {{...}}, got {kind_of(value)}")
    return value


def chosen(options: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """A choice as a tuple; None where everything is taken."""
    return (options,) if isinstance(options, str) else None if options is None else tuple(options)


def kind_of(value: Any) -> str:
    """What a value read from a file is, in a word."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else "something else")


def fitted_pixels(
    image: Float[Tensor, "3 h w"], mask: Float[Tensor, "h w"] | None, size: tuple[int, int], fit: Fit
) -> PairImages:
    """An image and its mask at a model's size.

    Args:
        image: RGB in [0, 1].
        mask: 1 where the edit may change the image.
        size: Height and width of the model.
        fit: See `p2p_bench.data.images.fit_image`.

    Raises:
        DataError: `fit` is "error" and the size differs.
    """
    if mask is None:
        return PairImages(fit_image(image, size, fit))
    fitted = fit_mask(mask, size, fit)
    lost = bool(mask.any() and not fitted.any())
    return PairImages(fit_image(image, size, fit), fitted, mask_lost=lost)
