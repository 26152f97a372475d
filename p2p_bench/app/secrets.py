"""Keys and tokens that settings take from the environment: no file of a run holds them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from p2p_bench.hashing import digest

_SECRET = re.compile(r"\$\{\s*oc\.env\s*:\s*[^}]*(key|token|secret|passw|credential)", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_DIGITS = 8


def holds_password(url: str) -> bool:
    """Whether a URL names a password, as `s3://NAME:PASSWORD@bucket` does."""
    return _PASSWORD.search(url) is not None


def without_secrets(resolved: Any, typed: Any) -> Any:
    """Resolved settings; what comes from a variable that is called as a secret stands as it was typed.

    So does what takes it from there by an interpolation of its own. A value that was typed stays, even one
    that the secret happens to be (`none`). Beside it stands the start of a digest, so that other values are
    other settings.

    Args:
        resolved: Plain values.
        typed: The same, interpolations as they stand.
    """
    known = dict(_secrets(resolved, typed))
    return _hidden(resolved, typed, known) if known else resolved


def typed_again(resolved: Sequence[str], typed: Sequence[str]) -> tuple[str, ...]:
    """Resolved overrides, to be given again; those with secrets as they were typed."""
    return tuple(text if _SECRET.search(text) else value for value, text in zip(resolved, typed, strict=True))


def _secrets(resolved: Any, typed: Any) -> Iterator[tuple[str, str]]:
    """Values to hide, and what stands for each."""
    if isinstance(resolved, Mapping) and isinstance(typed, Mapping):
        for key, value in resolved.items():
            yield from _secrets(value, typed.get(key))
    elif isinstance(resolved, list) and isinstance(typed, list):
        for value, text in zip(resolved, typed, strict=False):
            yield from _secrets(value, text)
    elif isinstance(typed, str) and _SECRET.search(typed) and str(resolved):
        yield str(resolved), f"{typed} [{digest(resolved)[:_DIGITS]}]"


def _hidden(value: Any, typed: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        told = typed if isinstance(typed, Mapping) else dict.fromkeys(value, typed)
        return {key: _hidden(item, told.get(key), known) for key, item in value.items()}
    if isinstance(value, list):
        texts = typed if isinstance(typed, list) else [typed] * len(value)
        return [_hidden(item, text, known) for item, text in zip(value, texts, strict=True)]
    if not isinstance(typed, str) or "${" not in typed:
        return value
    text = str(value)
    for secret, shown in known.items():
        if secret in text:
            return text.replace(secret, shown) if text != secret else shown
    return value
