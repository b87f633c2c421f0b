"""Calls that may be repeated: what was done under an `Idempotency-Key` is kept for a day, and its answer given again.

    first call      begin (running) ── do ── keep the answer, if all of it is done
    meanwhile       begin refused: it runs          -> ConflictError `request_running`
    later, equal    the kept answer
    later, other    InvalidInputError `idempotency_key_reused`

Whoever dies on the way leaves a note that runs out with the function's time limit. It holds the call's seed, of which
the ids of all that the call makes are made: called again, it finds what it has done, and answers as it would have.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from aws_lambda_powertools import Logger

from renderbell.errors import ConflictError, InvalidInputError
from renderbell.ids import Seed
from renderbell.store import KeptAnswer

__all__ = ["HEADER", "KEY_PATTERN", "Idempotency", "IdempotencyStore", "Said", "fingerprint_of"]

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
RUNNING = timedelta(seconds=30)  # the API's function is ended after 28 s

KEY_PATTERN = r"^[!-~]([ -~]{0,253}[!-~])?$"

_KEY = re.compile(KEY_PATTERN.removeprefix("^").removesuffix("$"))

logger = Logger()


class IdempotencyStore(Protocol):
    """What is used of the store."""

    def kept_answer(self, owner: str, key_hash: str) -> KeptAnswer | None: ...
    def begin_answer(self, owner: str, key_hash: str, begun: KeptAnswer, *, seen: KeptAnswer | None) -> bool: ...
    def keep_answer(self, owner: str, key_hash: str, answer: KeptAnswer) -> bool: ...
    def release_answer(self, owner: str, key_hash: str, token: str, now: datetime) -> bool: ...
    def drop_answer(self, owner: str, key_hash: str, token: str) -> None: ...


class Said(NamedTuple):
    """An answer; one is not `complete` if a part of what was asked shall be tried again."""

    status: int
    content_type: str
    body: str
    complete: bool = True

    @property
    def keepable(self) -> bool:
        """Whether a repetition gets it again: a refusal has done nothing, and what forbade it may pass."""
        return 200 <= self.status < 300 and self.complete

    @property
    def refused(self) -> bool:
        """Whether nothing was done, so that the key is as good as new."""
        return 400 <= self.status < 500


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Idempotency:
    """Does each call once under its key; keys are the owner's own."""

    store: IdempotencyStore
    clock: Callable[[], datetime]
    new_token: Callable[[], str]

    def once(self, owner: str, key: str, fingerprint: str, do: Callable[[Seed], Said]) -> tuple[Said, bool]:
        """The answer of `do`, or of an equal call before, and whether it is that.

        Only what was done is kept: after a refusal the key is free, and after a fault of ours the call may be made
        again, with the seed of the first. Raises `InvalidInputError` for a key that cannot be one or has been used for
        something else, `ConflictError` while the call before still runs.
        """
        if not _KEY.fullmatch(key):
            raise InvalidInputError(
                HEADER, "must be 1 to 255 printable ASCII characters", code="idempotency_key_invalid"
            )
        key_hash = hashlib.sha256(key.encode()).hexdigest()
        now = self.clock()
        seen = self.store.kept_answer(owner, key_hash)
        known = seen if seen is not None and now < seen.forgotten_at else None
        if known is not None and known.fingerprint != fingerprint:
            raise InvalidInputError(HEADER, "was used for another request", code="idempotency_key_reused")
        if known is not None and known.status is not None:
            return Said(known.status, known.content_type, known.body), True
        token = self.new_token()
        seed = known.seed._replace(repeated=True) if known is not None else Seed(token, now)
        begun = KeptAnswer(fingerprint, token, now + RUNNING, now + KEPT, seed)
        running = known is not None and now < known.running_until
        if running or not self.store.begin_answer(owner, key_hash, begun, seen=seen):
            raise ConflictError("the same request is still running; try again", code="request_running")
        said = do(seed)
        try:
            self._end(owner, key_hash, begun, said)
        except Exception:  # what was done is done, and found by whoever repeats the call
            logger.exception("answer not kept", extra={"owner": owner})
            self._release(owner, key_hash, begun)
        return said, False

    def _end(self, owner: str, key_hash: str, begun: KeptAnswer, said: Said) -> None:
        if said.keepable:
            answer = begun._replace(status=said.status, content_type=said.content_type, body=said.body)
            self.store.keep_answer(owner, key_hash, answer)
        elif said.refused:
            self.store.drop_answer(owner, key_hash, begun.token)
        else:
            self.store.release_answer(owner, key_hash, begun.token, self.clock())

    def _release(self, owner: str, key_hash: str, begun: KeptAnswer) -> None:
        try:
            self.store.release_answer(owner, key_hash, begun.token, self.clock())
        except Exception:  # the note runs out
            logger.exception("call still noted as running", extra={"owner": owner})


def fingerprint_of(*parts: str) -> str:
    """What tells one request from another."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
