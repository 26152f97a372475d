"""Changes of an object that several threads need at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary


@dataclass
class _Held:
    undo: Callable[[], None]
    users: int = 0


@dataclass(frozen=True)
class SharedChange:
    """A change of an object that lasts while anyone is within it: the first makes it, the last undoes it."""

    _held: "WeakKeyDictionary[Any, _Held]" = field(default_factory=WeakKeyDictionary)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def within(self, changed: Any, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
        """Hold the change.

        Args:
            changed: The object.
            change: Makes the change and returns what undoes it. It is called where nobody is within it yet.
        """
        with self._lock:
            if changed not in self._held:
                self._held[changed] = _Held(change())
            self._held[changed].users += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[changed].users -= 1
                if not self._held[changed].users:
                    self._held.pop(changed).undo()
