"""A provider's own call, in the form of Standard Webhooks: whether it is one, and which task it is about. Pure.

    webhook-id: msg_1
    webhook-timestamp: 1795334400
    webhook-signature: v1,<base64 of HMAC-SHA256(callback_secret, "msg_1.1795334400." + body)>

The body is JSON. Whoever relays the calls of a provider that signs in another way signs them anew in this one.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime

from renderbell.providers.base import Callback, Connection, check_provider_task_id
from renderbell.providers.spec import Expression
from renderbell.signing import key_of, signature

__all__ = ["DECOY_SECRET", "TASK_ID_PLACES", "is_recent", "task_id_from", "verify_standard"]

TOLERANCE_S = 300.0  # either way, as Standard Webhooks has it
MAX_SIGNATURES = 10  # of one call, for secrets that are being rotated
TASK_ID_PLACES = ("task_id", "data.task_id", "data.id", "id")  # of an envelope with an id of its own, the inner one
DECOY_SECRET = "whsec_" + "A" * 44

_PLACES = tuple(map(Expression, TASK_ID_PLACES))
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


def verify_standard(connection: Connection, headers: Mapping[str, str], body: bytes, now: datetime) -> Callback | None:
    """The call, if the connection's `callback_secret` has signed it within five minutes; the headers' names are in
    lower case."""
    secret = connection.callback_secret
    key = key_of(DECOY_SECRET if secret is None else secret.get_secret_value())
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    right = signature(key, message_id, timestamp, body).encode()
    given = headers.get("webhook-signature", "").split(" ")[:MAX_SIGNATURES]
    # All are compared, so that the time that this takes says nothing of which.
    matches = [hmac.compare_digest(b"v1," + right, one.encode("utf-8", "replace")) for one in given]
    if not any(matches) or secret is None or not message_id or not _TIMESTAMP.fullmatch(timestamp):
        return None
    if "." in message_id:  # an old call could be cut elsewhere into an id, a time and a body
        return None
    if not is_recent(int(timestamp), now):
        return None
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError):
        return Callback(None)
    own = connection.spec.callback_task_id if connection.spec is not None else None
    return Callback(task_id_from(*(one.search(document) for one in ((own,) if own is not None else _PLACES))))


def is_recent(epoch_s: float, now: datetime) -> bool:
    """Whether a call was signed within the tolerance; not for what is no time."""
    try:
        return abs(now.timestamp() - epoch_s) <= TOLERANCE_S
    except OverflowError:
        return False


def task_id_from(*found: object) -> str | None:
    """The first of several values that is a task's id; None where none is."""
    for one in found:
        if isinstance(one, str | int) and not isinstance(one, bool):
            try:
                text = str(one)
                check_provider_task_id(text)
            except ValueError:  # no id that a task can have, or a number with too many digits
                continue
            return text
    return None
