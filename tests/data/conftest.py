from tests.app.conftest import command

__all__ = ["command"]
