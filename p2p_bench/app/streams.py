"""Standard output and error that no terminal can break: what cannot be shown is replaced or left out.

A run's exit code says how the run ended. Neither a terminal without UTF-8 nor a reader that has gone away
(`p2p-bench ... | head`) nor a closed or full output may change it after all the work.
"""

import io
import os
import select
import sys
from typing import Any

_STANDARD = (0, 1, 2)


class PatientFile(io.RawIOBase):
    """A file descriptor whose write errors end the writing, not the program.

    Args:
        descriptor: Where the bytes go; it is not closed.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.gone = False

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        """Writes what there is; after the first error nothing more."""
        while not self.gone:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:  # a pipe that does not block, and is full
                select.select([], [self.descriptor], [])
            except OSError:  # the reader has gone, or the disk is full
                self.gone = True
        return memoryview(data).nbytes


def make_patient() -> None:
    """Makes the process's standard streams so, and opens those that were closed onto nothing."""
    _open_closed()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None:
            stream.flush()
        encoding = getattr(stream, "encoding", None) or "utf-8"
        patient = io.TextIOWrapper(
            io.BufferedWriter(PatientFile(descriptor)),
            encoding=encoding,
            errors="replace",
            line_buffering=name == "stderr" or os.isatty(descriptor),
        )
        setattr(sys, name, patient)


def _open_closed() -> None:
    """A closed standard descriptor would be given to the next file that is opened, and written into."""
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != descriptor:
                os.dup2(nothing, descriptor)
                os.close(nothing)
