"""The page of `p2p-bench studio` over HTTP: to this machine alone, to its own page alone.

Other pages in the same browser, and other users of the machine, are kept out: every request has to name this
server as its host (a name of theirs that was made to lead here does not), has to bear the token that the
terminal showed, and one that changes something has to come from this very origin.
"""

import hmac
import json
import secrets
import traceback
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from p2p_bench.app.studio import MOST_BYTES, BusyError, StoppedEditError, Studio
from p2p_bench.errors import ConfigError, P2PError

HOST = "127.0.0.1"
PORT = 8765
TOKEN = "X-Studio-Token"
_MOST_BODY = MOST_BYTES * 4 // 3 + 2**16
"""A picture in base64, and the rest of the form."""

_JOBS = 4
"""Edits whose outcome is kept."""

_SECONDS = 30.0
"""How long a connection may say nothing."""


class StudioServer(ThreadingHTTPServer):
    """Serves one studio.

    Args:
        port: Where to listen; 0 is any free port, None one that is easily told where it is free.
        debug: Show stack traces.

    Raises:
        ConfigError: The port is taken, or is none.
    """

    daemon_threads = True
    studio: Studio
    page: str
    patience = 20.0
    """Seconds that a request waits for an edit before it is told to ask again; browsers wait for minutes."""

    def __init__(self, port: int | None, debug: bool = False) -> None:
        self.debug = debug
        self.token = secrets.token_urlsafe(24)
        self._jobs: dict[str, Future[dict[str, Any]]] = {}
        self._workers = ThreadPoolExecutor(_JOBS)
        try:
            super().__init__((HOST, PORT if port is None else port), _Handler)
        except (OSError, OverflowError) as error:
            if port is not None:
                raise ConfigError(
                    f"--port: {port} cannot be used ({error}); choose another, or 0 for any that is free"
                ) from error
            super().__init__((HOST, 0), _Handler)

    def server_bind(self) -> None:
        """Without asking anybody for the machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is, with the token that opens it."""
        return f"http://{HOST}:{self.server_port}/?token={self.token}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What this server is called."""
        return tuple(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    def begin(self, form: Any) -> str:
        """Begins an edit; what it is called."""
        name = secrets.token_hex(8)
        self._jobs[name] = self._workers.submit(self.studio.edit, form)
        over = [old for old, job in self._jobs.items() if job.done()][:-_JOBS]
        for old in over:
            del self._jobs[old]
        return name

    def job(self, name: str) -> "Future[dict[str, Any]] | None":
        """An edit that was begun; None once it is forgotten."""
        return self._jobs.get(name)

    def knows(self, token: str | None) -> bool:
        """Whether somebody bears the token."""
        return hmac.compare_digest((token or "").encode(), self.token.encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is nobody's concern."""
        if self.debug:
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    server: StudioServer
    protocol_version = "HTTP/1.1"
    server_version = "p2p_bench"
    sys_version = ""
    timeout = _SECONDS

    def do_GET(self) -> None:  # the base class calls it so
        parts = urlsplit(self.path)
        if not self._is_ours():
            return
        if parts.path == "/":
            if self.server.knows(parse_qs(parts.query).get("token", [""])[0]):
                self._send(HTTPStatus.OK, self.server.page.encode("utf-8"), "text/html; charset=utf-8")
            else:
                self._refuse(HTTPStatus.FORBIDDEN, "open the address that the terminal shows, token and all")
        elif not self._bears_token():
            return
        elif parts.path == "/progress":
            step, steps = self.server.studio.progress
            self._answer(HTTPStatus.OK, {"step": step, "steps": steps})
        elif parts.path == "/edit":
            self._answer_edit(parse_qs(parts.query).get("job", [""])[0])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:  # likewise
        if not (self._is_ours() and self._is_own_origin() and self._bears_token()):
            return
        if self.path == "/stop":
            self._body()
            self.server.studio.stop()
            self._answer(HTTPStatus.OK, {})
        elif self.path == "/edit":
            body = self._body()
            if body is not None:
                self._begin(body)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _begin(self, body: bytes) -> None:
        try:
            form = json.loads(body)
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "the page sent no form; load it again")
            return
        self._answer_edit(self.server.begin(form))

    def _answer_edit(self, name: str) -> None:
        """What came of an edit; that it is still being made, after a while."""
        job = self.server.job(name)
        if job is None:
            self._refuse(HTTPStatus.NOT_FOUND, "the studio has no such edit any more; make it again")
            return
        wait([job], self.server.patience)
        if not job.done():
            self._answer(HTTPStatus.ACCEPTED, {"job": name})
            return
        error = job.exception()
        if error is None:
            self._answer(HTTPStatus.OK, job.result())
        elif isinstance(error, BusyError | StoppedEditError):
            self._answer(HTTPStatus.CONFLICT, {"error": str(error)})
        elif isinstance(error, P2PError):
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            if self.server.debug:
                traceback.print_exception(error)
            said = f"unexpected {type(error).__name__}: {error} (p2p-bench studio --debug shows more)"
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": said})

    def _body(self) -> bytes | None:
        """What was sent; None where it was refused."""
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
            return None
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected the length of what is sent")
            return None
        if int(length[:20]) > _MOST_BODY:
            said = f"the picture is too large; expected a file of at most {MOST_BYTES >> 20} MB"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
            return None
        return self.rfile.read(int(length))

    def _is_ours(self) -> bool:
        """Whether this server is asked for by its own name, once; a name of others may lead here as well."""
        named = self.headers.get_all("Host") or []
        if len(named) == 1 and named[0].lower() in self.server.hosts:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "this is not the host's name")
        return False

    def _is_own_origin(self) -> bool:
        origin = self.headers.get("Origin")
        if origin is None or origin.lower() in [f"http://{host}" for host in self.server.hosts]:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "another page has no use for this one")
        return False

    def _bears_token(self) -> bool:
        if self.server.knows(self.headers.get(TOKEN)):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "the studio was started anew; open the address that it shows")
        return False

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answers without reading what was sent, so that the connection cannot go on."""
        self.close_connection = True
        self._answer(status, {"error": reason})

    def _answer(self, status: HTTPStatus, data: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(data).encode("utf-8"), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal shows no requests."""
