"""ImgEdit-Bench's basic edits: `Basic/basic_edit.json` and the images it names; see datasets/imgedit."""

from dataclasses import dataclass
from typing import ClassVar

from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.images import load_image
from p2p_bench.data.places import inside, needed_file, set_folder
from p2p_bench.data.records import Faults, fitted_pixels, read_json_object, record_of, text_of
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair


@dataclass(frozen=True)
class ImgEdit(CaptionedSet):
    """The basic edits of ImgEdit-Bench; the id is the record's key, as its `id` is the path of the image.

    Attributes:
        path: Folder that holds `Basic/basic_edit.json` and the images.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`.
        captioned_only: See `CaptionedSet`.
        file: The JSON file, inside the folder.
        images: Folder inside it that the paths of images are relative to.
    """

    file: str = "Basic/basic_edit.json"
    images: str = "."

    NAME: ClassVar[str] = "imgedit"
    LACKS: ClassVar[str] = "has instructions only"

    def pairs(self) -> list[EditPair]:
        """The pairs in the file's order; no image is opened.

        Raises:
            DataError: The folder or the file cannot be used, or prompts are missing.
            ErrorList: Several records cannot be used.
        """
        folder = set_folder(self.path)
        path = needed_file(folder, self.file, "instructions")
        root = inside(folder, self.images)
        faults = Faults(path)
        for key, value in read_json_object(path).items():
            with faults.of(f"key {shortened(key)!r}"):
                record = record_of(value)
                instruction, category = text_of(record, "prompt"), text_of(record, "edit_type")
                image = inside(root, text_of(record, "id"))
                text_of({"key": key}, "key")
                faults.add(EditPair(key, "", (), category, image=image, instruction=instruction))
        return self.captioned(faults.settled(None))

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: It cannot be read.
        """
        assert pair.image is not None
        return fitted_pixels(load_image(pair.image), None, size, self.fit)
