"""A copy from a provider's link to S3, against `curl` piped into `aws s3 cp -`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import sys
import time
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from local.stack import build
from tests.benchmarks.machine import ROOT, run, serving
from tests.benchmarks.report import Bar, Plot, Section
from tests.integration.big_file import MIB, blocks
from tests.integration.test_memory_of_a_copy import UNBROKEN
from tests.unit.tls_files import make_tls_files

SIZES = {"10 MB": (10_000_000, 5, 0.95), "100 MB": (100_000_000, 3, 0.95), "1 GB": (1_000_000_000, 3, 1.0)}
HEAD_BYTES = 64  # the least that is a video by its look
FLAT_BYTES = 48 * MIB  # by how much more the largest may take than the smallest: what is put at once, and two parts


class _Site:
    """A source, an S3, and the environment in which both sides find them."""

    def __init__(self, directory: Path, source_port: int, s3_port: int) -> None:
        tls = directory / "ca.pem"
        (directory / "config").write_text("[default]\ns3 =\n  addressing_style = path\n")
        self._source = f"http://127.0.0.1:{source_port}"
        self._s3 = f"https://localhost:{s3_port}"
        self._trust = ssl.create_default_context(cafile=str(tls))
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PYTHONPATH": f"{build().parent / 'CoreLayer' / 'python'}:{ROOT}",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(directory / "config"),
            "AWS_CA_BUNDLE": str(tls),
            "AWS_ENDPOINT_URL_S3": self._s3,
            "TABLE_NAME": "table",
            "BUCKET_NAME": "videos",
            "CONNECTIONS_PATH": "/stack/connections",
            "MASTER_SECRET_ID": "master",
            "MAX_VIDEO_BYTES": "5368709120",
            "POWERTOOLS_SERVICE_NAME": "notifier",
        }

    def _url(self, size: int) -> str:
        return f"{self._source}/{size}/{UNBROKEN}/v.mp4"

    def ours(self, size: int) -> tuple[float, int]:
        """Seconds in a process that runs already, and its peak of resident memory in bytes."""
        told = run(
            [sys.executable, "-S", "-m", "tests.integration.big_copy", self._url(size)], env=self._environment
        ).told
        self._check(size)
        return told["seconds"], told["peak_bytes"]

    def theirs(self, size: int) -> float:
        """Seconds from the pipe's start to its end."""
        aws = Path(sys.executable).with_name("aws")
        pipe = f"set -o pipefail; curl -sSf '{self._url(size)}' | '{aws}' s3 cp - s3://videos/theirs.mp4"
        began = time.monotonic()
        run(["bash", "-c", pipe], env={**self._environment, "PYTHONPATH": ""})
        took = time.monotonic() - began
        self._check(size)
        return took

    def _check(self, size: int) -> None:
        """Whether S3 holds the source's bytes, part by part."""
        with urlopen(f"{self._s3}/parts", context=self._trust, timeout=30) as answer:
            parts = json.load(answer)
        at = 0
        for _, length, told in parts:
            digest = hashlib.sha256()
            for piece in blocks(at, at + length):
                digest.update(piece)
            if digest.hexdigest() != told:
                raise AssertionError("S3 holds something else than the source")
            at += length
        if at != size:
            raise AssertionError(f"S3 holds {at} of {size} bytes")


def measure(directory: Path) -> Section:
    """Both in turn; the medians count."""
    if shutil.which("curl") is None:
        raise RuntimeError("curl is not installed")
    make_tls_files(directory, "localhost")
    rows, bars, met = [], [], True
    peaks: dict[str, int] = {}
    with (
        serving("tests.integration.big_file", "source") as source,
        serving("tests.benchmarks.s3", str(directory)) as s3,
    ):
        site = _Site(directory, source, s3)
        start_s = median(site.theirs(HEAD_BYTES) for _ in range(3))
        for name, (size, rounds, target) in SIZES.items():
            found = [(site.ours(size), site.theirs(size)) for _ in range(rounds)]
            ours_s = median(ours for (ours, _), _ in found)
            piped_s = median(theirs for _, theirs in found)
            peaks[name] = max(peak for (_, peak), _ in found)
            ratio = piped_s / ours_s
            met = met and ratio >= target
            bars += [Bar(f"{name}, Renderbell", size / ours_s / 1e6), Bar(f"{name}, curl | aws", size / piped_s / 1e6)]
            rows.append(
                [
                    name,
                    f"{ours_s:.2f}",
                    f"{size / ours_s / 1e6:.0f}",
                    f"{piped_s:.2f}",
                    f"{size / piped_s / 1e6:.0f}",
                    f"{ratio:.2f}",
                    f"{target:g}",
                    f"{(piped_s - start_s) / ours_s:.2f}" if piped_s > 1.5 * start_s else "-",
                    f"{peaks[name] / 1e6:.0f}",
                ]
            )
    flat = max(peaks.values()) - min(peaks.values()) <= FLAT_BYTES
    head = [
        "size",
        "ours, s",
        "ours, MB/s",
        "pipe, s",
        "pipe, MB/s",
        "ratio",
        "target",
        "without its start",
        "our peak, MB",
    ]
    return Section(
        title="Copying",
        target=(
            "at least 0.95 times the throughput of `curl | aws s3 cp -` at 10 MB, at least as much at 1 GB, and a "
            "flat peak "
            "of memory"
        ),
        verdict=", ".join(f"{row[0]} {row[5]} times" for row in rows) + f", peaks {'flat' if flat else 'not flat'}",
        met=met and flat,
        head=head,
        rows=rows,
        notes=[
            f"The pipe needs {start_s:.2f} s for {HEAD_BYTES} bytes, which is its start; the ratio without that is "
            "shown "
            "where it can be told. Ours runs in a process that is there, as in a warm function, from the layer as it "
            "is built; "
            "it also vets the address, looks at what the file is, and sends SHA-256. Source and S3 are processes on "
            "the "
            "same machine, S3 over TLS; what each side has put there was compared with the source part by part."
        ],
        plot=Plot("copies", "MB per second", "", bars=bars),
    )
