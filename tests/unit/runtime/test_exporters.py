"""Whether a run's metrics can be scraped is told from real answers of a server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from moderation.runtime.exporters import exporter_urls, find_metrics

TEXT = """# HELP ray_moderation_items_total Items with a committed row.
ray_moderation_items_total{Component="core_worker",run="r1"} 25.0
"""


@pytest.fixture
def url() -> Iterator[str]:
    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Exporter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_counts_of_the_run_are_found(url: str) -> None:
    assert find_metrics(["http://127.0.0.1:9/metrics", url], "r1", 0.0) == f"metrics at {url}"


def test_an_exporter_without_the_run_is_told_from_one_that_nobody_reaches(url: str) -> None:
    assert find_metrics([url], "r2", 0.0) == f"metrics of this run not yet at {url}"
    said = find_metrics(["http://127.0.0.1:9/metrics"], "r1", 0.0)
    assert said.startswith("metrics not reached at http://127.0.0.1:9/metrics: ") and "refused" in said
    assert find_metrics([], "r1", 0.0) == "no node says where it exports metrics"


def test_addresses_are_those_of_living_nodes() -> None:
    node = {"Alive": True, "NodeManagerAddress": "10.0.0.3", "MetricsExportPort": 8080}
    nodes = [
        node,
        {**node, "Alive": False},
        {**node, "MetricsExportPort": 0},
        {**node, "NodeManagerAddress": "fd00::1"},
    ]
    assert exporter_urls(nodes) == ["http://10.0.0.3:8080/metrics", "http://[fd00::1]:8080/metrics"]
