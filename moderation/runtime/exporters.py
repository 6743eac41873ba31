"""Whether the metrics of a run can be scraped: asks the exporters of the cluster's nodes, as Prometheus would."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPException
from typing import Any, Final

METRIC: Final = "ray_moderation_items_total"
# The driver's counts arrive at a node's exporter every ten seconds.
PATIENCE_S: Final = 30.0
_EVERY_S: Final = 3.0
_TIMEOUT_S: Final = 3.0
_MAX_BYTES: Final = 16 << 20
_MAX_NODES: Final = 32  # a run's counts are at one node, its driver's


def describe_metrics(run_id: str, pool: str | None = None) -> str:
    """Where the counts of a run are exported, or why they were not found; in a few words.

    Waits PATIENCE_S at most. Of a cluster that was joined: one of this machine alone exports nothing. pool: of the
    run, as its summary has it.
    """
    if pool == "processes":
        return "no metrics: processes of this machine export none"
    import ray  # only for a run that had it

    if not ray.is_initialized():
        return "no metrics: this machine's own Ray exports none"
    return find_metrics(exporter_urls(ray.nodes()), run_id, PATIENCE_S)


def exporter_urls(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The addresses of the exporters of nodes that are alive. nodes: as `ray.nodes()` describes them."""
    alive = [n for n in nodes if n.get("Alive") and n.get("MetricsExportPort")]
    return [f"http://{_host(str(n['NodeManagerAddress']))}:{n['MetricsExportPort']}/metrics" for n in alive][
        :_MAX_NODES
    ]


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def find_metrics(urls: Sequence[str], run_id: str, patience_s: float) -> str:
    """Ask these addresses until one shows the items of the run, `patience_s` at most."""
    ends_s = time.monotonic() + patience_s
    problem = "no node says where it exports metrics"
    while urls:
        for url in urls:
            try:
                if _shows(url, run_id):
                    return f"metrics at {url}"
                problem = f"metrics of this run not yet at {url}"
            except (OSError, HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                problem = f"metrics not reached at {url}: {reason}"
        if time.monotonic() >= ends_s:
            break
        time.sleep(min(_EVERY_S, patience_s))
    return problem


def _shows(url: str, run_id: str) -> bool:
    # A node's address, so no proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_TIMEOUT_S) as answer:
        text = answer.read(_MAX_BYTES).decode(errors="replace")
    return any(line.startswith(METRIC) and f'"{run_id}"' in line for line in text.splitlines())
