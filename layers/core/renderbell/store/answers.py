"""Kept answers: what a call under an idempotency key was answered, so that its repetition is answered the same."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import NamedTuple

from renderbell import items
from renderbell.expressions import Change, Key
from renderbell.ids import Seed
from renderbell.items import time_text
from renderbell.store.table import Table


class KeptAnswer(NamedTuple):
    """A call under a key: running until a time while `status` is None, answered from then on.

    `fingerprint` says what was asked; `token` is the call's own, and the `seed` that of all its repetitions.
    """

    fingerprint: str
    token: str
    running_until: datetime
    forgotten_at: datetime
    seed: Seed
    status: int | None = None
    content_type: str = ""
    body: str = ""


class Answers(Table):
    """The calls under idempotency keys, by owner and key."""

    def kept_answer(self, owner: str, key_hash: str) -> KeptAnswer | None:
        """What is kept of a call under a key, read consistently; it may be forgotten by now."""
        item = self._get(_answer_key(owner, key_hash))
        if item is None:
            return None
        body = item.get("body")
        return KeptAnswer(
            fingerprint=item["fingerprint"],
            token=item["token"],
            running_until=items.parse_time(item["running_until"]),
            forgotten_at=datetime.fromtimestamp(int(item["ttl"]), UTC),
            seed=Seed(item["seed"], items.parse_time(item["seed_at"])),
            status=int(item["status"]) if "status" in item else None,
            content_type=item.get("content_type", ""),
            body=zlib.decompress(bytes(body)).decode() if body is not None else "",
        )

    def begin_answer(self, owner: str, key_hash: str, begun: KeptAnswer, *, seen: KeptAnswer | None) -> bool:
        """Notes that a call runs, if what stood under its key is still what was seen (None: nothing)."""
        change = Change()
        conditions = [change.as_seen("token", None if seen is None else seen.token)]
        change.set("fingerprint", begun.fingerprint)
        change.set("token", begun.token)
        change.set("running_until", time_text(begun.running_until))
        change.set("seed", begun.seed.word)
        change.set("seed_at", time_text(begun.seed.at))
        change.set("ttl", int(begun.forgotten_at.timestamp()))
        change.remove("status", "content_type", "body")
        return self._applies(_answer_key(owner, key_hash), change, conditions, mine=("token", begun.token))

    def keep_answer(self, owner: str, key_hash: str, answer: KeptAnswer) -> bool:
        """Keeps a call's answer, if the call is still the one that was noted last."""
        change = Change()
        change.set("status", answer.status)
        change.set("content_type", answer.content_type)
        change.set("body", zlib.compress(answer.body.encode()))
        return self._applies(_answer_key(owner, key_hash), change, [change.equals("token", answer.token)])

    def release_answer(self, owner: str, key_hash: str, token: str, now: datetime) -> bool:
        """Notes that a call runs no more, so that it may be made again, if it is still the one that was noted last."""
        change = Change()
        change.set("running_until", time_text(now))
        return self._applies(_answer_key(owner, key_hash), change, [change.equals("token", token)])

    def drop_answer(self, owner: str, key_hash: str, token: str) -> None:
        """Forgets a call, if it is still the one that was noted last."""
        self._removes(_answer_key(owner, key_hash), mine=("token", token))


def _answer_key(owner: str, key_hash: str) -> Key:
    return {"pk": f"OWNER#{owner}", "sk": f"ANSWER#{key_hash}"}
