"""The use case of the notifier: copy a finished task's files to S3, tell its owner, clean up what was left.

Everything here is done under a claim, so that a doubled event does nothing twice; whatever dies on the way leaves its
item due, and the poller brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from aws_lambda_powertools import Logger

from renderbell.ask import Connections, Fetch, ask_provider
from renderbell.deliver import ATTEMPT_NEEDS_S, Deliverer, Foreseen, Made, SideBySide
from renderbell.delivery import EVENT_OF_STATUS
from renderbell.errors import (
    ClaimLostError,
    CopyError,
    LinkExpiredError,
    OutOfTimeError,
    ProviderError,
    SourceRefusedError,
    StorageError,
    VersionConflictError,
)
from renderbell.providers.base import Connection
from renderbell.schedule import (
    CLAIM_ENOUGH_S,
    CLAIM_RENEW_S,
    CLAIM_S,
    COPY_RETRIES,
    DUE_TOLERANCE_S,
    Exhausted,
    Later,
    Take,
    judge_claim,
)
from renderbell.store import Work, task_id_of
from renderbell.task import (
    FileKind,
    PollError,
    Source,
    Status,
    Step,
    StoredFile,
    Task,
    Upload,
    cleaned,
    copied,
    copy_failed,
    copying_since,
    relinked,
)
from renderbell.transition import TransitionStore, owed

INTERRUPTED = "the copy was interrupted: its process died or ran out of time"

logger = Logger()

# A copy that goes on and on ends here: 5 GiB at 17 kB/s take as long. S3 keeps an upload's parts for longer.
COPY_LIMIT = timedelta(days=5)


class NotifyStore(TransitionStore, Protocol):
    """What is used of the store."""

    def task(self, task_id: str) -> Task | None: ...
    def work(self, task_id: str) -> Work | None: ...
    def claim_fresh_work(self, task_id: str, version: int, token: str, due_from: datetime) -> Work | None: ...
    def claim_work(self, seen: Work, token: str, until: datetime | None) -> Work | None: ...
    def postpone_work(
        self, seen: Work, due_at: datetime, *, interrupted: bool = False, problem: PollError | None = None
    ) -> Work: ...
    def renew_work(self, held: Work, until: datetime) -> Work: ...
    def note_upload(
        self, held: Work, upload: Upload | None, *, stored: StoredFile | None = None, progressed: bool = False
    ) -> Work: ...
    def forget(self, held: Work) -> None: ...


class Copier(Protocol):
    """What is used of the archive."""

    def store(
        self,
        *,
        prefix: str,
        n: int,
        source: Source,
        connection: Connection | None,
        upload: Upload | None,
        checkpoint: Callable[[Upload | None], None],
        seconds_left: Callable[[], float],
    ) -> StoredFile: ...
    def clean(self, prefix: str, keep: Sequence[str] = ()) -> None: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Notifier:
    """What an invocation of the notifier needs."""

    store: NotifyStore
    archive: Copier
    connections: Connections
    fetch: Fetch
    deliverer: Deliverer
    side_by_side: SideBySide
    clock: Callable[[], datetime]
    new_token: Callable[[], str]
    count: Callable[[str, float], None]

    def handle(self, event: Mapping[str, object], seconds_left: Callable[[], float]) -> None:
        """Does what an event names: a task (`{"pk", "sk", "version"?}`), a delivery, or several deliveries of one
        receiver."""
        keys = _keys(event)
        if keys[0][1] == "TASK":
            version = event.get("version")
            known = version if isinstance(version, int) else None
            self.handle_task(task_id_of(keys[0][0]), seconds_left, version=known)
        else:
            self.deliverer.deliver_due(keys, seconds_left)

    # -- copying ----------------------------------------------------------------------------------------------------

    def handle_task(self, task_id: str, seconds_left: Callable[[], float], *, version: int | None = None) -> None:
        """Copies or cleans up, whichever the task's step is, and sends the deliveries that were just made.

        Whoever has seen the task saves a reading by naming its `version`.
        """
        held = self._claimed_fresh(task_id, version) if version is not None else None
        made: Made | None = None
        while (held := held or self._claimed(task_id, seconds_left)) is not None:
            outcome = self._copy(held, seconds_left) if held.task.step is Step.COPY else self._clean(held)
            held = None
            if isinstance(outcome, Made):
                made = outcome
            elif outcome:
                continue
            break
        if made is not None:
            self.deliverer.deliver_made(made, seconds_left)
        else:
            self.deliverer.deliver_fresh(task_id, seconds_left)

    def _claimed_fresh(self, task_id: str, version: int) -> Work | None:
        """A copy that nobody has begun; None where it has to be looked at first."""
        enough = self.clock() + timedelta(seconds=CLAIM_ENOUGH_S)
        return self.store.claim_fresh_work(task_id, version, self.new_token(), enough)

    def _claimed(self, task_id: str, seconds_left: Callable[[], float]) -> Work | None:
        """The task's step, claimed; None where nothing is to be done or another does it."""
        work = self.store.work(task_id)
        if work is None or work.task.due_at is None or work.task.step not in {Step.COPY, Step.CLEAN}:
            return None
        now = self.clock()
        cleaning = work.task.step is Step.CLEAN
        if cleaning and work.task.due_at > now + timedelta(seconds=DUE_TOLERANCE_S):
            return None  # an old claim may still write to S3
        verdict = judge_claim(
            due_at=work.task.due_at,
            tries=min(work.tries, len(COPY_RETRIES.delays_s)) if cleaning else work.tries,
            claimed=work.token is not None,
            policy=COPY_RETRIES,
            now=now,
        )
        try:
            match verdict:
                case Take(keeps_due):
                    until = None if keeps_due else now + timedelta(seconds=CLAIM_S)
                    return self.store.claim_work(work, self.new_token(), until)
                case Later(due_at):
                    problem = None if cleaning else PollError("copy", INTERRUPTED, now)
                    self.store.postpone_work(work, due_at, interrupted=True, problem=problem)
                case Exhausted():
                    self._fail(work, INTERRUPTED, seconds_left)
        except ClaimLostError:
            logger.info("claimed by another", extra={"task_id": task_id})
        return None

    def _copy(self, work: Work, seconds_left: Callable[[], float]) -> Made | bool:
        """Copies the task's files under a claim; what it has made, or whether to try again at once."""
        held = _Held(self.store, work, self.clock, seconds_left)
        try:
            files, foreseen = self._copied_files(held)
            now = self.clock()
            done = replace(copied(held.work.task, files, now, clean=held.work.interrupted), last_poll_error=None)
            return self._finish(held.work, done, now, seconds_left, foreseen) or False
        except ClaimLostError:
            logger.warning("claim lost", extra={"task_id": work.task.task_id})
            self._withdraw(work.task)
            return False
        except SourceRefusedError as error:
            self._fail(held.work, str(error), seconds_left)
            return False
        except OutOfTimeError as error:
            if held.goes_on:
                self._go_on(held.work, error, seconds_left)
            else:
                self._put_off(held.work, error, seconds_left)
            return False
        except CopyError as error:
            return self._put_off(held.work, error, seconds_left, doubtful=isinstance(error, StorageError))
        except Exception as error:  # a task that breaks us backs off like any other, and shows why
            logger.exception("copy broke", extra={"task_id": work.task.task_id})
            broke = CopyError(f"internal error: {type(error).__name__}")
            return self._put_off(held.work, broke, seconds_left, doubtful=True)

    def _copied_files(self, held: _Held) -> tuple[list[StoredFile], Foreseen | None]:
        """Copies the files, and reads meanwhile what telling of it will need."""
        task, event = held.work.task, EVENT_OF_STATUS[Status.COMPLETED]
        foreseen: list[Foreseen | None] = []

        def copy() -> list[StoredFile] | Exception:
            try:
                return self._copy_files(held)
            except Exception as error:
                return error

        def foresee() -> None:
            foreseen.append(self.deliverer.foresee(task, event))

        files, _ = self.side_by_side([copy, foresee])
        if isinstance(files, Exception):
            try:
                raise files
            finally:
                del files  # it would hold this frame, and this frame it: with all that was read of the file
        return files or [], foreseen[0]

    def _copy_files(self, held: _Held) -> list[StoredFile]:
        task = held.work.task
        connection = self.connections.get(task.connection)
        combined = connection is not None and connection.copy_combined
        wanted = [n for n, source in enumerate(task.sources, 1) if source.kind is not FileKind.COMBINED or combined]
        files = list(held.work.stored)
        relink = True
        for n in wanted:
            if any(file.n == n for file in files):
                continue
            try:
                file = self._copy_file(held, n, connection)
            except LinkExpiredError:
                if not relink or not self._relinked(held):
                    raise
                relink = False  # once an invocation
                file = self._copy_file(held, n, connection)
            files.append(file)
            if n != wanted[-1]:
                held.keep(file)
        return files

    def _copy_file(self, held: _Held, n: int, connection: Connection | None) -> StoredFile:
        task, upload = held.work.task, held.work.upload
        held.resumed = upload.upload_id if upload is not None else None
        return self.archive.store(
            prefix=f"{task.owner}/{task.task_id}",
            n=n,
            source=task.sources[n - 1],
            connection=connection,
            upload=upload if upload is not None and upload.n == n else None,
            checkpoint=held.checkpoint,
            seconds_left=held.seconds_left,
        )

    def _relinked(self, held: _Held) -> bool:
        """Asks the provider once for fresh links; whether there are any."""
        task = held.work.task
        outcome = ask_provider(self.connections, self.fetch, task).outcome
        self.count("Polls", 1)
        if isinstance(outcome, ProviderError):
            self.count(type(outcome).__name__, 1)
            return False
        fresh = relinked(task, outcome)
        if fresh.sources == task.sources:
            return False
        try:
            held.work = replace(held.work, task=self.store.save(task, fresh, token=held.work.token))
        except VersionConflictError:
            raise ClaimLostError(f"task {task.task_id} was changed by another") from None
        return True

    def _go_on(self, work: Work, error: OutOfTimeError, seconds_left: Callable[[], float]) -> None:
        """Leaves the rest of a copy to a fresh invocation, which is due at once."""
        now = self.clock()
        logger.info("copy goes on later", extra={"task_id": work.task.task_id, "tries": work.tries})
        if copying_since(work.task) <= now - COPY_LIMIT:
            self._fail(work, f"{error}; given up after {COPY_LIMIT.days} days", seconds_left)
            return
        with suppress(ClaimLostError):
            self.store.postpone_work(work, now)

    def _put_off(
        self, work: Work, error: CopyError, seconds_left: Callable[[], float], *, doubtful: bool = False
    ) -> bool:
        """Ends a try that failed: the next one on the schedule, or the end of the task. Whether it is due at once.

        `doubtful` means that a call to S3 may have had an effect that nobody noted.
        """
        now = self.clock()
        too_long = copying_since(work.task) <= now - COPY_LIMIT
        delay_s = None if too_long else COPY_RETRIES.next_delay(max(1, work.tries))
        logger.warning("copy failed", extra={"task_id": work.task.task_id, "tries": work.tries, "error": str(error)})
        if delay_s is None:
            self._fail(work, str(error), seconds_left)
            return False
        problem = PollError("copy", str(error), now)
        try:
            due_at = now + timedelta(seconds=delay_s)
            self.store.postpone_work(work, due_at, interrupted=doubtful, problem=problem)
        except ClaimLostError:
            return False
        return delay_s == 0

    def _fail(self, work: Work, message: str, seconds_left: Callable[[], float]) -> None:
        now = self.clock()
        logger.error("copy given up", extra={"task_id": work.task.task_id, "error": message})
        self.count("CopyFailed", 1)
        self._finish(work, copy_failed(work.task, message, now), now, seconds_left)

    def _finish(
        self,
        work: Work,
        after: Task,
        now: datetime,
        seconds_left: Callable[[], float],
        foreseen: Foreseen | None = None,
    ) -> Made | None:
        """Writes the end of a task with its deliveries; None where another has changed it."""
        request = foreseen.request if foreseen is not None else None
        deliveries = owed(self.store, work.task, after, now, request)
        if seconds_left() < ATTEMPT_NEEDS_S:  # another invocation sends them, and not only after a minute
            deliveries = tuple(replace(one, due_at=now) for one in deliveries)
        try:
            saved = self.store.save(work.task, after, deliveries, token=work.token)
        except VersionConflictError:
            logger.warning("the task was changed by another", extra={"task_id": after.task_id})
            self._withdraw(work.task)
            return None
        self.count("Transitions", 1)
        return Made(saved, deliveries, foreseen)

    def _withdraw(self, task: Task) -> None:
        """Removes what was written to S3 after the task had ended without it: its clean-up may have come before."""
        current = self.store.task(task.task_id)
        if current is None or current.status.terminal:
            kept = _kept(current) if current is not None else []
            try:
                self.archive.clean(f"{task.owner}/{task.task_id}", kept)
            except CopyError as error:
                logger.warning("not withdrawn", extra={"task_id": task.task_id, "error": str(error)})

    def _clean(self, work: Work) -> bool:
        """Removes what a copy has left, or all that there is of a deleted task.

        A clean-up that fails is tried again on the copy's schedule, without an end.
        """
        task = work.task
        try:
            self.archive.clean(f"{task.owner}/{task.task_id}", _kept(task))
            if task.deleted:
                self.store.forget(work)  # after the files, which nobody could find without the task
            else:
                self.store.save(task, cleaned(task), token=work.token)
        except ClaimLostError:
            logger.info("claimed by another", extra={"task_id": task.task_id})
        except (CopyError, VersionConflictError) as error:
            delays = COPY_RETRIES.delays_s
            delay_s = max(delays[1], delays[min(work.tries, len(delays)) - 1])
            logger.warning("clean-up failed", extra={"task_id": task.task_id, "error": str(error)})
            self.count("CleanUpFailed", 1)
            try:
                self.store.postpone_work(work, self.clock() + timedelta(seconds=delay_s))
            except ClaimLostError:
                logger.info("claimed by another", extra={"task_id": task.task_id})
        return False


