"""The simulated providers' files: playable, of any size, never two alike."""

import hashlib
import struct
from itertools import pairwise

import pytest

from local.providers.video import CHUNK, SAMPLE, VideoFile, sample, smallest_size


def boxes(data: bytes) -> list[tuple[str, int, int]]:
    """The MP4 boxes on one level: type, start and end of the content."""
    found = []
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        assert length >= 8, f"box at {at} has length {length}"
        found.append((kind.decode("ascii"), at + 8, at + length))
        at += length
    assert at == len(data), "the last box ends with the file"
    return found


def box(data: bytes, *path: str) -> bytes:
    for kind in path:
        start, stop = next((start, stop) for name, start, stop in boxes(data) if name == kind)
        data = data[start:stop]
    return data


def whole(file: VideoFile) -> bytes:
    return b"".join(file.chunks())


def test_the_sample_is_small_and_starts_to_play_before_it_is_loaded() -> None:
    kinds = [kind for kind, _, _ in boxes(sample())]
    assert SAMPLE.stat().st_size <= 60_000
    assert kinds[0] == "ftyp"
    assert kinds.index("moov") < kinds.index("mdat")


def test_the_sample_holds_a_few_seconds_of_h264_and_aac() -> None:
    header = box(sample(), "moov", "mvhd")
    timescale, duration = struct.unpack_from(">II", header, 12)
    assert 3 <= duration / timescale <= 5
    moov = box(sample(), "moov")
    codecs = set()
    for kind, start, stop in boxes(moov):
        if kind == "trak":
            description = box(moov[start:stop], "mdia", "minf", "stbl", "stsd")
            codecs.add(description[12:16])
    assert codecs == {b"avc1", b"mp4a"}


def test_the_samples_chunk_offsets_point_into_its_media_data() -> None:
    moov = box(sample(), "moov")
    start, stop = next((start, stop) for kind, start, stop in boxes(sample()) if kind == "mdat")
    for kind, begin, end in boxes(moov):
        if kind == "trak":
            table = box(moov[begin:end], "mdia", "minf", "stbl", "stco")
            (count,) = struct.unpack_from(">I", table, 4)
            assert count > 0
            assert all(start <= offset < stop for offset in struct.unpack_from(f">{count}I", table, 8))


@pytest.mark.parametrize("size", [smallest_size(), smallest_size() + 1, 100_000, 200_001, 3 * CHUNK])
def test_a_file_is_the_sample_and_one_box_that_players_skip(size: int) -> None:
    data = whole(VideoFile("jimmy/a/1", size))
    assert len(data) == size
    assert data.startswith(sample())
    assert [kind for kind, _, _ in boxes(data)] == [kind for kind, _, _ in boxes(sample())] + ["free"]


def test_files_of_different_tasks_differ_and_a_files_bytes_never_change() -> None:
    first, again, other = VideoFile("jimmy/a/1"), VideoFile("jimmy/a/1"), VideoFile("jimmy/b/1")
    assert whole(first) == whole(again)
    assert first.sha256 == hashlib.sha256(whole(first)).hexdigest()
    assert (first.etag, first.sha256) == (again.etag, again.sha256)
    assert first.sha256 != other.sha256
    assert first.etag != other.etag


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (32_000, 33_000), (100_000, 165_537), (131_071, 131_073), (1_000_000, 1_500_000)]
)
def test_any_part_of_a_file_is_the_same_as_in_the_whole(start: int, stop: int) -> None:
    file = VideoFile("mingyan/x/1", 1_500_000)
    assert b"".join(file.chunks(start, stop)) == whole(file)[start:stop]


def test_no_two_stretches_of_a_large_file_are_alike_so_that_swapped_parts_are_noticed() -> None:
    data = whole(VideoFile("scenext/x/1", 1_000_000))[smallest_size() :]
    stretches = [data[at : at + 65_536] for at in range(0, len(data) - 65_536, 65_536)]
    assert all(one != other for one, other in pairwise(stretches))
    assert len(set(stretches)) == len(stretches)


def test_a_file_smaller_than_the_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="size_bytes must be between"):
        VideoFile("x", 100)
