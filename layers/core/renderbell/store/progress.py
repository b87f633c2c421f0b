"""Progress: what each worker has noted of how far its tasks have come, for whoever polls them next."""

from __future__ import annotations

from aws_lambda_powertools import Logger

from renderbell import items
from renderbell.expressions import Key, to_wire
from renderbell.items import time_text
from renderbell.progress import ProgressNotes, unpacked
from renderbell.store.table import Table

NOTES_KEPT_S = 8 * 86_400  # no task is polled for longer

logger = Logger()


class TaskProgress(Table):
    """The notes by which pollers know what need not be written again: the index `due` shows no progress.

    Notes that are lost or old cost a reading or a refused write, and nothing else.
    """

    def task_progress(self, worker: int) -> ProgressNotes | None:
        """A worker's notes, read consistently; None if there are none, or none as this package writes them."""
        item = self._get(_notes_key(worker))
        try:
            return None if item is None else unpacked(bytes(item["notes"]), items.parse_time(item["at"]))
        except Exception:  # whatever is wrong with it
            logger.exception("item cannot be read", extra=_notes_key(worker))
            return None

    def keep_task_progress(self, worker: int, notes: ProgressNotes) -> None:
        """Writes a worker's notes over those that it had."""
        item = {
            **_notes_key(worker),
            "at": time_text(notes.at),
            "notes": notes.packed(),
            "ttl": int(notes.at.timestamp()) + NOTES_KEPT_S,
        }
        self._client.put_item(TableName=self._table, Item=to_wire(item))


def _notes_key(worker: int) -> Key:
    return {"pk": f"WORKER#{worker}", "sk": "PROGRESS"}
