"""Copies a video as the deployed notifier does, and tells what it took: `python -m tests.integration.big_copy URL…`.

The notifier is wired by `bootstrap` from the environment alone. Each URL is one try at the same file, all but the last
of which are to fail. The answer is one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time

from renderbell import bootstrap
from renderbell.dial import tls_context
from renderbell.errors import CopyError
from renderbell.providers.base import Connection
from renderbell.task import FileKind, Source, Upload


def memory_bytes(name: str) -> int:
    """`VmHWM`, the peak of resident memory, or `VmRSS`, the present one; ru_maxrss would count the parent's too."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024


def main(*urls: str) -> None:
    """Makes the tries and prints the figures."""
    archive = bootstrap.notifier().notifier.archive
    tls_context()  # a source of https needs it; this one is plain, being no name that a public authority vouches for
    base_bytes = memory_bytes("VmRSS")
    connection = Connection(name="studio", type="jimmy", base_url=urls[0][: urls[0].index("/", 8)])
    upload: Upload | None = None

    def remember(told: Upload | None) -> None:
        nonlocal upload
        upload = told

    started = time.monotonic()
    for attempt, url in enumerate(urls, 1):
        try:
            stored = archive.store(
                prefix="default/t1",
                n=1,
                source=Source(FileKind.VIDEO, url),
                connection=connection,
                upload=upload,
                checkpoint=remember,
                seconds_left=lambda: 300.0 - (time.monotonic() - started),
            )
        except CopyError:
            if attempt == len(urls):
                raise
        else:
            assert attempt == len(urls), "it was to fail"
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - started,
                "base_bytes": base_bytes,
                "peak_bytes": memory_bytes("VmHWM"),
                "size_bytes": stored.size_bytes,
                "sha256": stored.sha256,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
