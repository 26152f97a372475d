"""`p2p-bench studio`: edits tried on a page of this machine."""

import argparse
import signal
import threading
import webbrowser
from types import FrameType

from p2p_bench.app.console import result_console, status_console
from p2p_bench.errors import ConfigError

_SECONDS = 20.0
"""How long the step in hand is waited for at the end."""


def main(arguments: list[str], debug: bool) -> int:
    """Serves a page on which edits are tried, until Ctrl-C.

    Args:
        arguments: As described by `--help`.
        debug: Show stack traces.

    Returns:
        0.

    Raises:
        P2PError: The settings do not go together, the port is taken, or the model is not there.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench studio",
        usage="p2p-bench studio [--port N] [--no-browser] [KEY=VALUE ...]",
        description="Opens a page on which edits are tried: prompts, controller, tau, seed, a picture of "
        "your own. It shows source, plain target and edit, heatmaps of the words, and the command and the "
        "Python lines that make the same. The page is for this machine alone; Ctrl-C ends it.",
        epilog="KEY=VALUE as for p2p-bench edit, such as model=world_flow trainer.accelerator=cpu: the model "
        "is loaded once; what the page has a control for begins with the value that is given here.",
    )
    parser.add_argument("--port", type=int, metavar="N", help="of the page; 8765, or any that is free")
    parser.add_argument("--no-browser", action="store_true", help="only say where the page is")
    options, overrides = parser.parse_known_args(arguments)
    if unknown := [text for text in overrides if text.startswith("-")]:
        parser.error(f"unknown option {unknown[0]}")
    if options.port is not None and not 0 <= options.port < 2**16:
        raise ConfigError(f"--port: expected 0 to 65535, got {options.port}")
    from p2p_bench.app.studio import MOST_BYTES, Studio, offered
    from p2p_bench.app.studio_server import StudioServer

    studio = Studio(overrides)
    with StudioServer(options.port, debug) as server:
        studio.check()
        from p2p_bench.report.studio_page import studio_page

        server.studio = studio
        server.page = studio_page(studio.spec, studio.first, offered(), server.token, MOST_BYTES)
        status_console().print(f"loading model {studio.spec.name}", markup=False)
        studio.load()
        try:
            _end_by_signals()
            result_console().print(f"studio: {server.url} (Ctrl-C ends it)", markup=False)
            if not options.no_browser:
                threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            studio.stop()
            studio.wait(_SECONDS)
            status_console().print("the studio is closed", markup=False)
    return 0


def _end_by_signals() -> None:
    """Ctrl-C and SIGTERM end it alike, also where a shell had it ignore the first, as behind an `&`."""
    if threading.current_thread() is threading.main_thread():  # Python lets no other set them
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
