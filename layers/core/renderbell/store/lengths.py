"""Lengths: how long a connection's tasks have taken, as each worker has seen it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from renderbell.expressions import Key, to_wire
from renderbell.lengths import Lengths
from renderbell.store.table import Table

LENGTHS_KEPT_S = 90 * 86_400


class TaskLengths(Table):
    """The sketches by which polling moments are chosen. One that is lost or old makes them worse, and nothing else."""

    def task_lengths(self, worker: int, connections: Iterable[str]) -> dict[str, Lengths]:
        """What a worker has kept of connections' tasks, by connection; raises where not all could be read."""
        found = self._batch_get([_lengths_key(worker, name) for name in sorted(set(connections))], whole=True)
        return {
            item["pk"].removeprefix("CONNECTION#"): Lengths({int(one): int(of) for one, of in item["weights"].items()})
            for item in found
        }

    def keep_task_lengths(self, worker: int, connection: str, lengths: Lengths, now: datetime) -> None:
        """Keeps what a worker knows of a connection's tasks, for three months."""
        weights = {str(number): weight for number, weight in lengths.weights.items()}
        item = {**_lengths_key(worker, connection), "weights": weights, "ttl": int(now.timestamp()) + LENGTHS_KEPT_S}
        self._client.put_item(TableName=self._table, Item=to_wire(item))


def _lengths_key(worker: int, connection: str) -> Key:
    return {"pk": f"CONNECTION#{connection}", "sk": f"LENGTHS#{worker}"}
