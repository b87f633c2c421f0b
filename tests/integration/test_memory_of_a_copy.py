"""The memory that the notifier's process takes to copy a large video, with its real parts and real connections.

The source and S3 are processes of their own that make and drop the bytes as they pass.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from renderbell.archive import PART_BYTES
from tests.benchmarks.machine import serving
from tests.integration.big_file import MIB, blocks
from tests.unit.tls_files import make_tls_files

LIMIT_BYTES = 150_000_000
ROOT = Path(__file__).parents[2]
UNBROKEN = 1 << 60

Measured = Callable[[str], None]


@dataclass(frozen=True)
class Copied:
    """What one process needed to copy a video."""

    seconds: float
    base_bytes: int
    peak_bytes: int
    size_bytes: int
    sha256: str
    puts: int
    parts: list[tuple[int, str]]


def copy(directory: Path, measured: Measured, size: int, *breaks: int, query: str = "") -> Copied:
    """Copies a video of so many bytes in a process of its own; the first answers break off after so many."""
    tls = make_tls_files(directory, "localhost")
    (directory / "config").write_text("[default]\ns3 =\n  addressing_style = path\n")
    with (
        serving("tests.integration.big_file", "source") as source_port,
        serving("tests.integration.big_file", "s3", str(directory)) as s3_port,
    ):
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "layers/core"),
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(directory / "config"),
            "AWS_CA_BUNDLE": tls.ca_file,
            "AWS_ENDPOINT_URL_S3": f"https://localhost:{s3_port}",
            "TABLE_NAME": "table",
            "BUCKET_NAME": "videos",
            "CONNECTIONS_PATH": "/stack/connections",
            "MASTER_SECRET_ID": "master",
            "MAX_VIDEO_BYTES": "5368709120",
            "POWERTOOLS_SERVICE_NAME": "notifier",
        }
        urls = [f"http://127.0.0.1:{source_port}/{size}/{after}/v.mp4{query}" for after in (*breaks, UNBROKEN)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.big_copy", *urls],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
        )
        trust = ssl.create_default_context(cafile=tls.ca_file)
        with urlopen(f"https://localhost:{s3_port}/parts", context=trust, timeout=10) as answer:
            puts, parts = json.load(answer)
    copied = Copied(**json.loads(done.stdout), puts=puts, parts=[(size, digest) for size, digest in parts])
    measured(
        f"a copy of {size / MIB:.0f} MiB in {copied.seconds:.1f} s ({size / 1e6 / copied.seconds:.0f} MB/s): peak "
        f"{copied.peak_bytes / 1e6:.1f} MB, {copied.base_bytes / 1e6:.1f} MB of it before the copy"
    )
    return copied


def test_2_gib_are_copied_in_less_than_150_mb(tmp_path: Path, measured: Measured) -> None:
    size = 2048 * MIB
    copied = copy(tmp_path, measured, size)
    whole = hashlib.sha256()
    for piece in blocks(0, size):
        whole.update(piece)
    assert (copied.size_bytes, copied.sha256) == (size, whole.hexdigest())
    assert sum(stored for stored, _ in copied.parts) == size
    assert copied.peak_bytes < LIMIT_BYTES


def test_a_copy_that_goes_on_and_is_read_back_stays_below_150_mb_and_sends_no_part_twice(
    tmp_path: Path, measured: Measured
) -> None:
    size = 768 * MIB
    copied = copy(tmp_path, measured, size, 500 * MIB + 5)
    expected = []
    for at in range(0, size, PART_BYTES):
        part = hashlib.sha256()
        for piece in blocks(at, min(at + PART_BYTES, size)):
            part.update(piece)
        expected.append((min(PART_BYTES, size - at), base64.b64encode(part.digest()).decode()))
    assert copied.parts == expected  # each in its place
    assert copied.puts == len(expected)
    assert copied.size_bytes == size
    assert copied.peak_bytes < LIMIT_BYTES


def test_32_mib_that_turn_out_to_be_more_are_held_and_sent_below_150_mb(tmp_path: Path, measured: Measured) -> None:
    copied = copy(tmp_path, measured, 80 * MIB, query="?unannounced")
    assert sum(stored for stored, _ in copied.parts) == 80 * MIB
    assert copied.peak_bytes < LIMIT_BYTES
