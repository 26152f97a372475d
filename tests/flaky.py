"""Object stores in memory: one as it should be, one that fails one call in ten."""

from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyFileSystem(MemoryFileSystem):
    """Every tenth call breaks off; an upload that does leaves nothing, as with an object store."""

    protocol = "flaky"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    calls: ClassVar[int] = 0
    failures: ClassVar[int] = 0
    every: ClassVar[int] = 10

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("flaky://"))

    def _count(self) -> None:
        cls = type(self)
        cls.calls += 1
        if cls.calls % cls.every == 0:
            cls.failures += 1
            raise ConnectionResetError("the store hung up")

    def put_file(self, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return super().put_file(*args, **kwargs)

    def get_file(self, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return super().get_file(*args, **kwargs)

    def pipe_file(self, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return super().pipe_file(*args, **kwargs)

    def info(self, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return super().info(*args, **kwargs)

    def find(self, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return super().find(*args, **kwargs)

    def cat_file(self, *args: Any, **kwargs: Any) -> Any:
        self._count()
        return super().cat_file(*args, **kwargs)


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
