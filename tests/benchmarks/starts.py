"""How long each function takes to import and to make its clients, from the build as it is deployed.

    PYTHONPATH= python -I -S starts.py FUNCTION_DIRECTORY LAYER_DIRECTORY     one start, in a process of its own

Such a process sees the standard library and the build alone, as in AWS Lambda.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

BASE = "boto3 and one client"
FUNCTIONS = ("ApiFunction", "AuthorizerFunction", "PollerFunction", "NotifierFunction")
TARGETS = {"ApiFunction": 2.0, "PollerFunction": 1.6, "NotifierFunction": 1.6}
BYTECODE = 0.5  # of the same build without
ROUNDS = 7


def start(*directories: str) -> dict[str, object]:
    """Imports a function's handler, or without one boto3 and a client: seconds of wall clock, and what was compiled."""
    from importlib.machinery import SourceFileLoader

    compiled: list[str] = []
    compile_source = SourceFileLoader.source_to_code

    def noting(self, data, path, *, _optimize=-1):  # type: ignore[no-untyped-def]
        if str(path).startswith(directories):  # the interpreter's own modules are AWS's
            compiled.append(str(path))
        return compile_source(self, data, path, _optimize=_optimize)

    SourceFileLoader.source_to_code = noting  # type: ignore[method-assign]
    sys.path[:0] = directories
    began = time.perf_counter()
    if len(directories) == 1:
        import boto3

        boto3.client("dynamodb")
    else:
        import app  # type: ignore[import-not-found] # noqa: F401
    return {"seconds": time.perf_counter() - began, "compiled": compiled}


def started(build: Path, function: str) -> dict[str, object]:
    """One start of a function, or of the base, in a process of its own; `build` is what `sam build` has made."""
    import subprocess

    from tests.environment import ENVIRONMENT

    directories = [str(build / "CoreLayer" / "python")]
    if function != BASE:
        directories.insert(0, str(build / function))
    command = [sys.executable, "-I", "-S", "-B", __file__, *directories]
    done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    told: dict[str, object] = json.loads(done.stdout)
    return told


def without_bytecode(build: Path, directory: Path) -> Path:
    """A copy of a build as `sam build` alone leaves it."""
    copied = directory / "without-bytecode"
    shutil.copytree(build, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def measure(directory: Path):  # type: ignore[no-untyped-def]
    """The fastest start counts: whatever else the machine does can only add."""
    from local.stack import build
    from tests.benchmarks.report import Bar, Plot, Section

    shipped = build().parent
    bare = without_bytecode(shipped, directory)
    best: dict[tuple[str, str], float] = {}
    compiled = 0
    for _ in range(ROUNDS):
        for name in (BASE, *FUNCTIONS):
            for label, where in (("shipped", shipped), ("bare", bare)):
                told = started(where, name)
                seconds = float(str(told["seconds"]))
                best[name, label] = min(seconds, best.get((name, label), seconds))
                if label == "shipped":
                    compiled += len(told["compiled"])  # type: ignore[arg-type]
    if compiled:
        raise AssertionError("what is shipped is compiled at its start")
    base = best[BASE, "shipped"]
    rows, met = [], True
    for name in (BASE, *FUNCTIONS):
        mine, bytes_less = best[name, "shipped"], best[name, "bare"]
        ratio, target = mine / base, TARGETS.get(name)
        good = (target is None or ratio <= target) and (name == BASE or mine / bytes_less <= BYTECODE)
        met = met and good
        wanted = "" if target is None else f"≤ {target:g}"
        rows.append(
            [name, f"{1000 * mine:.0f}", f"{ratio:.2f}", wanted, f"{1000 * bytes_less:.0f}", f"{mine / bytes_less:.2f}"]
        )
    return Section(
        title="Cold starts",
        target=(
            "importing and making clients takes the poller and the notifier at most 1.6 times, the API at most 2 times "
            "what `import boto3` and one client take, and at most half of what it takes without bytecode"
        ),
        verdict=", ".join(
            f"{name.removesuffix('Function').lower()} {best[name, 'shipped'] / base:.2f}" for name in TARGETS
        ),
        met=met,
        head=["start", "ms", "against boto3", "target", "without bytecode, ms", "with / without"],
        rows=rows,
        notes=[
            "From the build that `make build` makes, in fresh processes that see nothing else; the fastest of "
            f"{ROUNDS}. No module of it was compiled at its start."
        ],
        plot=Plot(
            "starts",
            "milliseconds",
            "",
            bars=[Bar(name.removesuffix("Function"), 1000 * best[name, "shipped"]) for name in (BASE, *FUNCTIONS)],
        ),
    )


if __name__ == "__main__":
    print(json.dumps(start(*sys.argv[1:])))
