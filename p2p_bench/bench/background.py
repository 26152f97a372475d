"""Work that waits for the disk, done while the next batch is edited."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Background:
    """A thread that does one piece of work at a time; leaving the context waits for it.

    What goes wrong there is raised here, by whoever waits next: it is never lost.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows")
        self._last: Future[object] | None = None

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def start(self, work: Callable[[], object]) -> None:
        """Waits for the work before, and starts this.

        Raises:
            BaseException: What went wrong in the work before; this is not started.
        """
        self.wait()
        self._last = self._pool.submit(work)

    def wait(self) -> None:
        """Waits until what was started is done.

        Raises:
            BaseException: What went wrong there, once.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()
