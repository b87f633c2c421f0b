"""Sources that need several invocations, in virtual time: the notifier, the archive and the store together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from renderbell.archive import Archive
from renderbell.errors import ConnectError, DeadlineError
from renderbell.providers.base import Connection
from renderbell.task import Status, Task
from tests.deployment import NOTIFIER, Deployment, Said, succeeded
from tests.fake_source import FakeDownload, FakeDownloads, FakeFile, video_bytes
from tests.s3 import BUCKET, FakeS3, SameThread
from tests.virtual import START

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = 5_000  # a thousandth of the real sizes
PUT = 32_000
HOUR = 3600.0
SIGNED = "https://cdn.example.com/video.mp4?signature="


class SlowDownloads(FakeDownloads):
    """Keeps the downloader's word: an exchange ends at its deadline, in the middle of waiting too."""

    def __init__(self, world: Deployment, bytes_per_s: float) -> None:
        super().__init__({})
        self._world, self._bytes_per_s = world, bytes_per_s

    @contextmanager
    def open(
        self, url: str, *, connection: Connection | None, headers: Mapping[str, str], timeout_s: float
    ) -> Iterator[FakeDownload]:
        deadline_s = self._world.now_s + timeout_s
        with super().open(url, connection=connection, headers=headers, timeout_s=timeout_s) as download:
            yield FakeDownload(download.status, download.headers, url, self._slowly(download, deadline_s))

    def _slowly(self, download: FakeDownload, deadline_s: float) -> Iterator[bytes]:
        for chunk in download.chunks:
            needed_s, left_s = len(chunk) / self._bytes_per_s, deadline_s - self._world.now_s
            self._world.world.sleep(min(needed_s, left_s))
            if needed_s > left_s:
                raise DeadlineError("the time is up")
            yield chunk


class SlowWorld:
    """A deployment whose videos come slowly and are kept by the real archive."""

    def __init__(self, size: int, bytes_per_s: float, **quirks: Any) -> None:
        self.body = video_bytes(size)
        self.deployment = Deployment()
        self.s3 = FakeS3(smallest_part_bytes=PART)
        self.downloads = SlowDownloads(self.deployment, bytes_per_s)
        self.file = FakeFile(self.body, chunk=500, **quirks)
        for signature in ("s", *(str(number) for number in range(100))):
            self.downloads.files[SIGNED + signature] = self.file
        self.use(self.downloads)

    def use(self, downloads: SlowDownloads) -> None:
        archive = Archive(
            lambda: cast("S3Client", self.s3),
            BUCKET,
            downloads,
            max_bytes=1_000_000,
            part_bytes=PART,
            put_bytes=PUT,
            uploader=SameThread,
        )
        self.deployment.archive = cast(Any, archive)

    def run(self, until_s: float, *answers: Said) -> Task:
        task = self.deployment.register(*(answers or (succeeded(),)))
        self.deployment.tick_every_minute(until_s=until_s)
        self.deployment.run(until_s)
        return self.deployment.task(task)

    @property
    def invocations(self) -> int:
        return [name for name, _ in self.deployment.invocations].count(NOTIFIER)

    @property
    def stored(self) -> bytes:
        (found,) = self.s3.objects.values()
        assert self.s3.uploads == {}
        return found.body


@pytest.mark.parametrize(
    ("size", "bytes_per_s", "invocations"),
    [
        (20_000, 50.0, 2),  # as 20 MB at 50 kB/s: it would have been put at once
        (20_000, 21.0, 4),
        (60_000, 50.0, 6),
        (9_000, 25.0, 2),  # the last part may be small
    ],
)
@pytest.mark.parametrize("announced", [-1, None], ids=["announced", "unannounced"])
def test_a_source_slower_than_the_time_limit_ends_in_one_object_after_several_invocations(
    size: int, bytes_per_s: float, invocations: int, announced: int | None
) -> None:
    world = SlowWorld(size, bytes_per_s, announced=announced)
    task = world.run(HOUR)
    assert task.status is Status.COMPLETED
    assert world.stored == world.body
    assert world.s3.part_bytes_sent == size
    assert world.s3.calls.count("create_multipart_upload") == 1
    assert world.invocations == invocations
    assert task.last_poll_error is None


def test_a_slow_copy_goes_on_at_once_in_a_fresh_invocation_and_shows_no_error_meanwhile() -> None:
    world = SlowWorld(60_000, 50.0)
    meanwhile = world.run(1000.0)
    assert (meanwhile.status, meanwhile.last_poll_error) == (Status.COPYING, None)
    asked = len(world.downloads.asked)
    assert asked == world.invocations == 4  # 300 s each, and no wait between them


def test_a_slow_copy_goes_on_at_once_after_tries_that_failed_too() -> None:
    world = SlowWorld(20_000, 50.0)
    world.file.fails = ConnectError("down")
    world.deployment.world.at(START + timedelta(seconds=60), lambda: setattr(world.file, "fails", None))
    task = world.run(HOUR)
    assert task.status is Status.COMPLETED
    assert len(world.downloads.asked) == 5
    # Three failures and their waits take some 150 s; then 270 s, in which half of it comes, and the rest at once.
    assert task.history[-1].at < START + timedelta(seconds=150 + 270 + 200 + 20)


