"""Counts as CloudWatch metrics, written through the log in the embedded metric format."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit


class Counts:
    """Counts from any thread, written out once at the end of an invocation."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, value: float) -> None:
        """Adds to a count."""
        with self._lock:
            self._counts[name] += value  # type: ignore[assignment]

    def flush(self) -> None:
        """Writes the counts of this invocation, if there are any."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        for name, value in counts.items():
            self._metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
        self._metrics.flush_metrics()
