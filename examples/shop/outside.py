"""The outside world: the partner that keeps the members' points, as a process of its own.

It writes into the ledger what reaches it, knows a repeat by the message's id, and can be sent away:

    python -m examples.shop.outside --ledger ledger.jsonl --address address.txt
    curl -d '{"seconds": 3}' http://127.0.0.1:PORT/outage
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from enum import Enum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from examples.shop.ledger import Ledger, Trail

PARTNER: Final = "partner"


class Points:
    """What the members were granted; a line is in the ledger before its answer leaves."""

    def __init__(self, path: Path) -> None:
        self._guard = threading.Lock()
        self._known = {line["message"] for line in Trail(path).follow() if line["by"] == PARTNER and "message" in line}
        self._ledger = Ledger(path, by=PARTNER)

    def grant(self, message: str, request: dict[str, Any]) -> None:
        """Grant the points, unless this message came before."""
        with self._guard:
            repeated = message in self._known
            self._known.add(message)
            self._write("repeated" if repeated else "applied", request, message=message)

    def turn_away(self, request: dict[str, Any]) -> None:
        """Note that somebody came in vain."""
        with self._guard:
            self._write("turned away", request)

    def _write(self, what: str, request: dict[str, Any], **facts: str) -> None:
        key = str(request["member_id"])
        self._ledger.write(what, where="points", order=request["order_id"], key=key, **facts)


class Mood(Enum):
    """How the partner treats a request."""

    OPEN = "open"
    ANSWER_LOST = "answer lost"
    HANG_UP = "hang up"
    REFUSE = "refuse"


class Partner(ThreadingHTTPServer):
    """Keeps the points of the members."""

    daemon_threads = True

    def __init__(self, points: Points) -> None:
        super().__init__(("127.0.0.1", 0), PartnerRequest)
        self.points = points
        self._guard = threading.Lock()
        self._away_until = 0.0
        self._refused = 0

    def go_away(self, seconds: float) -> None:
        """Be away for a while."""
        with self._guard:
            self._away_until = time.monotonic() + seconds
            self._refused = 0

    def mood(self) -> Mood:
        """Say how to treat the next request."""
        with self._guard:
            if time.monotonic() >= self._away_until:
                return Mood.OPEN
            self._refused += 1
            # An outage rarely starts between two requests: the first one is granted, and nobody hears of it.
            if self._refused == 1:
                return Mood.ANSWER_LOST
            return Mood.REFUSE if self._refused % 2 else Mood.HANG_UP


class PartnerRequest(BaseHTTPRequestHandler):
    """One request to the partner."""

    server: Partner

    def do_POST(self) -> None:
        """Grant points, or begin an outage."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/points":
            self._points(self.headers["Idempotency-Key"], request)
        elif self.path == "/outage":
            self.server.go_away(float(request["seconds"]))
            self._answer(HTTPStatus.OK)
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _points(self, message: str, request: dict[str, Any]) -> None:
        match self.server.mood():
            case Mood.OPEN:
                self.server.points.grant(message, request)
                self._answer(HTTPStatus.OK)
            case Mood.ANSWER_LOST:
                self.server.points.grant(message, request)
            case Mood.HANG_UP:
                self.server.points.turn_away(request)
            case Mood.REFUSE:
                self.server.points.turn_away(request)
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE)

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives
        """Keep quiet: the ledger has it all."""


def main() -> None:
    """Serve until SIGTERM, or until whoever started this process is gone."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop.outside", description=__doc__)
    parser.add_argument("--ledger", type=Path, required=True, help="where to write what arrives")
    parser.add_argument("--address", type=Path, required=True, help="where to write HOST:PORT once it serves")
    asked = parser.parse_args()
    partner = Partner(Points(asked.ledger))
    threading.Thread(target=partner.serve_forever, daemon=True).start()
    host, port = partner.server_address[:2]
    # Renamed, so that who waits for the file never reads half of it.
    written = asked.address.with_suffix(".part")
    written.write_text(f"{host!s}:{port}")
    written.rename(asked.address)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stdin.read()


if __name__ == "__main__":
    main()
