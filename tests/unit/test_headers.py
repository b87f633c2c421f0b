"""Answers' headers are read as the standard library reads them."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from renderbell.dial import _read_headers

NAMES = st.sampled_from([b"Content-Length", b"content-type", b"X-A", b"Date", b"x_y.z", b"", b"a b", b"caf\xc3\xa9"])
VALUES = st.one_of(
    st.sampled_from(
        [b"12", b' text/html; a="b: c"', b"\t x \t", b"", b"\xe4\xb8\xad", b"a\x00b", b"a\rb", b"=?utf-8?q?a?="]
    ),
    st.binary(max_size=8).filter(lambda value: b"\n" not in value),
)
SEPARATORS = st.sampled_from([b": ", b":", b" : ", b"", b":\t"])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])
LINES = st.one_of(
    st.tuples(NAMES, SEPARATORS, VALUES, ENDS).map(b"".join),
    st.tuples(st.sampled_from([b" ", b"\t"]), VALUES, ENDS).map(b"".join),  # goes on with the line before
)


@given(st.lists(LINES, max_size=8), st.sampled_from([b"\r\n", b"\n", b""]))
@example([b"Content-Length: 5\r\n", b" 6\r\n"], b"\r\n")
@example([b"X-A: \t x \t\r\n"], b"\r\n")
@example([b"X-A: b\r\n", b"no colon\r\n", b"Content-Length: 5\r\n"], b"\r\n")
def test_any_lines_mean_what_they_mean_to_the_standard_library(lines: list[bytes], end: bytes) -> None:
    said = b"".join([*lines, end])
    ours, theirs = io.BytesIO(said + b"body"), io.BytesIO(said + b"body")
    found, expected = _read_headers(ours), http.client.parse_headers(theirs)
    assert [(name, str(value)) for name, value in found.items()] == [
        (name, str(value)) for name, value in expected.items()
    ]
    assert [type(defect) for defect in found.defects] == [type(defect) for defect in expected.defects]
    assert ours.tell() == theirs.tell()


@pytest.mark.parametrize("said", [b"X: " + b"a" * 70_000 + b"\r\n", b"X: y\r\n" * 101])
def test_a_line_or_a_number_of_lines_beyond_all_measure_is_an_error(said: bytes) -> None:
    with pytest.raises(http.client.HTTPException):
        _read_headers(io.BytesIO(said + b"\r\n"))