def _kept(task: Task) -> list[str]:
    """The keys of the files that stay when a task is cleaned up."""
    return [] if task.deleted else [file.key for file in task.files]


class _Held:
    """A claim while its work goes on: it is renewed where the work looks at the time."""

    def __init__(
        self, store: NotifyStore, work: Work, clock: Callable[[], datetime], seconds_left: Callable[[], float]
    ) -> None:
        self.work = work
        self.resumed: str | None = None  # the upload that this try found
        self.goes_on = False  # whether parts were added that the next try can go on after, as far as is known
        self._store = store
        self._clock = clock
        self._seconds_left = seconds_left
        # The claim stands until `due_at`: renew when 40 s of the 60 are left.
        self._margin = timedelta(seconds=CLAIM_S - CLAIM_RENEW_S)

    def seconds_left(self) -> float:
        """What is left of the invocation, in seconds; renews the claim where that is due."""
        now = self._clock()
        due_at = self.work.task.due_at
        if due_at is None or due_at - now <= self._margin:
            self.work = self._store.renew_work(self.work, now + timedelta(seconds=CLAIM_S))
        return self._seconds_left()

    def checkpoint(self, upload: Upload | None) -> None:
        """Keeps an upload. A part added to what an earlier try has left is progress: only uploads then count as tries.

        A new upload's parts are none: a source that breaks off each time and cannot be continued must come to an end,
        and so must one that can be continued for a while and then has changed.
        """
        kept = self.work.upload
        added = upload is not None and kept is not None and upload.upload_id == kept.upload_id
        continues = added and kept is not None and kept.upload_id == self.resumed
        self.goes_on = continues or (added and self.resumed is None)
        progressed = continues and self.work.tries > self.work.begun
        if upload != kept or progressed:
            self.work = self._store.note_upload(self.work, upload, progressed=progressed)

    def keep(self, file: StoredFile) -> None:
        """Keeps a file that is done while others are not."""
        self.work = self._store.note_upload(self.work, None, stored=file, progressed=True)


def _keys(event: Mapping[str, object]) -> list[tuple[str, str]]:
    """The keys that an event names; raises `ValueError` for an event of another shape."""
    named = event.get("items", [event])
    if not isinstance(named, list) or not named:
        raise ValueError("an event names at least one item")
    keys = [(item.get("pk"), item.get("sk")) for item in named if isinstance(item, Mapping)]
    if len(keys) != len(named) or not all(isinstance(part, str) for key in keys for part in key):
        raise ValueError("an event names items by pk and sk")
    return [(str(pk), str(sk)) for pk, sk in keys]
