"""Hashes that are equal on every machine and in every process."""

import hashlib
import json
from pathlib import Path
from typing import Any


def noise_seed(seed: int, sample_id: str) -> int:
    """The generator seed of one sample: a function of the run's seed and the sample's id alone.

    Args:
        seed: Seed of the run.
        sample_id: Id of the sample within its data set.

    Returns:
        An integer in [0, 2**63).
    """
    payload = f"{seed}\x00{sample_id}".encode()
    return int.from_bytes(hashlib.sha256(payload).digest()[:8], "big") >> 1


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
