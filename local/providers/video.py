"""A playable MP4 of any size whose bytes are different for every file and always the same for one file."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

# ffmpeg -f lavfi -i testsrc=size=320x180:rate=15:duration=4 -f lavfi -i sine=frequency=660:duration=4
#   -c:v libx264 -profile:v baseline -pix_fmt yuv420p -crf 30 -preset veryslow -c:a aac -b:a 32k -ac 1
#   -movflags +faststart -map_metadata -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact sample.mp4
SAMPLE = Path(__file__).parent.parent / "assets" / "sample.mp4"
CHUNK = 256 * 1024
_BOX_HEADER = 8
_BLOCK = 64 * 1024
MAX_SIZE = 2**32 - 1  # a box's length field has 32 bits


@cache
def sample() -> bytes:
    """The video every file begins with: four seconds of H.264 and AAC, made once with ffmpeg."""
    return SAMPLE.read_bytes()


def smallest_size() -> int:
    """The smallest file in bytes: the sample and a box of 32 bytes that tells it from the others."""
    return len(sample()) + _BOX_HEADER + 32


class VideoFile:
    """The sample followed by a `free` box, which players skip, filled with bytes that follow from `seed`."""

    def __init__(self, seed: str, size_bytes: int | None = None) -> None:
        self.size_bytes = smallest_size() + 992 if size_bytes is None else size_bytes
        if not smallest_size() <= self.size_bytes <= MAX_SIZE:
            raise ValueError(f"size_bytes must be between {smallest_size()} and {MAX_SIZE}")
        self._block = hashlib.shake_256(seed.encode()).digest(_BLOCK)
        self._head = sample() + struct.pack(">I4s", self.size_bytes - len(sample()), b"free")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the whole file in hexadecimal."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @property
    def etag(self) -> str:
        """A strong entity tag, quoted; it costs no look at the file."""
        return f'"{hashlib.sha256(self._block + str(self.size_bytes).encode()).hexdigest()[:32]}"'

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, in pieces that need little memory."""
        end = self.size_bytes if stop is None else min(stop, self.size_bytes)
        at = start
        while at < end:
            if at < len(self._head):
                piece = self._head[at : min(end, len(self._head))]
            else:
                piece = self._filling(at - len(self._head), min(CHUNK, end - at))
            yield piece
            at += len(piece)

    def _filling(self, offset: int, length: int) -> bytes:
        """Part of the filling: one block over and over, each with its number in front, so that no two are alike."""
        number, skip = divmod(offset, _BLOCK)
        blocks = range(number, number + (skip + length + _BLOCK - 1) // _BLOCK)
        return b"".join(struct.pack(">Q", block) + self._block[8:] for block in blocks)[skip : skip + length]
