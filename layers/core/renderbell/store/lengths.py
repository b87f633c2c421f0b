"""Lengths: how long a connection's tasks have taken, as each worker has seen it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from aws_lambda_powertools import Logger

from renderbell.expressions import Key, to_wire
from renderbell.lengths import Lengths
from renderbell.store.table import Table

LENGTHS_KEPT_S = 90 * 86_400

logger = Logger()


class TaskLengths(Table):
    """The sketches by which polling moments are chosen. One that is lost or old makes them worse, and nothing else."""

    def task_lengths(self, worker: int, connections: Iterable[str]) -> dict[str, Lengths]:
        """What a worker has kept of connections' tasks, by connection; raises where not all could be read.

        An item that is not as this package writes it is left out, like one that is not there.
        """
        kept = self._batch_get([_lengths_key(worker, name) for name in sorted(set(connections))], whole=True)
        found = {item["pk"].removeprefix("CONNECTION#"): _lengths_from(item) for item in kept}
        return {name: lengths for name, lengths in found.items() if lengths is not None}

    def keep_task_lengths(self, worker: int, connection: str, lengths: Lengths, now: datetime) -> None:
        """Keeps what a worker knows of a connection's tasks, for three months."""
        weights = {str(number): weight for number, weight in lengths.weights.items()}
        item = {**_lengths_key(worker, connection), "weights": weights, "ttl": int(now.timestamp()) + LENGTHS_KEPT_S}
        self._client.put_item(TableName=self._table, Item=to_wire(item))


def _lengths_from(item: Mapping[str, Any]) -> Lengths | None:
    try:
        return Lengths({int(number): int(weight) for number, weight in item["weights"].items()})
    except Exception:  # whatever is wrong with it
        logger.exception("item cannot be read", extra={"pk": item["pk"], "sk": item["sk"]})
        return None


def _lengths_key(worker: int, connection: str) -> Key:
    return {"pk": f"CONNECTION#{connection}", "sk": f"LENGTHS#{worker}"}
