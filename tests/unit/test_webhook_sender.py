"""The sender in the tests' service: it has to try again exactly when LiveKit does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from livekit_backup.testing import WebhookSender

SECRET = "a-secret-of-more-than-thirty-two-bytes"


class Server:
    """Answers what it is told, one after the other, the last again and again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.seen: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.append((dict(self.headers), body))
                status, headers = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("answers", "statuses", "accepted", "is_over"),
    [
        ([200], (200,), True, True),
        ([503, 503, 200], (503, 503, 200), True, True),
        ([0, 200], (0, 200), True, True),
        ([429, 500, 204], (429, 500, 204), True, True),
        ([500], (500,) * 5, False, False),
        ([401], (401,), False, True),
        ([413], (413,), False, True),
        ([501], (501,), False, True),
    ],
)
def test_what_is_tried_again(server, answers, statuses, accepted, is_over):
    server.answers = [(status, {}) for status in answers]
    waits = []
    url = f"http://127.0.0.1:{server.http.server_port}/webhook"
    with WebhookSender(url, "APIone", SECRET, sleep=waits.append) as sender:
        delivery = sender.send({"event": "egress_ended"})
    assert (delivery.statuses, delivery.accepted, delivery.is_over) == (statuses, accepted, is_over)
    assert waits == [1, 2, 4, 8][: len(statuses) - 1]
    assert {(headers["Authorization"], body) for headers, body in server.seen} == {(delivery.token, delivery.body)}
    assert {headers["Content-Type"] for headers, _ in server.seen} == {"application/webhook+json"}


def test_retry_after_takes_the_place_of_a_wait_and_all_waits_scale(server):
    server.answers = [(503, {"Retry-After": "7"}), (500, {"Retry-After": "99"}), (503, {"Retry-After": "2"}), (200, {})]
    waits = []
    url = f"http://127.0.0.1:{server.http.server_port}/webhook"
    with WebhookSender(url, "APIone", SECRET, scale=0.5, sleep=waits.append) as sender:
        assert sender.send(b'{"event":"egress_ended"}').accepted
    assert waits == [3.5, 1.0, 1.0]
