"""A connection: what an operator may write, and what is sent for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from renderbell.errors import ConfigurationError
from renderbell.providers import PROVIDERS, Connection, HttpRequest, Provider, poll_schedule_for
from tests.unit.providers.answers import GENERIC_SPEC, KEY, connection

IDS = ["plain-1", "a/b", "../x", "%2e%2e", "a?b=c&d#e", "ü 视频", "x" * 200, "https://h/?draft_id=1", "a+b;c=d@e:f"]


def test_the_six_types_are_there_and_cannot_be_changed() -> None:
    assert set(PROVIDERS) == {"capcut-mate", "scenext", "jimmy", "moneyprinterturbo", "mingyan", "generic"}
    assert all(provider.type == name for name, provider in PROVIDERS.items())
    change: Callable[[str, Provider], None] | None = getattr(PROVIDERS, "__setitem__", None)
    assert change is None


@pytest.mark.parametrize("type_", PROVIDERS)
@pytest.mark.parametrize("task_id", IDS)
def test_a_task_id_stays_one_encoded_segment_and_the_key_stays_out_of_the_url(type_: str, task_id: str) -> None:
    request = PROVIDERS[type_].status_request(connection(type_), task_id)
    known = PROVIDERS[type_].status_request(connection(type_), "KNOWN")
    assert request.url.isascii()
    assert request.url.count("/") == known.url.count("/")
    assert not {"?", "#", " "} & set(request.url)
    assert KEY not in request.url
    assert KEY not in str(request.json)
    assert request.headers["Accept"] == "application/json"


def keys_sent(request: HttpRequest) -> list[str]:
    return [name for name, value in request.headers.items() if KEY in value]


def test_the_key_is_sent_where_the_provider_wants_it_and_only_if_there_is_one() -> None:
    wanted = {
        "capcut-mate": [],
        "scenext": ["Authorization"],
        "jimmy": ["Authorization"],
        "moneyprinterturbo": ["x-api-key"],
        "mingyan": ["Authorization"],
        "generic": ["Authorization"],
    }
    for type_, names in wanted.items():
        assert keys_sent(PROVIDERS[type_].status_request(connection(type_), "t")) == names
        for none in (None, ""):
            request = PROVIDERS[type_].status_request(connection(type_, api_key=none), "t")
            assert not {"Authorization", "x-api-key"} & set(request.headers)


@pytest.mark.parametrize("key", ["a\nb", "a\r\nHost: x", "\ta", " a", "a ", "ключ", "a\x00b", "\n"])
def test_a_key_that_does_not_fit_a_header_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        connection("jimmy", api_key=key)
    assert "printable ASCII" in str(caught.value)


def test_no_message_about_a_bad_connection_shows_its_key() -> None:
    for fields in (
        {"base_url": 7},
        {"unknown": 1},
        {"type": "generic", "spec": None},
        {"timezone": "Mars"},
        {"name": "A"},
    ):
        with pytest.raises(ValidationError) as caught:
            connection("jimmy", **fields)
        assert KEY not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        Connection.model_validate({"name": "x", "type": "jimmy", "api_key": KEY})
    assert KEY not in str(caught.value)
    assert KEY not in repr(connection("jimmy"))


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC", "+08:00", "-03:30", "+00:00", "+14:00"])
def test_a_zone_is_an_iana_name_or_an_offset(zone: str) -> None:
    assert connection("capcut-mate", timezone=zone).timezone == zone


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Olympus",
        "+8",
        "+25:00",
        "+08:60",
        "08:00",
        "/etc/localtime",
        "../UTC",
        "America",
        "a\x00b",
        "x" * 5000,
    ],
)
def test_every_other_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="time zone"):
        connection("capcut-mate", timezone=zone)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://h",
        "https://",
        "https://h/ x",
        "https://h/\nx",
        "https://u:p@h",
        "https://h?x",
        "https://h#x",
        "https://h:x",
        "h",
        "https:\\\\h",
    ],
)
def test_a_base_url_is_a_plain_http_address(url: str) -> None:
    with pytest.raises(ValidationError):
        connection("jimmy", base_url=url)


def test_a_generic_connection_needs_a_spec_and_no_other_has_one() -> None:
    with pytest.raises(ValidationError, match="needs a spec"):
        connection("generic", spec=None)
    with pytest.raises(ValidationError, match="only a connection of type generic"):
        connection("jimmy", spec=GENERIC_SPEC)


def test_a_connection_is_read_from_the_json_that_is_stored() -> None:
    stored = '{"name": "mpt", "type": "moneyprinterturbo", "base_url": "http://10.0.0.5:8080/", "poll_interval_s": 2}'
    account = Connection.model_validate_json(stored)
    assert account.base_url == "http://10.0.0.5:8080"
    assert poll_schedule_for(account).interval_s == 2


@pytest.mark.parametrize(
    ("type_", "interval_s"),
    [("capcut-mate", 10), ("scenext", 30), ("jimmy", 10), ("moneyprinterturbo", 5), ("mingyan", 30), ("generic", 10)],
)
def test_a_type_has_its_own_interval(type_: str, interval_s: float) -> None:
    assert poll_schedule_for(connection(type_)).interval_s == interval_s


def test_the_connections_interval_goes_before_the_specs_before_the_types() -> None:
    spec = GENERIC_SPEC | {"poll_interval_s": 20}
    assert poll_schedule_for(connection("generic", spec=spec)).interval_s == 20
    assert poll_schedule_for(connection("generic", spec=spec, poll_interval_s=7)).interval_s == 7


seconds = st.one_of(st.none(), st.floats(1, 3600), st.sampled_from([1, 2, 5, 10, 20, 30, 60, 3600]))


@pytest.mark.parametrize("type_", PROVIDERS)
@given(seconds, seconds, seconds, seconds)
def test_whatever_intervals_a_connection_may_have_there_is_a_schedule_within_them(
    type_: str, interval_s: float | None, least_s: float | None, most_s: float | None, spec_s: float | None
) -> None:
    """A spec's interval of 10 s below a `poll_least_s` of 20 raised, and with it ended every tick of the poller."""
    fields = {"poll_interval_s": interval_s, "poll_least_s": least_s, "poll_most_s": most_s}
    spec = {"spec": GENERIC_SPEC | {"poll_interval_s": spec_s}} if type_ == "generic" else {}
    try:
        account = connection(type_, **fields, **spec)
    except ValidationError:
        given_s = [one for one in (least_s, interval_s, most_s) if one is not None]
        assert given_s != sorted(given_s)
        return
    schedule = poll_schedule_for(account)
    step_s, points = schedule.grid()
    assert (least_s or 1) <= step_s * 1.000001
    assert step_s <= schedule.interval_s <= step_s * points <= (most_s or 3600) * 1.000001
    assert interval_s is None or schedule.interval_s == interval_s


def test_an_unknown_type_has_no_interval() -> None:
    with pytest.raises(ConfigurationError, match="no provider of type"):
        poll_schedule_for(connection("betamax"))
