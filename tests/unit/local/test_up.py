"""Stopping by signals, and one stack at a time."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import requests
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from local.ports import listen
from local.serving import LoopbackServer
from local.signals import StoppedError, stopped_by_signals
from local.up import AlreadyUpError, only_one


def test_a_second_one_is_refused_with_the_firsts_id(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    with only_one(lock):
        assert lock.read_text().strip() == str(os.getpid())
        with pytest.raises(AlreadyUpError, match=f"pid {os.getpid()}"), only_one(lock):
            pass
    with only_one(lock):
        pass


def test_a_lock_of_a_killed_run_does_not_hold(tmp_path: Path) -> None:
    lock = tmp_path / "up.lock"
    lock.write_text("999999\n")
    with only_one(lock):
        assert lock.read_text().strip() == str(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_and_the_next_does_not_disturb_the_end(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended = False

    def work() -> None:
        nonlocal ended
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            ended = True

    with pytest.raises(StoppedError, match=number.name), stopped_by_signals():
        work()
    assert ended
    assert signal.getsignal(number) == before


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"port {scope['server'][1]} {Request(scope).method}")(scope, receive, send)


def test_one_application_answers_on_several_ports_over_kept_connections() -> None:
    with LoopbackServer(hello, (0, 0)) as server, requests.Session() as http:
        for port in server.ports:
            answers = [http.get(f"http://127.0.0.1:{port}/", timeout=10) for _ in range(2)]
            assert [answer.text for answer in answers] == [f"port {port} GET"] * 2
            assert "close" not in answers[0].headers.get("connection", "")


def test_a_taken_port_is_an_error_and_leaves_nothing_bound() -> None:
    with listen() as taken, listen() as probe:
        taken.listen()
        free = int(probe.getsockname()[1])
        probe.close()
        with pytest.raises(OSError, match="in use"):
            LoopbackServer(hello, (free, taken.getsockname()[1])).start()
        listen(free).close()


def test_a_client_that_stays_silent_does_not_hold_the_stop() -> None:
    server = LoopbackServer(hello).start()
    with socket.create_connection(("127.0.0.1", server.ports[0])) as silent:
        silent.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 5
    server.stop()
