"""Work on a task: who copies its files or cleans up after it, and how far that has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from renderbell import items
from renderbell.errors import ClaimLostError
from renderbell.expressions import Change
from renderbell.items import time_text
from renderbell.store.partition import Partition, read_item, task_key
from renderbell.task import PollError, Step, StoredFile, Task, Upload


@dataclass(frozen=True, slots=True)
class Work:
    """A task whose files are being copied or cleaned up, with what the tries before have left."""

    task: Task
    tries: int
    token: str | None
    upload: Upload | None
    stored: tuple[StoredFile, ...]
    interrupted: bool = False  # a claim has run out: its holder may have left more than it noted
    begun: int = 0  # how many uploads the present file has had


class WorkClaims(Partition):
    """Tasks, as those work on them who have claimed them."""

    def work(self, task_id: str) -> Work | None:
        """A task with the state of its copy, read consistently."""
        return self._one(_work_from, task_key(task_id))

    def claim_work(self, seen: Work, token: str, until: datetime | None) -> Work | None:
        """Claims a task's step as it was seen, counting the try; None if it changed meanwhile.

        `until` is the claim's end; None leaves `due_at` as it stands, which costs no write of the index.
        """
        task = seen.task
        change = Change()
        change.set("token", token)
        change.set("tries", seen.tries + 1)
        conditions = _as_seen(change, seen)
        interrupted = seen.interrupted or seen.token is not None
        if interrupted and not seen.interrupted:
            change.set("interrupted", True)
        if until is not None:
            task = replace(task, due_at=until, version=task.version + 1)
            change.set("due_at", time_text(until))
            change.set("version", task.version)
        if not self._applies(task_key(task.task_id), change, conditions, mine=("token", token)):
            return None
        return replace(seen, task=task, token=token, tries=seen.tries + 1, interrupted=interrupted)

    def claim_fresh_work(self, task_id: str, version: int, token: str, due_from: datetime) -> Work | None:
        """Claims the copy of a task that nobody has tried yet, by its version alone, without having read it.

        Its claim ends when it is due, which must not be before `due_from`. None if it is not so: `work` tells more.
        """
        change = Change()
        change.set("token", token)
        change.set("tries", 1)
        conditions = [
            change.equals("version", version),
            change.equals("step", Step.COPY.value),
            change.absent("token"),
            change.absent("tries"),
            change.at_least("due_at", time_text(due_from)),
        ]
        item = self._changed(task_key(task_id), change, conditions, mine=("token", token))
        return None if item is None else read_item(_work_from, item)

    def postpone_work(
        self, seen: Work, due_at: datetime, *, interrupted: bool = False, problem: PollError | None = None
    ) -> Work:
        """Gives up a claim until a later time; `interrupted` means that it was another's and had run out."""
        task = replace(
            seen.task,
            due_at=due_at,
            version=seen.task.version + 1,
            last_poll_error=problem or seen.task.last_poll_error,
        )
        change = Change()
        conditions = _as_seen(change, seen)
        change.set("due_at", time_text(due_at))
        change.set("version", task.version)
        change.remove("token")
        if problem is not None:
            change.set("last_poll_error", items.task_attributes(task)["last_poll_error"])
        if interrupted and not seen.interrupted:
            change.set("interrupted", True)
        self._change_held(task.task_id, change, conditions)
        return replace(seen, task=task, token=None, interrupted=seen.interrupted or interrupted)

    def renew_work(self, held: Work, until: datetime) -> Work:
        """Moves the end of a running claim; raises `ClaimLostError`."""
        task = replace(held.task, due_at=until, version=held.task.version + 1)
        change = Change()
        conditions = [change.equals("token", held.token)]
        change.set("due_at", time_text(until))
        change.set("version", task.version)
        self._change_held(task.task_id, change, conditions)
        return replace(held, task=task)

    def note_upload(
        self, held: Work, upload: Upload | None, *, stored: StoredFile | None = None, progressed: bool = False
    ) -> Work:
        """Keeps the open upload (None: there is none) and a file just finished.

        Progress takes the count of tries back to one for each upload that the file has had; a file that is done
        clears both counts.
        """
        begun, tries = held.begun, held.tries
        if stored is not None:
            begun = 0
        elif upload is not None and (held.upload is None or upload.upload_id != held.upload.upload_id):
            begun += 1
        if progressed:
            tries = min(tries, begun)
        change = Change()
        conditions = [change.equals("token", held.token)]
        if upload is None:
            change.remove("upload")
        elif upload != held.upload:
            attributes = {name: getattr(upload, name) for name in upload.__dataclass_fields__}
            change.set("upload", items.present(attributes))
        if stored is not None:
            change.append("stored", [items.file_attributes(stored)])
        if begun != held.begun:
            change.set("begun", begun)
        if tries != held.tries:
            change.set("tries", tries)
        if not change.empty:
            self._change_held(held.task.task_id, change, conditions)
        return replace(
            held,
            upload=upload,
            stored=held.stored if stored is None else (*held.stored, stored),
            tries=tries,
            begun=begun,
        )

    def forget(self, held: Work) -> None:
        """Removes all items of a deleted task under its claim; raises `ClaimLostError`.

        The task's own item goes last: until then, whoever claims it next goes on.
        """
        own = task_key(held.task.task_id)
        for item in self._partition(own["pk"]):
            if item["sk"] != own["sk"]:
                self._removes({"pk": item["pk"], "sk": item["sk"]})
        if not self._removes(own, mine=("token", held.token)):
            raise _lost(held.task.task_id)

    def _change_held(self, task_id: str, change: Change, conditions: list[str]) -> None:
        if not self._applies(task_key(task_id), change, conditions):
            raise _lost(task_id)


def _lost(task_id: str) -> ClaimLostError:
    return ClaimLostError(f"the claim on task {task_id} has passed on")


def _as_seen(change: Change, seen: Work) -> list[str]:
    """The item is as it was seen: the version, and no claim or progress since."""
    return [
        change.equals("version", seen.task.version),
        change.equals("tries", seen.tries) if seen.tries else change.absent_or("tries", 0),
        change.as_seen("token", seen.token),
    ]


def _work_from(task_id: str, item: Mapping[str, Any]) -> Work:
    upload = item.get("upload")
    return Work(
        task=items.task_from(task_id, item),
        tries=int(item.get("tries", 0)),
        token=item.get("token"),
        upload=upload
        and Upload(
            **{
                "validator": None,
                **upload,
                "n": int(upload["n"]),
                "part_size": int(upload["part_size"]),
                "size_bytes": int(upload["size_bytes"]) if "size_bytes" in upload else None,
            }
        ),
        stored=tuple(items.file_from(file) for file in item.get("stored", ())),
        interrupted=bool(item.get("interrupted")),
        begun=int(item.get("begun", 0)),
    )