@pytest.mark.parametrize("breaks_after", [None, 6_000])
def test_a_copy_that_needs_a_fresh_link_for_each_part_is_not_counted_out(breaks_after: int | None) -> None:
    """Each try brings a little more than a part, and its link has expired when the next one begins."""
    bytes_per_s, link_s = (22.0, 290.0) if breaks_after is None else (50.0, 100.0)
    world = SlowWorld(100_000, bytes_per_s, breaks_after=breaks_after)

    class Expiring(SlowDownloads):
        def open(self, url: str, **asked: Any) -> Any:
            world.file.status = 200 if url == f"{SIGNED}{int(world.deployment.now_s // link_s)}" else 403
            return super().open(url, **asked)

    expiring = Expiring(world.deployment, bytes_per_s)
    expiring.files = world.downloads.files
    world.use(expiring)
    answers = [Said(link_s * n, {"status": "completed", "result": {"video_url": f"{SIGNED}{n}"}}) for n in range(100)]
    task = world.run(3 * HOUR, *answers)
    assert task.status is Status.COMPLETED
    assert world.stored == world.body
    assert world.s3.part_bytes_sent == 100_000
    assert len({asked.url for asked in expiring.asked if "Range" in asked.headers}) > 15


def test_a_slow_source_that_names_no_version_of_its_file_fails_and_says_so() -> None:
    world = SlowWorld(20_000, 50.0, etag=None)
    task = world.run(24 * HOUR)
    assert task.error is not None
    assert (task.status, task.error.code) == (Status.FAILED, "copy_failed")
    assert "cannot be continued" in task.error.message
    assert "no version" in task.error.message
    assert len(world.downloads.asked) == 10  # as the schedule ends
    assert world.s3.objects == {}
    assert world.s3.uploads == {}


def test_a_slow_source_that_ignores_ranges_fails_and_says_so() -> None:
    world = SlowWorld(60_000, 50.0, ranges=False)
    task = world.run(24 * HOUR)
    assert task.error is not None
    assert task.status is Status.FAILED
    assert "answers a range with the whole file" in task.error.message
    assert len(world.downloads.asked) == 10
    assert world.s3.objects == {}
    assert world.s3.uploads == {}


def test_a_source_that_drips_less_than_a_part_an_invocation_fails_and_says_so() -> None:
    world = SlowWorld(20_000, 15.0)
    task = world.run(24 * HOUR)
    assert task.error is not None
    assert task.status is Status.FAILED
    assert f"a copy can only go on after {PART} bytes" in task.error.message
    assert len(world.downloads.asked) == 10
    assert world.s3.objects == {}
    assert world.s3.uploads == {}


def invoke_for(world: SlowWorld, task: str, *, every_minutes: int) -> None:
    """Tells the notifier of a task for five days, instead of the poller, for which these are long."""
    for minutes in range(0, 5 * 24 * 60 + 300, every_minutes):
        world.deployment.world.at(
            START + timedelta(minutes=minutes),
            lambda: world.deployment.invoke(NOTIFIER, {"pk": f"TASK#{task}", "sk": "TASK"}),
        )
    world.deployment.run(5 * 24 * HOUR + 5 * HOUR)


@pytest.mark.parametrize(
    ("bytes_per_s", "breaks_after"), [(5_000.0, 6_000), (50.0, None)], ids=["breaks off", "out of time"]
)
def test_a_source_that_changes_whenever_it_was_continued_once_ends_as_the_schedule_ends(
    bytes_per_s: float, breaks_after: int | None
) -> None:
    world = SlowWorld(60_000, bytes_per_s, breaks_after=breaks_after)

    class Changing(SlowDownloads):
        def open(self, url: str, **asked: Any) -> Any:
            assert len(self.asked) < 100, "it is asked without end"
            world.file.etag = f'"{len(self.asked) // 2}"'
            return super().open(url, **asked)

    changing = Changing(world.deployment, bytes_per_s)
    changing.files = world.downloads.files
    world.use(changing)
    registered = world.deployment.register(succeeded())
    invoke_for(world, registered, every_minutes=6)
    task = world.deployment.task(registered)
    assert task.error is not None
    assert (task.status, task.error.code) == (Status.FAILED, "copy_failed")
    assert timedelta(hours=15) <= task.history[-1].at - START < timedelta(hours=36)
    assert 15 <= len(changing.asked) <= 30
    assert world.s3.objects == {}
    assert world.s3.uploads == {}


def test_a_copy_that_goes_on_without_end_is_given_up_after_five_days() -> None:
    """Each invocation brings a part, of a file so large that these do not suffice."""
    world = SlowWorld(300_000, 25.0)
    registered = world.deployment.register(succeeded())
    invoke_for(world, registered, every_minutes=240)
    task = world.deployment.task(registered)
    assert task.error is not None
    assert (task.status, task.error.code) == (Status.FAILED, "copy_failed")
    assert timedelta(days=5) <= task.history[-1].at - START < timedelta(days=5, hours=1)
    assert world.s3.objects == {}
    assert world.s3.uploads == {}
