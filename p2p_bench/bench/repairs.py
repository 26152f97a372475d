"""How a run repairs its edits: what `run.repair` means for a pair."""

from dataclasses import dataclass

from p2p_bench.controllers.blend import ATTENTION, GIVEN
from p2p_bench.data.base import LoadedPair
from p2p_bench.editing import Repair
from p2p_bench.errors import ConfigError
from p2p_bench.fields import fault_of
from p2p_bench.types import MASK_NOTES, Feather, RepairKind


@dataclass(frozen=True)
class RepairRule:
    """The same repair for every pair.

    Attributes:
        kind: "none"; "words": outside the attention to the words that the pair blends by, weights or changes;
            "mask": outside the pair's own mask.
        feather: Standard deviation in pixels of the Gaussian on the mask's edge.
    """

    kind: RepairKind = "none"
    feather: Feather = 0.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range.
        """
        for key, value, hint in (
            ("run.repair", self.kind, RepairKind),
            ("run.repair_feather", self.feather, Feather),
        ):
            if fault := fault_of(key, value, hint):
                raise fault

    @property
    def mask_from(self) -> str:
        """Where its mask comes from: `GIVEN` by the data set, `ATTENTION`, or "" without a repair."""
        return {"none": "", "words": ATTENTION, "mask": GIVEN}[self.kind]

    def fault(self, loaded: LoadedPair) -> str | None:
        """Why a pair cannot be repaired; None if it can."""
        if self.kind != "mask" or loaded.error is not None:
            return None
        if loaded.mask is None:
            return "run.repair=mask: the pair has no mask; give it one, or set run.repair=words"
        if loaded.mask_state in ("empty", "lost"):
            return (
                f"run.repair=mask: {MASK_NOTES[loaded.mask_state]}, and the repair would undo the edit; "
                "correct the mask, or set run.repair=words"
            )
        return None

    def of(self, loaded: LoadedPair) -> Repair | None:
        """The repair of a pair without a fault."""
        if self.kind == "none":
            return None
        if self.kind == "mask":
            return Repair(mask=loaded.mask, feather=self.feather)
        pair = loaded.pair
        named = [word for words in pair.blend_words or () for word in words] or list(pair.word_weights)
        return Repair(words=tuple(dict.fromkeys(named)) or None, feather=self.feather)

    def without_mask(self) -> Repair | None:
        """The repair of an edit that brings no data set's mask.

        Raises:
            ConfigError: It would need one.
        """
        if self.kind == "mask":
            raise ConfigError("run.repair=mask: there is no mask here; set run.repair=words")
        return None if self.kind == "none" else Repair(feather=self.feather)
