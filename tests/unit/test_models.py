"""Wire shapes are built when they are first used, by whichever thread that is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from pydantic import ConfigDict, ValidationError

from renderbell.models import Model

THREADS = 8
ROUNDS = 100


class Inner(Model):
    """A part of a shape."""

    size: int


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns very often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_shape_is_built_at_its_first_use() -> None:
    class Shape(Model):
        inner: Inner

    assert not Shape.__pydantic_complete__
    assert Shape.model_validate({"inner": {"size": 1}}).inner.size == 1
    assert Shape.__pydantic_complete__


def test_threads_that_use_a_shape_for_the_first_time_at_once_all_get_it_right(hasty: None) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(ROUNDS):

            class Part(Model):
                model_config = ConfigDict(extra="forbid")

                size: int = 1
                name: str = ""

            class Shape(Model):
                model_config = ConfigDict(extra="forbid")

                name: str
                part: Part
                inner: Inner

            begin = Barrier(THREADS)

            def use(number: int, shape: type[Model] = Shape, part: type[Model] = Part, begin: Barrier = begin) -> str:
                begin.wait()
                if number % 2:
                    return part.model_validate({"size": 3, "name": "b"}).model_dump_json()
                with pytest.raises(ValidationError):
                    shape.model_validate({"name": "a", "part": {}, "inner": {"size": 2}, "more": 1})
                return shape.model_validate({"name": "a", "part": {}, "inner": {"size": 2}}).model_dump_json()

            right = ['{"name":"a","part":{"size":1,"name":""},"inner":{"size":2}}', '{"size":3,"name":"b"}']
            assert list(threads.map(use, range(THREADS))) == right * (THREADS // 2)
