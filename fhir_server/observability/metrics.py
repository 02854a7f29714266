"""``/metrics`` for Prometheus: numbers of requests and how long they took, by interaction, method and status.

With several server processes, each writes its numbers to files of the folder ``PROMETHEUS_MULTIPROC_DIR``, which ``serve`` makes,
and each answers with the sums.  Nothing is counted by client, person, patient, type of resource or path.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

from fhir_server.observability.interactions import METHODS
from fhir_server.observability.memory_metrics import MemoryInUse

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST.encode()
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one server process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("interaction", "method", "status")
        self._requests = Counter("fhir_server_requests", "Requests answered", labels, registry=self._registry)
        self._seconds = Histogram(
            "fhir_server_request_seconds", "Seconds until the answer was sent", ("interaction",), buckets=_BUCKETS, registry=self._registry
        )
        self._in_progress = Gauge(
            "fhir_server_requests_in_progress", "Requests not answered yet", registry=self._registry, multiprocess_mode="livesum"
        )
        self._pending_labels = Gauge(
            "fhir_server_pending_labels",
            "Resources that are hidden until they are labeled again, about",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._operation = Gauge(
            "fhir_server_operation",
            "What the operator allows: 0 everything, 1 reading, 2 nothing",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._subscriptions = Gauge(
            "fhir_server_subscriptions",
            "Subscriptions by status; those in error or off have notifications that were not delivered",
            ("status",),
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        if FOLDER not in os.environ:
            ProcessCollector(registry=self._registry)
            self._registry.register(MemoryInUse())

    def begin(self) -> None:
        """Count a request that begins."""
        self._in_progress.inc()

    def finish(self, interaction: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._in_progress.dec()
        key = interaction, method if method in METHODS else "other", status
        children = self._children.get(key)
        if children is None:
            labels = self._requests.labels(key[0], key[1], str(status)), self._seconds.labels(interaction)
            children = self._children[key] = labels
        children[0].inc()
        children[1].observe(seconds)

    def set_pending_labels(self, count: int) -> None:
        """Say how many resources are hidden until they are labeled again."""
        self._pending_labels.set(count)

    def set_subscriptions(self, counts: Mapping[str, int]) -> None:
        """Say how many Subscriptions have which status."""
        for status in ("requested", "active", "error", "off"):
            self._subscriptions.labels(status).set(counts.get(status, 0))

    def set_operation(self, level: int) -> None:
        """Say what the operator allows: 0 everything, 1 reading, 2 nothing."""
        self._operation.set(level)

    def text(self) -> bytes:
        """All metrics, in Prometheus's text format."""
        return text_of_all_processes() if FOLDER in os.environ else generate_latest(self._registry)


def text_of_all_processes() -> bytes:
    """The sums of all processes that write their numbers to the folder, in Prometheus's text format."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def is_bearer(authorization: bytes, token: str) -> bool:
    """Whether this Authorization header holds the token."""
    return hmac.compare_digest(authorization, f"Bearer {token}".encode())
