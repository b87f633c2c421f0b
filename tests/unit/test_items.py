"""How things are written down: what is long is written once, and all of it is read again."""

from __future__ import annotations

from dataclasses import replace

from renderbell.items import file_attributes, task_attributes, task_from
from renderbell.task import FileKind, Source, Status, StoredFile, Task
from tests.unit.test_task import a_task

LINKS = ("https://cdn.example.com/1.mp4?signature=" + "s" * 500, "https://cdn.example.com/2.mp4?signature=" + "s" * 500)


def a_file(n: int, source_url: str) -> StoredFile:
    return StoredFile(n, FileKind.VIDEO, "bucket", f"default/tsk/{n}.mp4", 1000, "ab" * 32, "video/mp4", source_url)


def completed(*files: StoredFile) -> Task:
    sources = tuple(Source(FileKind.VIDEO, link) for link in LINKS)
    return replace(a_task(), status=Status.COMPLETED, slot=3, sources=sources, files=files)


def test_a_file_s_link_is_written_once_and_read_again() -> None:
    task = completed(a_file(1, LINKS[0]), a_file(2, LINKS[1]))
    written = task_attributes(task)
    assert str(written).count("s" * 500) == 2
    assert task_from(task.task_id, written).files == task.files


def test_a_file_from_another_link_than_its_place_s_keeps_it() -> None:
    task = completed(a_file(1, LINKS[1]), a_file(3, LINKS[0]))
    assert task_from(task.task_id, task_attributes(task)).files == task.files


def test_a_file_that_was_written_with_its_link_is_read() -> None:
    task = completed(a_file(1, LINKS[0]))
    written = task_attributes(task) | {"files": [file_attributes(file) for file in task.files]}
    assert task_from(task.task_id, written).files == task.files
