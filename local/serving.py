"""Runs an ASGI application on loopback ports, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from local.ports import HOST, listen

START_LIMIT_S = 10.0


class LoopbackServer:
    """One application behind one or several ports; a port of 0 means any free one.

    The application learns from `scope["server"]` which port was asked.
    """

    def __init__(self, app: ASGIApp, ports: Sequence[int] = (0,)) -> None:
        self._app = app
        self._wanted = tuple(ports)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.ports: tuple[int, ...] = ()

    @property
    def url(self) -> str:
        """The address of the first port, without a slash at its end."""
        return f"http://{HOST}:{self.ports[0]}"

    def start(self) -> Self:
        """Binds the ports, serves, and returns once requests are answered; raises `OSError` where a port is taken."""
        sockets = []
        try:
            for port in self._wanted:
                sockets.append(listen(port))
        except OSError:
            for bound in sockets:
                bound.close()
            raise
        self.ports = tuple(int(bound.getsockname()[1]) for bound in sockets)
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            log_level="error",
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), name="loopback-server", daemon=True)
        self._thread.start()
        limit = time.monotonic() + START_LIMIT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > limit:
                self.stop()
                raise RuntimeError(f"the server on ports {self.ports} did not start")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Stops serving and frees the ports; answers still on their way are cut after a second."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        server.should_exit = True
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
