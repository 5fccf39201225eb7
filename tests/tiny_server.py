"""A server on this machine that answers as a test says, and a hasty client's limits."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

from aprm_jax.config.groups import HttpConfig

SECRET = "sk-0123456789-secret"
FAST = HttpConfig(
    requests=3,
    retries=3,
    first_wait=0.001,
    longest_wait=0.01,
    connect_seconds=5,
    read_seconds=5,
    request_seconds=5,
    max_bytes=1 << 16,
)
Reply = bytes | tuple[int, dict[str, str], bytes]


class Server(http.server.ThreadingHTTPServer):
    """Answers with what `answer(number of the request, body)` returns."""

    daemon_threads = True

    def __init__(self, answer: Callable[[int, dict[str, Any]], Reply]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.flying = self.most_flying = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.bodies)
            server.bodies.append({"path": self.path, **body})
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.flying += 1
            server.most_flying = max(server.most_flying, server.flying)
        reply = server.answer(number, body)
        with server.lock:
            server.flying -= 1
        status, headers, content = (
            (200, {}, reply) if isinstance(reply, bytes) else reply
        )
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Reply]) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def of_prm(prm: Any) -> Callable[[int, dict[str, Any]], Reply]:
    """The answers of a PRM, in that protocol."""

    def answer(number: int, body: dict[str, Any]) -> Reply:
        del number
        (found,) = prm.verifier.score([(body["question"], tuple(body["steps"]))])
        stated = prm.verifier.scale.probability(found)
        return scored(*(None if math.isnan(p) else float(p) for p in stated))

    return answer


def scored(*scores: Any) -> bytes:
    """An answer of our protocol of scores."""
    return json.dumps({"scores": list(scores)}).encode()
