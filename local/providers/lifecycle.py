"""What a simulated task is told to do, and where it stands at a given time. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from local.providers.video import MAX_SIZE, VideoFile, smallest_size

QUEUED_SHARE = 0.15  # of a task's time


class ProviderType(StrEnum):
    """The providers that are simulated."""

    CAPCUT_MATE = "capcut-mate"
    SCENEXT = "scenext"
    JIMMY = "jimmy"
    MONEYPRINTERTURBO = "moneyprinterturbo"
    MINGYAN = "mingyan"


class Outcome(StrEnum):
    """How a task ends."""

    SUCCEED = "succeed"
    FAIL = "fail"
    LOSE = "lose"  # the provider forgets it
    CANCEL = "cancel"  # only Jimmy knows this state
    NO_VIDEO = "no_video"  # a success without a usable file
    NEVER = "never"  # it runs on


class Phase(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    PROCESSING = "processing"
    ENDED = "ended"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trouble(_Model):
    """How status requests are answered from `from_s` to `to_s` after the task's creation.

    `status` replaces the answer, with `body` as its text; without it the true answer comes. `delay_s` holds it back.
    """

    from_s: Annotated[float, Field(ge=0)] = 0
    to_s: Annotated[float, Field(gt=0)] | None = None
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    body: str | None = None
    retry_after: str | int | None = None
    delay_s: Annotated[float, Field(ge=0, le=600)] = 0


class FileTrouble(_Model):
    """How requests for a file are answered; `times` is how many of them, None means all.

    `status` answers with an error, `html` with a page that says 200; `cut_after_bytes` ends the connection in the
    middle, `bytes_per_s` throttles, `no_range` ignores Range, `changed` serves another file of the same size.
    """

    times: Annotated[int, Field(ge=1)] | None = None
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    html: bool = False
    cut_after_bytes: Annotated[int, Field(ge=0)] | None = None
    bytes_per_s: Annotated[int, Field(ge=1)] | None = None
    no_range: bool = False
    changed: bool = False


class TaskSpec(_Model):
    """What a simulated task is told to do.

    `seconds` is from its creation to its end; with `from_first_poll` it counts as created when it is first asked for.
    """

    provider: ProviderType
    provider_task_id: Annotated[str, Field(min_length=1, max_length=2048)]
    seconds: Annotated[float, Field(ge=0, le=604_800)] = 6
    from_first_poll: bool = False
    outcome: Outcome = Outcome.SUCCEED
    error: str | None = None
    videos: Annotated[int, Field(ge=1, le=20)] = 1
    size_bytes: Annotated[int, Field(le=MAX_SIZE)] | None = None
    version: Literal["new", "old"] = "new"  # which of the shapes that the provider has used
    trouble: tuple[Trouble, ...] = ()
    file_trouble: tuple[FileTrouble, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> TaskSpec:
        if self.outcome is Outcome.CANCEL and self.provider is not ProviderType.JIMMY:
            raise ValueError(f"{self.provider} knows no cancelled tasks")
        if self.size_bytes is not None and self.size_bytes < smallest_size():
            raise ValueError(f"size_bytes must be at least {smallest_size()}")
        several = {ProviderType.MONEYPRINTERTURBO, ProviderType.SCENEXT}
        if self.videos > 1 and self.provider not in several:
            raise ValueError(f"{self.provider} makes one video a task")
        return self


class SimulatedTask(_Model):
    """A task of a simulated provider; everything about it follows from this and the time."""

    spec: TaskSpec
    created_at: AwareDatetime

    @property
    def started_at(self) -> datetime:
        """When it leaves the queue."""
        return self.created_at + timedelta(seconds=self.spec.seconds * QUEUED_SHARE)

    @property
    def ends_at(self) -> datetime:
        """When its outcome is known."""
        return self.created_at + timedelta(seconds=self.spec.seconds)

    def phase(self, now: datetime) -> Phase:
        """Where it stands."""
        if now >= self.ends_at and self.spec.outcome is not Outcome.NEVER:
            return Phase.ENDED
        return Phase.PROCESSING if now >= self.started_at else Phase.QUEUED

    def fraction(self, now: datetime) -> float:
        """How much of the processing is done: 0 up to, but not including, 1; 1 once it has ended."""
        if self.phase(now) is Phase.ENDED:
            return 1.0
        length = (self.ends_at - self.started_at).total_seconds()
        done = (now - self.started_at).total_seconds()
        return min(0.99, max(0.0, done / length)) if length > 0 else 0.99

    def ended_as(self, now: datetime) -> Outcome | None:
        """Its outcome, once it is known."""
        return self.spec.outcome if self.phase(now) is Phase.ENDED else None

    def trouble(self, now: datetime) -> Trouble | None:
        """What disturbs a status request at this moment, if anything."""
        elapsed = (now - self.created_at).total_seconds()
        for trouble in self.spec.trouble:
            if trouble.from_s <= elapsed and (trouble.to_s is None or elapsed < trouble.to_s):
                return trouble
        return None

    def file(self, n: int, *, changed: bool = False) -> VideoFile:
        """Its n-th video, counted from 1."""
        seed = f"{self.spec.provider}/{self.spec.provider_task_id}/{n}{'/changed' if changed else ''}"
        return VideoFile(seed, self.spec.size_bytes)
