"""Ports on loopback, and where a running stack remembers its own."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path

HOST = "127.0.0.1"


def listen(port: int = 0) -> socket.socket:
    """A bound socket on loopback; 0 means any free port. Raises `OSError` where the port is taken."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except OSError:
        bound.close()
        raise
    return bound


def is_free(port: int) -> bool:
    """Whether nobody listens on the port at this moment."""
    try:
        listen(port).close()
    except OSError:
        return False
    return True


def free_port(wanted: Iterable[int] = (), taken: Iterable[int] = ()) -> int:
    """The first of the wanted ports that is free and not in `taken`, else any free one."""
    avoid = set(taken)
    for port in wanted:
        if port not in avoid and is_free(port):
            return port
    while True:
        with listen() as bound:
            port = int(bound.getsockname()[1])
        if port not in avoid:
            return port


class PortBook:
    """Ports by name, kept in a JSON file, so that a restarted stack is found where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports: dict[str, int] = self._read()

    def port(self, name: str, first: int) -> int:
        """The port remembered for the name if it is still free; else a free one from `first` upwards, remembered."""
        others = {port for other, port in self._ports.items() if other != name}
        known = self._ports.get(name)
        wanted = [*([known] if known else []), *range(first, first + 50)]
        self._ports[name] = free_port(wanted, others)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._ports, indent=2) + "\n")
        return self._ports[name]

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {str(name): port for name, port in found.items() if isinstance(port, int) and 0 < port < 65536}
