"""A reviewers' page over a drawn run, served on a free port: the real server, in a thread."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from moderation.review.access import Gate, Reviewer
from moderation.review.desk import open_desk
from moderation.review.serve import bind, make_server
from moderation.review.settings import ReviewSettings
from tests.finished_run import Made, write_run

POLICY = """
default: pass
checks:
  weapon: {side: negative, votes: [a.weapon], block: 0.95, review: 0.3, severity: medium, definition: weapon}
  gore: {side: negative, votes: [a.gore], review: 0.3, severity: high, definition: gore}
  ordinary: {side: positive, votes: [a.ordinary], pass: 0.9}
"""
LABELS = ("a.weapon", "a.gore", "a.ordinary")
ANNA, BEN, CARL = Reviewer(name="anna"), Reviewer(name="ben"), Reviewer(name="carl", expert=True)
SETTINGS = ReviewSettings(second_share=0.0, hidden_share=0.0, experts=frozenset({"carl"}))


def draw_picture(path: Path, seed: int, size: tuple[int, int] = (240, 180)) -> str:
    """Three plain rectangles as a JPEG, unlike those of another seed; returns the sha256 of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), random.integers(60, 200, 3), np.uint8)
    for _ in range(3):
        x, y = int(random.integers(0, size[0] - 40)), int(random.integers(0, size[1] - 40))
        pixels[y : y + int(random.integers(20, 120)), x : x + int(random.integers(20, 160))] = random.integers(
            0, 255, 3
        )
    Image.fromarray(pixels).save(path, quality=90)
    return sha256(path.read_bytes()).hexdigest()


def make_run(folder: Path, count: int = 12, extra: Sequence[Made] = (), policy: str = POLICY) -> str:
    """A run of `count` drawn pictures for review, the first the most urgent, and `extra`; returns its OUT."""
    made = []
    for number in range(count):
        name = f"picture-{number:03d}.jpg"
        digest = draw_picture(folder / "in" / name, number)
        made.append(Made(name=name, votes=[(0.9 - 0.5 * number / count, 0.0, 0.1)], content_hash=digest))
    return write_run(folder, LABELS, [*made, *extra], policy, shard_items=256)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server. cookie: of the one who asks, by `as_reviewer`."""

    port: int
    gate: Gate
    cookie: str = ""

    def as_reviewer(self, reviewer: Reviewer) -> Served:
        """The same server, asked by a reviewer."""
        return replace(self, cookie=f"{self.gate.cookie}={self.gate.token_of(reviewer)}")

    def link(self, reviewer: Reviewer) -> str:
        """The reviewer's link."""
        return f"http://127.0.0.1:{self.port}/?token={self.gate.token_of(reviewer)}"

    def ask(self, method: str, path: str, value: object = None, headers: Mapping[str, str] | None = None) -> Answered:
        """One request; a value is sent as JSON, as the page would."""
        given = {"Cookie": self.cookie} if self.cookie else {}
        data = None
        if value is not None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            given |= {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{self.port}"}
        given |= dict(headers or {})
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, data, {name: text for name, text in given.items() if text})
            answer = connection.getresponse()
            return Answered(status=answer.status, headers=dict(answer.getheaders()), body=answer.read())

    def get(self, path: str, **query: str) -> Answered:
        """A GET with these parameters."""
        return self.ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def next(self, n: int, **more: object) -> list[dict[str, Any]]:
        """The next items."""
        answered = self.ask("POST", "/next", {"n": n, **more})
        assert answered.status == 200, answered.body
        items: list[dict[str, Any]] = answered.json["items"]
        return items

    def decide(self, *decisions: Mapping[str, object]) -> Any:
        """Send a batch."""
        answered = self.ask("POST", "/decisions", {"decisions": list(decisions)})
        assert answered.status == 200, answered.body
        return answered.json


def decision_of(entry: Mapping[str, Any], answer: str, id_: str, **more: object) -> dict[str, object]:
    """A decision as the page sends it."""
    return {
        "decision_id": id_, "item_id": entry["item_id"], "claim": entry["claim"], "decision": answer,
        "exposure_s": 1.0, "shown": {"seen": "true"}, **more,
    }  # fmt: skip


@contextmanager
def serving(
    out: str, settings: ReviewSettings = SETTINGS, port: int = 0, public_url: str | None = None
) -> Iterator[Served]:
    """The page of a run, in a thread of this process."""
    with closing(bind("127.0.0.1", port)) as sock, open_desk(out, settings) as desk:
        bound = int(sock.getsockname()[1])
        gate = Gate((ANNA, BEN, CARL), b"a secret of the tests", bound)
        server = make_server(desk, gate, "127.0.0.1", public_url)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield Served(port=bound, gate=gate)
        finally:
            server.should_exit = True
            thread.join(20)
