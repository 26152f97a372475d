"""A folder of images that were made elsewhere, by whatever tool."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from p2p_bench import raster
from p2p_bench.data.base import PairDataset
from p2p_bench.data.images import Fit
from p2p_bench.data.places import home_of, inside
from p2p_bench.editors.base import EditorSettings, Equipment, KnownVariant
from p2p_bench.editors.found import LOSSES, Found, Key, Panels, PictureEditor, content_of, facts_of
from p2p_bench.editors.patterns import SUFFIXES, Listing, Pattern, composed
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.hashing import digest
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

CONTROLLER = "given"
"""Name of the controller in results: nobody knows how the images were edited."""

_SHOWN = 3


@dataclass(frozen=True)
class FolderOfImages(EditorSettings):
    """Images by name, see `Pattern`; each is scored against the source image of the data set.

    Attributes:
        path: The folder.
        pattern: How its files are named, relative to it.
        variants: Names for `{variant}`; without that field one name, that of the folder where it is empty.
        panels: Pictures side by side in a file.
        panel: Which of them is the edited image, from 1; None is the last.
        reconstruction: Which is the reconstructed source, from 1; None where there is none.
        fit: What is done with an image of another size than expected: see `fit_image`. "error" refuses it.
    """

    path: str | Path
    pattern: str = "{id}"
    variants: Sequence[str] = ()
    panels: Annotated[int, AtLeast(1)] = 1
    panel: Annotated[int | None, AtLeast(1)] = None
    reconstruction: Annotated[int | None, AtLeast(1)] = None
    fit: Fit = "error"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        check_fields(self, "editor.")
        Pattern(self.pattern)
        for name, place in (("panel", self.panel), ("reconstruction", self.reconstruction)):
            if place is not None and place > self.panels:
                raise ConfigError(f"score.{name}={place}: there are score.panels={self.panels}")

    def known_variants(self) -> tuple[KnownVariant, ...]:
        """See `EditorSettings.known_variants`."""
        names = tuple(self.variants) or (Path(self.path).expanduser().resolve().name or "images",)
        return tuple(KnownVariant(str(name), CONTROLLER) for name in names)

    def loads(self, spec: Any) -> str:
        """The pictures."""
        return f"the pictures of {self.path}"

    def variants_there(self, dataset: PairDataset) -> tuple[str, ...]:
        """Names for `{variant}` under which there is a picture of any edit, in order.

        Raises:
            ConfigError: The folder cannot be read, or the pattern does not suit the data set.
        """
        pattern = Pattern(self.pattern)
        if "variant" not in pattern.names:
            return ()
        home, listing = home_of(dataset), Listing(self._files(), pattern.exact)
        found = {
            variant
            for pair, place, target in self._edits(dataset)
            for variant in pattern.variants_of(pair, place, target, home, listing)
        }
        return tuple(sorted(found))

    def left_out(self, unused: Sequence[str]) -> dict[str, list[str]]:
        """Pictures that are no edit's by the name for `{variant}` that none of `variants` is.

        Args:
            unused: See there.
        """
        pattern, known = Pattern(self.pattern), set(self.variants)
        found: dict[str, list[str]] = {}
        for name in unused if "variant" in pattern.names else ():
            variant = pattern.variant_of(composed(name))
            if variant and variant not in known:
                found.setdefault(variant, []).append(name)
        return found

    def linked_folders(self) -> list[str]:
        """Links to folders below the folder, relative to it: they are not entered."""
        folder = self._folder()
        return [
            (Path(parent) / name).relative_to(folder).as_posix()
            for parent, folders, _ in self._walk(folder)
            for name in folders
            if Path(parent, name).is_symlink()
        ]

    def places(self, dataset: PairDataset) -> dict[Key, Found | str]:
        """The picture of each edit, or why there is none.

        Raises:
            ConfigError: There is no such folder; it holds no picture of any edit; the pattern does not suit
                the data set.
        """
        files = self._files()
        if not files:
            raise ConfigError(
                f"{self.path}: holds no pictures ({', '.join(SUFFIXES)}); expected files named "
                f"{self.pattern!r} (score.pattern){self._links()}"
            )
        wanted, listing = dict(self._names(dataset)), Listing(files, Pattern(self.pattern).exact)
        owners = Counter(wanted.values())
        # Two names may have one file: "cat" and "cat.png", where a name does not say how its file ends.
        shared = Counter(file for name in wanted.values() for file in listing.named(name))
        found: dict[Key, Found | str] = {}
        for key, name in wanted.items():
            there = listing.named(name)
            number = max([owners[name], *(shared[file] for file in there)])
            found[key] = self._place(name, there, number)
        if not any(isinstance(one, Found) for one in found.values()):
            raise ConfigError(self._nothing(files, wanted, found, listing))
        return found

    def sums(self, dataset: PairDataset) -> Mapping[str, str]:
        """Checksum of the pictures; raises as `places` does."""
        return {"pictures": digest(content_of(self.places(dataset)))}

    def facts(self, dataset: PairDataset) -> Mapping[str, Any]:
        """Where the pictures come from and how good their files are."""
        found = self.places(dataset)
        return {
            "from": "folder", "path": str(self.path), "pattern": self.pattern, "fit": self.fit,
            "masks": "given by the data set", **facts_of(found), "unused": len(self.unused(found)),
        }  # fmt: skip

    def unused(self, found: Mapping[Key, Found | str]) -> list[str]:
        """The pictures that are no edit's, relative to the folder.

        Args:
            found: As `places` gives it.
        """
        folder, used = self._folder(), {one.edited for one in found.values() if isinstance(one, Found)}
        return [name for name in self._files() if (folder / name).resolve() not in used]

    def ready(self, equipment: Equipment, device: torch.device | str = "cpu") -> PictureEditor:
        """See `EditorSettings.ready`; nothing is read before it is asked for."""
        assert equipment.dataset is not None
        panels = Panels(self.panels, self.panel, self.reconstruction)
        size = equipment.checkpoint.spec().image_size
        return PictureEditor(self.places(equipment.dataset), size, panels, self.fit)

    def _folder(self) -> Path:
        folder = Path(self.path).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError(f"{shortened(str(self.path))}: no such folder of images")
        return folder

    def _files(self) -> list[str]:
        """Pictures below the folder, relative to it; hidden ones are none."""
        folder, found = self._folder(), []
        for parent, _, names in self._walk(folder):
            here = Path(parent).relative_to(folder)
            pictures = (name for name in names if name.lower().endswith(SUFFIXES) and name[0] != ".")
            found += [(here / name).as_posix() for name in sorted(pictures)]
        return found

    def _walk(self, folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        """A folder and those below it but for hidden ones, with the names of folders and files in each."""

        def refused(error: OSError) -> None:
            raise ConfigError(f"{error.filename}: the folder cannot be read ({error.strerror})") from error

        for parent, folders, names in os.walk(folder, onerror=refused):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield parent, folders, names

    def _links(self) -> str:
        """What to add to a message where links to folders are not entered."""
        links = self.linked_folders()
        return f"; links to folders are not entered ({_listed(links)})" if links else ""

    def _names(self, dataset: PairDataset) -> Iterator[tuple[Key, str]]:
        pattern, home = Pattern(self.pattern), home_of(dataset)
        edits = list(self._edits(dataset))
        for variant in self.known_variants():
            for pair, place, target in edits:
                yield (pair.id, variant.name, target), pattern.of(pair, place, target, variant.name, home)

    def _edits(self, dataset: PairDataset) -> Iterator[tuple[EditPair, int, int]]:
        """Pairs, their places and targets, once the pattern tells them apart."""
        pattern, pairs = Pattern(self.pattern), dataset.pairs()
        chosen = next((key for key in ("categories", "captioned_only") if getattr(dataset, key, None)), None)
        if "index" in pattern.names and chosen is not None:
            raise ConfigError(
                f"score.pattern: {{index}} counts all pairs of a data set, but dataset.{chosen} leaves some "
                f"out; use {{id}}, or leave dataset.{chosen} out"
            )
        several = next((pair for pair in pairs if len(pair.target_prompts) > 1), None)
        if several is not None and "target" not in pattern.names:
            raise ConfigError(
                f"score.pattern: pair {several.id!r} has {len(several.target_prompts)} target prompts; "
                "expected {target} in the pattern, their place from 0"
            )
        for place, pair in enumerate(pairs):
            for target in range(len(pair.target_prompts)):
                yield pair, place, target

    def _place(self, name: str, found: Sequence[str], owners: int) -> Found | str:
        shown = shortened(name)
        if owners > 1:
            return f"the picture {shown} would be that of {owners} edits; make score.pattern tell them apart"
        if not found:
            ending = "" if Pattern(self.pattern).exact else " (.png, .jpg, .jpeg or .webp)"
            names = Pattern(self.pattern).names
            counted = [f"{{{field}}}" for field in ("index", "target") if field in names]
            from_0 = f"; {' and '.join(counted)} of score.pattern count from 0" if counted else ""
            return f"there is no picture {shown}{ending} in {self.path}{from_0}"
        if len(found) > 1:
            return f"there are {len(found)} pictures of it, {', '.join(found)}; leave one"
        try:
            path = inside(self._folder(), found[0])
        except DataError as error:
            return str(error)
        kind = raster.kind_of(path)
        lossy = f"the picture is a {kind} file, {LOSSES}"
        return Found(path, known={"notes": lossy} if kind in raster.LOSSY else {})

    def _nothing(
        self,
        files: Sequence[str],
        wanted: Mapping[Key, str],
        found: Mapping[Key, Found | str],
        listing: Listing,
    ) -> str:
        """Why no edit has a picture, with names that were expected and names that are there."""
        reasons = Counter(one for one in found.values() if isinstance(one, str))
        expected = list(dict.fromkeys(wanted.values()))
        if not any(map(listing.named, expected)):
            return (
                f"{self.path}: none of its {len(files)} pictures fits score.pattern={self.pattern!r}; "
                f"expected names such as {_listed(expected)}, found such as {_listed(files)}{self._links()}"
            )
        return (
            f"{self.path}: no edit has a picture of its own (score.pattern={self.pattern!r}): "
            + (reasons.most_common(1)[0][0])
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(shortened(name)) for name in names[:_SHOWN])
