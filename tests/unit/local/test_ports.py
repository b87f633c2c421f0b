"""Ports that are free, and found again."""

import json
from pathlib import Path

import pytest

from local.ports import PortBook, free_port, is_free, listen


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with listen() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port([port]) != port
    assert is_free(port)


def test_a_port_is_remembered_across_restarts(tmp_path: Path) -> None:
    wanted = free_port()
    first = PortBook(tmp_path / "ports.json").port("receiver", wanted)
    assert PortBook(tmp_path / "ports.json").port("receiver", 1) == first == wanted


def test_a_remembered_port_that_is_taken_gives_way_to_another_and_that_is_remembered(tmp_path: Path) -> None:
    book = tmp_path / "ports.json"
    with listen() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        book.write_text(json.dumps({"emulator": port}))
        other = PortBook(book).port("emulator", port)
    assert other != port
    assert json.loads(book.read_text()) == {"emulator": other}


def test_two_names_never_share_a_port(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json")
    first = free_port()
    assert book.port("jimmy", first) != book.port("scenext", first)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"emulator": "x"}', '{"emulator": 99999999}'])
def test_a_broken_book_is_begun_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert 0 < PortBook(tmp_path / "ports.json").port("emulator", 4566) < 65536
