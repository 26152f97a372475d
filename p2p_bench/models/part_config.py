"""The configuration file of a part of a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from p2p_bench.errors import MissingWeightsError
from p2p_bench.models.files import read_json

_REQUIRED = object()


@dataclass(frozen=True)
class PartConfig:
    """A configuration file of a checkpoint, whose values are what they should be when they are asked for.

    Attributes:
        model: Name of the model, for messages.
        file: The file.
        values: What it holds.
    """

    model: str
    file: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path, model: str) -> "PartConfig":
        """Reads a file.

        Raises:
            MissingWeightsError: It is not there, or holds no JSON object.
        """
        return cls(model, file, read_json(file, model))

    def integer(self, key: str, default: Any = _REQUIRED) -> int:
        """An integer above 0."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.fault(key, "an integer above 0")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """A finite number above 0."""
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.fault(key, "a number above 0")
        return float(value)

    def offset(self, key: str) -> float:
        """A finite number, of any sign."""
        value = self.values.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise self.fault(key, "a finite number")
        return float(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """One integer above 0, or a list of some."""
        value = self.values.get(key)
        listed = value if isinstance(value, list) else [value]
        if not listed or any(not isinstance(one, int) or isinstance(one, bool) or one < 1 for one in listed):
            raise self.fault(key, "integers above 0")
        return tuple(listed)

    def check_class(self, expected: str) -> None:
        """Refuses the configuration of a network of another class.

        Raises:
            MissingWeightsError: It is.
        """
        named = self.values.get("_class_name", self.values.get("architectures"))
        if named is not None and expected not in (named if isinstance(named, list) else [named]):
            key = "_class_name" if "_class_name" in self.values else "architectures"
            raise self.fault(key, expected, "take a checkpoint that has one")

    def fault(self, key: str, expected: str, remedy: str = "get the checkpoint again") -> MissingWeightsError:
        """The error that a value is not what it should be."""
        found = json.dumps(self.values[key])[:100] if key in self.values else "absent"
        return MissingWeightsError(
            f"model {self.model!r}: {self.file}: {key} is {found}, expected {expected}; {remedy}"
        )
