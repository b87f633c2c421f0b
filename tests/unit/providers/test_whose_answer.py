"""An answer that names its task counts for no other."""

from __future__ import annotations

import pytest

from renderbell.providers import PROVIDERS, Observation, ProviderProtocolError, ProviderState, check_answers
from tests.unit.providers.answers import answer, connection

BODIES: dict[str, dict[str, object]] = {
    "jimmy": {"code": 20000, "data": {"task_id": "ID", "status": "processing"}},
    "jimmy, without an envelope": {"task_id": "ID", "status": "processing"},
    "moneyprinterturbo": {"status": 200, "data": {"task_id": "ID", "state": 4}},
    "scenext": {"status": "success", "data": {"task_id": "ID", "status": "IN_PROGRESS"}},
}


def with_id(value: object, told: object) -> object:
    """The body with the id in its place, or without one where it is None."""
    if isinstance(value, dict):
        return {key: with_id(one, told) for key, one in value.items() if not (one == "ID" and told is None)}
    return told if value == "ID" else value


def read(name: str, told: object) -> Observation:
    type_ = name.partition(",")[0]
    return PROVIDERS[type_].parse_status(connection(type_), answer(with_id(BODIES[name], told)))


@pytest.mark.parametrize("name", BODIES)
def test_an_answer_about_another_task_is_none(name: str) -> None:
    seen = read(name, "bobs-task")
    assert seen.provider_task_id == "bobs-task"
    check_answers(seen, "bobs-task")
    with pytest.raises(ProviderProtocolError, match="another task"):
        check_answers(seen, "alices-task")


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    ("told", "asked"), [(12345, "12345"), ("12345", "12345"), ("AB-cd", "ab-CD"), (" x ", "x"), (None, "x"), ("", "x")]
)
def test_an_id_may_be_a_number_in_other_letters_or_missing(name: str, told: object, asked: str) -> None:
    check_answers(read(name, told), asked)


@pytest.mark.parametrize("odd", [[], {}, {"a": 1}, ["x"], 1.5])
@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_id_names_no_task(name: str, odd: object) -> None:
    assert read(name, odd).provider_task_id is None


def test_mingyans_older_ids_may_answer_under_another() -> None:
    seen = PROVIDERS["mingyan"].parse_status(connection("mingyan"), answer({"id": "video-2", "status": "processing"}))
    check_answers(seen, "project-1")


def test_a_draft_may_answer_under_another_address() -> None:
    body = {"code": 0, "draft_url": "https://other.example/d?draft_id=1", "status": "processing"}
    seen = PROVIDERS["capcut-mate"].parse_status(connection("capcut-mate"), answer(body))
    check_answers(seen, "https://capcut.example/d?draft_id=1")


def test_two_observations_are_equal_whoever_they_are_about() -> None:
    assert Observation(ProviderState.QUEUED, provider_task_id="a") == Observation(ProviderState.QUEUED)
