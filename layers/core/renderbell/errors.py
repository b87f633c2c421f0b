"""Every error that Renderbell raises on purpose.

RenderbellError
 ├─ InvalidInputError            a caller's value cannot be used; names the field
 ├─ NotFoundError                no such thing, or not this owner's
 ├─ ConflictError                the thing's state forbids it
 │   └─ AlreadyRegisteredError   the same provider task already runs with other settings
 ├─ ForbiddenError               the key's scope does not cover it
 ├─ ConfigurationError           the operator's settings or connection cannot be used
 ├─ VersionConflictError         a conditional write lost its race; carries the winner
 ├─ ClaimLostError               the holder's claim on an item has ended or passed on
 ├─ EgressError                  an outbound request that brought no answer
 │   ├─ AddressRefusedError      the URL or its address may not be reached (permanent)
 │   ├─ DeadlineError            the wall-clock limit passed
 │   └─ ConnectError             DNS, TCP, TLS or protocol trouble on the way
 ├─ CopyError                    a video could not be copied to S3 this time
 │   ├─ LinkExpiredError         the provider's link answers 401, 403, 404 or 410
 │   ├─ OutOfTimeError           the function's time ran out; what is uploaded stays for the next try
 │   ├─ SourceRefusedError       this source will never do: too large, address refused
 │   ├─ WrongContentError        the link brought no video
 │   └─ StorageError             S3 refused or did not answer; the call may have had its effect
 └─ ProviderError                an answer, or none, to one status poll; one subclass per thing to do
     ├─ ProviderUnavailable      try again
     ├─ ProviderAuthError        the operator must act
     ├─ ProviderTaskNotFound     the provider does not know the task
     ├─ ProviderRejected         this request can never work
     └─ ProviderProtocolError    an answer that cannot be read, be it through a fault of ours
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renderbell.task import Task

__all__ = [
    "AddressRefusedError",
    "AlreadyRegisteredError",
    "ClaimLostError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "CopyError",
    "DeadlineError",
    "EgressError",
    "ForbiddenError",
    "InvalidInputError",
    "LinkExpiredError",
    "NotFoundError",
    "OutOfTimeError",
    "ProviderAuthError",
    "ProviderError",
    "ProviderProtocolError",
    "ProviderRejected",
    "ProviderTaskNotFound",
    "ProviderUnavailable",
    "RenderbellError",
    "SourceRefusedError",
    "VersionConflictError",
    "WrongContentError",
]


class RenderbellError(Exception):
    """The root of all errors that Renderbell raises on purpose."""


class InvalidInputError(RenderbellError):
    """A caller's value cannot be used.

    `field` is the dotted name of the value in the request, `code` a stable word for clients.
    """

    def __init__(self, field: str, message: str, *, code: str = "invalid_input") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


class NotFoundError(RenderbellError):
    """There is no such thing, or it belongs to another owner."""


class ConflictError(RenderbellError):
    """The thing's present state forbids what was asked; `code` is a stable word for clients."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class AlreadyRegisteredError(ConflictError):
    """The same provider task is already being watched for this owner with other settings."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"this provider task is already registered as {task_id}", code="already_registered")
        self.task_id = task_id


class ForbiddenError(RenderbellError):
    """The key's scope does not cover what was asked."""


class ConfigurationError(RenderbellError):
    """The operator's settings or a connection cannot be used."""


class VersionConflictError(RenderbellError):
    """A conditional write on a task lost its race; `current` is the winner's state, None if the task is gone."""

    def __init__(self, task_id: str, current: Task | None) -> None:
        super().__init__(f"task {task_id} was changed by another")
        self.current = current


class ClaimLostError(RenderbellError):
    """The holder's claim on an item has ended or passed on to another."""


class EgressError(RenderbellError):
    """An outbound request brought no answer."""


class AddressRefusedError(EgressError):
    """The URL, or an address that its name resolves to, may not be reached; no retry will help."""


class DeadlineError(EgressError):
    """The wall-clock limit of the whole exchange passed."""


class ConnectError(EgressError):
    """Name resolution, the connection, TLS or the protocol failed on the way."""


class CopyError(RenderbellError):
    """A video could not be copied to S3 this time; the copy is tried again on its schedule."""


class LinkExpiredError(CopyError):
    """The provider's link answered 401, 403, 404 or 410; a fresh one may help."""


class OutOfTimeError(CopyError):
    """The function's time ran out; what is uploaded so far stays and a later invocation goes on from there."""


class SourceRefusedError(CopyError):
    """This source will never do: it is too large, or its address may not be reached."""


class WrongContentError(CopyError):
    """The link brought something that is no video: an error page in its place may go away, so it is tried again."""


class StorageError(CopyError):
    """S3 refused a call or did not answer it; it may have had its effect all the same."""


class ProviderError(RenderbellError):
    """What one status poll brought instead of an observation; there is one subclass per thing to do."""

    kind: str = "provider_error"


class ProviderUnavailable(ProviderError):  # noqa: N818 - the blueprint's vocabulary
    """The provider cannot answer now; try again, not before `retry_after` seconds if that is given."""

    kind = "unavailable"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ProviderAuthError(ProviderError):
    """The provider refuses the connection's credentials or account; the operator must act, the task stays."""

    kind = "auth"


class ProviderTaskNotFound(ProviderError):  # noqa: N818 - the blueprint's vocabulary
    """The provider does not know the task (yet, or any more)."""

    kind = "not_found"


class ProviderRejected(ProviderError):  # noqa: N818 - the blueprint's vocabulary
    """The provider says that this request can never work."""

    kind = "rejected"


class ProviderProtocolError(ProviderError):
    """An answer that cannot be read; `raw` keeps the beginning of its text.

    `internal` says that our own code broke on it, which makes it of another kind.
    """

    kind = "protocol"

    def __init__(self, message: str, *, raw: str = "", internal: bool = False) -> None:
        super().__init__(message)
        self.raw = raw
        if internal:
            self.kind = "internal"
