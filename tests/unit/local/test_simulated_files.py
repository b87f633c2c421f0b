"""How the simulated providers serve their videos, and how they fail to."""

from collections.abc import Iterator

import pytest
import requests

from local.providers.server import Simulators, byte_range
from tests.unit.local.simulated import FakeClock, connection, poll


def finished(simulators: Simulators, provider: str = "jimmy", **told: object) -> tuple[str, str, bytes]:
    """A finished task: its id, its link, its file's bytes."""
    task_id = simulators.create(provider, **{"seconds": 0, "size_bytes": 100_000, **told})
    [link] = poll(connection(simulators, provider), task_id).videos
    return task_id, link, b"".join(simulators.file(provider, task_id).chunks())


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=10)


def read_into(got: bytearray, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        got += piece


def test_a_file_comes_with_length_type_and_tag(simulators: Simulators) -> None:
    _, link, data = finished(simulators)
    answer = get(link)
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-length"] == "100000"
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')


def test_a_range_is_served_while_the_tag_matches_and_the_whole_file_otherwise(simulators: Simulators) -> None:
    _, link, data = finished(simulators)
    tag = get(link).headers["etag"]
    part = get(link, Range="bytes=40000-", If_Range=tag)
    assert (part.status_code, part.content) == (206, data[40_000:])
    assert part.headers["content-range"] == "bytes 40000-99999/100000"
    assert part.headers["content-length"] == "60000"
    other = get(link, Range="bytes=40000-", If_Range='"another"')
    assert (other.status_code, other.content) == (200, data)


def test_a_range_beyond_the_end_is_refused_with_the_size(simulators: Simulators) -> None:
    _, link, _ = finished(simulators)
    answer = get(link, Range="bytes=100000-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */100000")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=10-", None),
        ("bytes=5-4", None),
        ("bytes=-0", None),
        ("bytes=-", None),
        ("bytes=1-2,4-5", None),
        ("bytes=a-b", None),
        ("bytes=²-", None),
        ("items=0-1", None),
        ("", None),
    ],
)
def test_one_range_is_understood(header: str, found: tuple[int, int] | None) -> None:
    assert byte_range(header, 10) == found


def test_moneyprinterturbo_answers_head_for_its_static_files_but_not_for_its_stream(simulators: Simulators) -> None:
    task_id, link, data = finished(simulators, "moneyprinterturbo")
    head = requests.head(link, timeout=10)
    assert (head.status_code, head.headers["content-length"]) == (200, "100000")
    stream = f"{simulators.provider_urls['moneyprinterturbo']}/api/v1/stream/tasks/{task_id}/final-1.mp4"
    assert requests.head(stream, timeout=10).status_code == 404
    answer = get(stream)
    assert (answer.status_code, answer.content) == (206, data)
    assert answer.headers["content-range"] == "bytes 0-99999/100000"


def test_a_signed_link_refuses_head(simulators: Simulators) -> None:
    _, link, _ = finished(simulators, "jimmy")
    assert requests.head(link, timeout=10).status_code == 403


def test_there_is_no_file_before_the_task_has_ended_or_beyond_its_number(
    simulators: Simulators, clock: FakeClock
) -> None:
    task_id = simulators.create("moneyprinterturbo", seconds=10)
    url = f"{simulators.provider_urls['moneyprinterturbo']}/tasks/{task_id}"
    assert get(f"{url}/final-1.mp4").status_code == 404
    clock.at(10)
    assert get(f"{url}/final-1.mp4").status_code == 200
    assert get(f"{url}/final-2.mp4").status_code == 404


def test_a_link_can_fail_a_few_times_and_then_work(simulators: Simulators) -> None:
    trouble = [{"times": 2, "status": 403}, {"times": 1, "html": True}]
    task_id, link, data = finished(simulators, file_trouble=trouble)
    first, second, third, fourth = (get(link) for _ in range(4))
    assert [first.status_code, second.status_code] == [403, 403]
    assert third.headers["content-type"].startswith("text/html")
    assert fourth.content == data
    assert [seen.status for seen in simulators.downloads("jimmy", task_id)] == [403, 403, 200, 200]


def test_a_transfer_can_be_cut_and_resumed(simulators: Simulators) -> None:
    _, link, data = finished(simulators, file_trouble=[{"times": 1, "cut_after_bytes": 30_000}])
    got = bytearray()
    with requests.get(link, stream=True, timeout=10) as answer:
        pieces = answer.iter_content(1000)
        with pytest.raises(requests.RequestException):
            read_into(got, pieces)
    assert 0 < len(got) <= 30_000
    assert bytes(got) == data[: len(got)]
    rest = get(link, Range=f"bytes={len(got)}-", If_Range=answer.headers["etag"])
    assert bytes(got) + rest.content == data


def test_a_transfer_can_be_slow(simulators: Simulators, clock: FakeClock) -> None:
    _, link, data = finished(simulators, file_trouble=[{"bytes_per_s": 10_000}])
    assert get(link).content == data
    assert 10 <= sum(clock.slept) <= 11


def test_a_source_can_ignore_ranges_or_become_another_file(simulators: Simulators) -> None:
    trouble = [{"times": 1, "no_range": True}, {"times": 1, "changed": True}]
    _, link, data = finished(simulators, file_trouble=trouble)
    whole = get(link, Range="bytes=10-")
    assert (whole.status_code, whole.content) == (200, data)
    other = get(link)
    assert len(other.content) == len(data)
    assert other.content != data
    assert other.headers["etag"] != whole.headers["etag"]


def test_a_large_file_is_served_from_anywhere_without_being_made_first(simulators: Simulators) -> None:
    task_id, link, _ = finished(simulators)
    simulators.change("jimmy", task_id, size_bytes=3_000_000_000)
    answer = get(link, Range="bytes=2999999990-")
    assert answer.headers["content-range"] == "bytes 2999999990-2999999999/3000000000"
    assert len(answer.content) == 10
