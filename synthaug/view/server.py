"""The viewer's server: on localhost, nothing without the token, only files of the cases that were asked for."""

import json
import secrets
import sys
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

from synthaug.data.stored import read_as_nifti
from synthaug.review import Decisions
from synthaug.view.niivue import niivue_module
from synthaug.view.shown import Shown, channel_file, described, listed

PAGES = {"": ("page.html", "text/html"), "app.js": ("app.js", "text/javascript"), "app.css": ("app.css", "text/css")}
LONGEST_BODY = 10_000
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; style-src 'self' "
        "'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
        "frame-ancestors 'none'"
    ),
}


class ViewServer(ThreadingHTTPServer):
    """Serves the page, the cases and NiiVue under an address that has the token in it.

    Args:
        shown: the cases.
        decisions: where accept and reject go.
        port: of localhost; 0 for any that is free.

    Raises:
        ModuleNotFoundError: ipyniivue is not installed.
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, shown: Shown, decisions: Decisions, port: int = 0):
        self.shown, self.decisions, self.niivue = shown, decisions, niivue_module()
        self.token = secrets.token_urlsafe(24)
        self.listed = lru_cache(maxsize=64)(lambda number: json.dumps(listed(shown, number)).encode())
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """Address of the page, with the token."""
        return f"http://localhost:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a browser that goes away go; other errors are printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """Find what is asked for, after the token: content and its type; None where there is nothing."""
        if path in PAGES:
            name, kind = PAGES[path]
            return files("synthaug.view").joinpath("static", name).read_bytes(), f"{kind}; charset=utf-8"
        if path == "niivue.js":
            return self.niivue, "text/javascript; charset=utf-8"
        if path == "cases.json":
            names = [case.name for case in self.shown.cases]
            content = {"root": self.shown.root.name, "cases": names, "decisions": self.decisions.made}
            return json.dumps({**content, "file": self.decisions.file.name}).encode(), "application/json"
        match path.split("/"):
            case ["case", number] if self._is_case(number):
                return json.dumps(described(self.shown, int(number))).encode(), "application/json"
            case ["lesions", number] if self._is_case(number):
                return self.listed(int(number)), "application/json"
            case ["file", number, which, name] if self._is_case(number):
                return self._file(int(number), which, name)
        return None

    def _is_case(self, number: str) -> bool:
        return number.isascii() and number.isdigit() and int(number) < len(self.shown.cases)

    def _file(self, number: int, which: str, name: str) -> tuple[bytes, str] | None:
        """Read a file by the names that the page was told; nothing else can be named."""
        case = self.shown.cases[number]
        of = {"after": case, "before": self.shown.before.get(case.name)}.get(which)
        channel = name.removesuffix(".gz").removesuffix(".nii")
        if of is None:
            return None
        if channel == "label" and of.label is not None:
            return read_as_nifti(of.name, of.label), "application/octet-stream"
        return (channel_file(of, channel), "application/octet-stream") if channel in of.images else None


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ViewServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Give out a page or a file."""
        if (path := self._allowed()) is None:
            return
        try:
            found = self.server.answer(path)
        except (ValueError, OSError) as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode(), "text/plain; charset=utf-8")
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, b"not here", "text/plain")
        else:
            self._send(HTTPStatus.OK, *found)

    def do_POST(self) -> None:
        """Keep a decision."""
        if (path := self._allowed()) is None:
            return
        length = self.headers.get("Content-Length", "")
        if path != "decision" or not length.isdigit() or int(length) > LONGEST_BODY:
            self.close_connection = True
            self._send(HTTPStatus.BAD_REQUEST, b"expected a decision", "text/plain")
            return
        try:
            asked: Any = json.loads(self.rfile.read(int(length)))
            if asked["case"] not in [case.name for case in self.server.shown.cases]:
                raise ValueError(f"no case {asked['case']!r}")
            self.server.decisions.decide(asked["case"], asked["decision"])
        except (ValueError, KeyError, TypeError) as error:
            self._send(HTTPStatus.BAD_REQUEST, str(error).encode(), "text/plain; charset=utf-8")
        except OSError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode(), "text/plain; charset=utf-8")
        else:
            self._send(HTTPStatus.OK, json.dumps(self.server.decisions.made).encode(), "application/json")

    def _allowed(self) -> str | None:
        """Return the path after the token; without the token, or by another name than localhost, refuse."""
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        token, _, path = unquote(urlsplit(self.path).path).removeprefix("/").partition("/")
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        if known and host in ("localhost", "127.0.0.1"):
            return path
        self.close_connection = True  # what a refused request sends is not read
        self._send(HTTPStatus.FORBIDDEN, b"the address that synthaug view printed has a token", "text/plain")
        return None

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the token would be in it."""
