"""The daemon's HTTP side: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever keeps it running."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from streamfuse.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry

    from streamfuse.config import WebSettings


@contextmanager
def serve(
    settings: WebSettings, registry: CollectorRegistry, alive: Callable[[], bool], ready: Callable[[], bool]
) -> Iterator[tuple[str, int]]:
    """Serves on a thread of its own while it is entered; gives the address and port. Raises ConfigError where it can't listen there."""
    try:
        server = make_server(settings.host, settings.port, _app(registry, alive, ready), _Server, _Quiet)
    except OSError as error:
        ports = (errno.EADDRINUSE, errno.EACCES)
        fix = "set web.port to a free one above 1023, or to 0" if error.errno in ports else "set web.host to an address of this machine"
        raise ConfigError([Problem("web", f"can't listen on {settings.host}:{settings.port}: {error.strerror or error}; {fix}")]) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True)
    thread.start()
    try:
        yield settings.host, server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _app(registry: CollectorRegistry, alive: Callable[[], bool], ready: Callable[[], bool]) -> Any:
    metrics = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return answer(start_response, "405 Method Not Allowed", "only GET\n")
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        if path == "/livez":
            return check(start_response, alive(), "alive")
        if path == "/readyz":
            return check(start_response, ready(), "ready")
        return answer(start_response, "404 Not Found", "there is /metrics, /livez and /readyz\n")

    def check(start_response: StartResponse, holds: bool, what: str) -> Iterable[bytes]:
        if holds:
            return answer(start_response, "200 OK", f"{what}\n")
        return answer(start_response, "503 Service Unavailable", f"not {what}\n")

    def answer(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text.encode()]

    return app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """As WSGIServer has it, less a look-up of the host's full name, which can take seconds and serves nothing here."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 10  # a client that never finishes its request must not keep a thread

    def log_message(self, format: str, *args: object) -> None:
        return None
