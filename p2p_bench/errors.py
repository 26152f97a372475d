"""Errors that reach a user: one message that says what was wrong and what to do."""

import difflib
from collections.abc import Iterable, Sequence


class P2PError(ValueError):
    """Base of every error a user can cause or mend.

    Attributes:
        exit_code: What the command line leaves with (2: wrong usage, config or data).
    """

    exit_code = 2


class ConfigError(P2PError):
    """A setting is unknown, of the wrong type or out of range."""


class PromptError(P2PError):
    """A prompt cannot be used: empty, too long, or without a word that was asked for."""


class DataError(P2PError):
    """A data set, a line of it, an image or a mask cannot be used."""


class MissingWeightsError(P2PError):
    """A model or its weights are not on this machine, or not whole."""

    exit_code = 3


class CannotWriteError(P2PError):
    """A file of a run could not be written, as on a full disk; what is finished is kept."""

    exit_code = 75


class ProcessLostError(P2PError):
    """A process of a run, or the device it worked on, is gone; what is finished is kept."""

    exit_code = 75


class OtherProcessError(P2PError):
    """What went wrong in another process of a run, as it said; what is finished is kept.

    Attributes:
        exit_code: As of the error there.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code_of(error: BaseException) -> int:
    """What the command line leaves with after an error; a disk can be mended, and the run goes on."""
    if isinstance(error, P2PError):
        return error.exit_code
    return CannotWriteError.exit_code if isinstance(error, OSError | KeyboardInterrupt) else 1


class NonFiniteLatentError(P2PError):
    """A latent became NaN or infinite.

    Args:
        model: Name of the model.
        sample: Id of the sample whose row broke.
        step: Denoising step (an index from 0) after which it was seen.
    """

    exit_code = 1

    def __init__(self, model: str, sample: str, step: int) -> None:
        super().__init__(
            f"latents of sample {sample!r} are not finite after step {step} of model {model!r}; "
            "try float32 (model.dtype=float32) or a lower guidance"
        )
        self.model = model
        self.sample = sample
        self.step = step


class ErrorList(P2PError):  # noqa: N818 - a list of errors, as the name says
    """Several faults found at once, listed together.

    Args:
        errors: At least one error; the exit code is the highest of theirs.
    """

    def __init__(self, errors: Sequence[P2PError]) -> None:
        if not errors:
            raise ValueError("errors: expected at least one error, got none")
        self.errors = tuple(errors)
        self.exit_code = max(error.exit_code for error in errors)
        lines = [str(error) for error in errors]
        super().__init__(
            lines[0]
            if len(lines) == 1
            else f"{len(lines)} faults:\n" + "\n".join(f"  - {line}" for line in lines)
        )


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint " Did you mean 'x'?" for the option nearest to `name`, or the empty string."""
    match = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
