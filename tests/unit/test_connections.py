"""The operator's connections, as Parameter Store holds them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as all_of

import boto3
import pytest
from aws_lambda_powertools.utilities.parameters import SSMProvider
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from renderbell.connections import MAX_AGE_S, Connections, parameters_under, parse_connection, usable_by
from renderbell.errors import ConfigurationError
from renderbell.refresh import RETRY_S, STALE_S
from tests.fakes import captured_log

STUDIO = json.dumps({"type": "jimmy", "base_url": "https://jimmy.example", "api_key": "very-secret"})


class Parameters:
    """Parameter Store: counts how often it is read, and can be out of order."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.reads = 0
        self.trouble: Exception | None = None

    def __call__(self) -> Mapping[str, str]:
        self.reads += 1
        if self.trouble is not None:
            raise self.trouble
        return dict(self.texts)


class Seconds:
    """A monotonic clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = threading.Semaphore(0)

    def __call__(self) -> float:
        self.looks.release()
        return self.now


class SlowParameters(Parameters):
    """A Parameter Store whose next read takes as long as the test wants, and 52 seconds by the clock."""

    def __init__(self, clock: Seconds, **texts: str) -> None:
        super().__init__(**texts)
        self._clock = clock
        self.slow = False
        self.asked = threading.Event()
        self.answers = threading.Event()

    def __call__(self) -> Mapping[str, str]:
        if self.slow:
            self.asked.set()
            assert self.answers.wait(10)
            self._clock.now += 52
        return super().__call__()


def test_a_connection_is_found_by_the_last_segment_of_its_path() -> None:
    connection = Connections(Parameters(studio=STUDIO), Seconds()).get("studio")
    assert connection is not None
    assert (connection.name, connection.type) == ("studio", "jimmy")
    assert connection.api_key is not None
    assert connection.api_key.get_secret_value() == "very-secret"


def test_an_unknown_connection_is_none() -> None:
    assert Connections(Parameters(studio=STUDIO), Seconds()).get("other") is None


def test_parameters_are_read_once_a_minute() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    for _ in range(3):
        connections.get("studio")
    clock.now += MAX_AGE_S - 1
    connections.get("studio")
    assert parameters.reads == 1
    parameters.texts["second"] = STUDIO
    clock.now += 1
    assert set(connections.all()) == {"studio", "second"}
    assert parameters.reads == 2


def test_a_new_name_is_looked_for_again_before_it_is_unknown_but_not_at_every_call() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    connections.get("studio")
    parameters.texts["late"] = STUDIO
    clock.now += RETRY_S - 1
    assert connections.get("late") is None
    assert parameters.reads == 1, "it was read a moment ago"
    clock.now += 1
    assert connections.known("late") is None, "who must not wait is told what is known"
    assert connections.get("late") is not None
    for _ in range(10):
        assert connections.get("nobody") is None
    assert parameters.reads == 2


def test_a_new_name_that_cannot_be_looked_for_is_unknown_and_not_asked_for_at_every_call() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    connections.get("studio")
    clock.now += RETRY_S
    parameters.trouble = RuntimeError("throttled")
    for _ in range(10):
        assert connections.get("late") is None
    assert connections.get("studio") is not None
    assert parameters.reads == 2


def test_those_who_look_for_a_new_name_together_share_one_reading() -> None:
    clock = Seconds()
    parameters = SlowParameters(clock, studio=STUDIO)
    connections = Connections(parameters, clock)
    connections.get("studio")
    clock.now += RETRY_S
    parameters.slow, parameters.texts["late"] = True, STUDIO
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(connections.get, "late") for _ in range(4)]
        assert parameters.asked.wait(10)
        parameters.answers.set()
        assert all(one.result(10) is not None for one in waiting)
    assert parameters.reads == 2


def test_the_list_is_as_it_was_five_seconds_ago_at_most() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    assert set(connections.all()) == {"studio"}
    parameters.texts["late"] = STUDIO
    clock.now += RETRY_S
    for _ in range(3):
        assert set(connections.all()) == {"studio", "late"}
    assert parameters.reads == 2


def test_an_unchanged_connection_stays_the_same_object() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    before = connections.get("studio")
    clock.now += MAX_AGE_S
    assert connections.get("studio") is before
    assert parameters.reads == 2


def test_a_removed_connection_is_gone_after_a_minute() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    connections.get("studio")
    del parameters.texts["studio"]
    clock.now += MAX_AGE_S
    assert connections.get("studio") is None


def test_a_bad_parameter_breaks_no_other_and_its_problem_shows_no_secret() -> None:
    bad = json.dumps({"type": "jimmy", "base_url": "ftp://x", "api_key": ["hunter2"], "colour": "hunter3"})
    connections = Connections(Parameters(studio=STUDIO, bad=bad, worse="{hunter4"), Seconds())
    assert set(connections.all()) == {"studio"}
    problems = connections.problems()
    assert set(problems) == {"bad", "worse"}
    assert "base_url" in problems["bad"]
    assert "colour" in problems["bad"]
    assert not [word for word in ("hunter2", "hunter3", "hunter4") if word in str(problems)]


KEY = "sk-hunter2-0123456789abcdef"
GENERIC = {"request": {"path": "/t/{task_id}"}, "state": "s", "states": {"succeeded": ["D"]}, "videos": "v"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": f"https://{KEY}@jimmy.example"},
        {"base_url": f"https://jimmy.example/?key={KEY}"},
        {"base_url": [KEY]},
        {"timezone": KEY},
        {"poll_interval_s": KEY},
        {"owners": [f"{KEY}!"]},
        {"owners": KEY},
        {"type": KEY},
        {"name": KEY},
        {"api_key": f"{KEY}\n"},
        {"api_key": {"value": KEY}},
        {"callback_secret": KEY},
        {"callback_secret": [KEY]},
        {"spec": KEY},
        {"type": "generic", "spec": {**GENERIC, "state": f"[{KEY}"}},
        {"type": "generic", "spec": {**GENERIC, "auth": {"format": f"Bearer {KEY}"}}},
        {"type": "generic", "spec": {**GENERIC, "auth": KEY}},
        {"type": "generic", "spec": {**GENERIC, "request": {"path": f"/{KEY}/../"}}},
        {"type": "generic", "spec": {**GENERIC, "request": {"path": "/{task_id}", "headers": {"X": f" {KEY}\n"}}}},
        {KEY: 1},
    ],
)
def test_a_parameter_with_a_key_in_a_wrong_place_never_shows_it(wrong: Mapping[str, object]) -> None:
    text = json.dumps({"type": "jimmy", "base_url": "https://jimmy.example", "api_key": KEY, **wrong})
    with captured_log() as lines:
        problems = Connections(Parameters(studio=text), Seconds()).problems()
    assert set(problems) == {"studio"}
    assert "hunter2" not in problems["studio"]
    assert lines
    assert "hunter2" not in json.dumps(lines)


def test_a_callback_secret_in_a_wrong_place_is_not_shown_either() -> None:
    secret = "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg=="
    told = {"type": "jimmy", "base_url": "https://jimmy.example", "callback_secret": secret, secret: 1}
    assert secret not in Connections(Parameters(studio=json.dumps(told)), Seconds()).problems()["studio"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"type": "jimmy"}', "base_url"),
        ('{"type": "sora", "base_url": "https://x.example"}', "type: must be one of"),
        ('{"name": "other", "type": "jimmy", "base_url": "https://x.example"}', "name"),
        ('{"name": "NO", "type": "jimmy", "base_url": "https://x.example"}', "name"),
        ('{"type": "jimmy", "base_url": "https://x.example", "owners": ["Not Good"]}', "owners"),
        *(
            (
                f'{{"type": "jimmy", "base_url": "https://x.example", "max_polls_per_s": {rate}}}',
                "max_polls_per_s: Input should be greater than or equal to 0.0001",
            )
            for rate in ("0", "1e-12", "0.00009")
        ),
    ],
)
def test_a_parameter_that_is_no_connection_says_why(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        parse_connection("studio", text)


def test_a_parameter_with_an_unusable_name_is_a_problem_of_its_own() -> None:
    connections = Connections(Parameters(My_Studio=STUDIO), Seconds())
    assert connections.get("My_Studio") is None
    assert set(connections.problems()) == {"My_Studio"}


def test_old_values_serve_while_parameter_store_cannot_be_read_but_not_for_ever() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    connections.get("studio")
    parameters.trouble = RuntimeError("throttled")
    clock.now += STALE_S
    assert connections.get("studio") is not None
    clock.now += 10
    with pytest.raises(ConfigurationError):
        connections.get("studio")
    parameters.trouble = None
    clock.now += RETRY_S
    assert connections.get("studio") is not None


def test_parameter_store_in_trouble_is_not_asked_at_every_call() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    connections.get("studio")
    parameters.trouble = RuntimeError("throttled")
    clock.now += MAX_AGE_S
    for _ in range(10):
        connections.get("studio")
    assert parameters.reads == 2


def test_parameter_store_that_never_answered_is_not_asked_at_every_call_either() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    connections = Connections(parameters, clock)
    parameters.trouble = RuntimeError("hangs")
    for _ in range(10):
        with pytest.raises(ConfigurationError):
            connections.get("studio")
    assert parameters.reads == 1, "each of a tick's connections would wait for as long as a call may hang"
    clock.now += RETRY_S
    parameters.trouble = None
    assert connections.get("studio") is not None


def test_a_tick_goes_on_with_the_old_values_while_they_are_read_elsewhere() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    elsewhere: list[Callable[[], None]] = []
    connections = Connections(parameters, clock, elsewhere.append)
    before = connections.get("studio")
    parameters.texts["studio"] = STUDIO.replace("jimmy.example", "moved.example")
    clock.now += MAX_AGE_S
    assert connections.get("studio") is connections.get("studio") is before
    assert (parameters.reads, len(elsewhere)) == (1, 1)
    elsewhere.pop()()
    assert connections.get("studio") is not before
    assert parameters.reads == 2


def test_freshening_has_what_is_old_read_elsewhere_and_never_waits() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()
    elsewhere: list[Callable[[], None]] = []
    connections = Connections(parameters, clock, elsewhere.append)
    connections.freshen()
    assert (parameters.reads, len(elsewhere)) == (0, 0), "the first reading is for who needs it"
    connections.get("studio")
    connections.freshen()
    assert not elsewhere
    clock.now += MAX_AGE_S
    connections.freshen()
    assert len(elsewhere) == 1
    elsewhere.pop()()
    clock.now += STALE_S + 1
    connections.freshen()
    assert (parameters.reads, len(elsewhere)) == (2, 0), "what is too old is read where it is needed"


def test_a_reading_that_cannot_be_started_is_started_later() -> None:
    parameters, clock = Parameters(studio=STUDIO), Seconds()

    def no_thread(job: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    connections = Connections(parameters, clock, no_thread)
    before = connections.get("studio")
    clock.now += MAX_AGE_S
    for _ in range(2):
        assert connections.get("studio") is before


@pytest.mark.parametrize(
    ("trouble", "word"),
    [
        (ClientError({"Error": {"Code": "ThrottlingException", "Message": "hunter2"}}, "GetParametersByPath"), "Throt"),
        (RuntimeError("hunter2"), "RuntimeError"),
    ],
)
def test_what_cannot_be_read_is_logged_by_its_kind_without_its_text(trouble: Exception, word: str) -> None:
    parameters = Parameters()
    parameters.trouble = trouble
    with captured_log() as lines, pytest.raises(ConfigurationError):
        Connections(parameters, Seconds()).get("studio")
    (line,) = lines
    assert line["error"].startswith(word)
    assert "hunter2" not in json.dumps(line)


def test_a_slow_read_is_not_repeated_by_those_who_come_after_it() -> None:
    clock = Seconds()
    parameters = SlowParameters(clock, studio=STUDIO)
    parameters.slow = True
    parameters.answers.set()
    connections = Connections(parameters, clock)
    for _ in range(3):
        assert connections.get("studio") is not None
        clock.now += 10  # 62 s since the read began
    assert parameters.reads == 1


@pytest.mark.parametrize("trouble", [None, RuntimeError("throttled")])
def test_while_one_thread_reads_again_the_others_get_the_old_values_at_once(trouble: Exception | None) -> None:
    clock = Seconds()
    parameters = SlowParameters(clock, studio=STUDIO)
    connections = Connections(parameters, clock)
    before = connections.get("studio")
    clock.now += MAX_AGE_S
    parameters.slow, parameters.trouble = True, trouble
    with ThreadPoolExecutor(5) as threads:
        reading = threads.submit(connections.get, "studio")
        assert parameters.asked.wait(10)
        try:
            others = [threads.submit(connections.get, "studio") for _ in range(4)]
            assert [one.result(5) for one in others] == [before] * 4
        finally:
            parameters.answers.set()
        assert reading.result(10) == before
    assert connections.get("studio") == before
    assert parameters.reads == 2


@pytest.mark.parametrize("trouble", [None, RuntimeError("throttled")])
def test_those_who_wait_for_the_very_first_read_share_what_it_brings(trouble: Exception | None) -> None:
    clock = Seconds()
    parameters = SlowParameters(clock, studio=STUDIO)
    parameters.slow, parameters.trouble = True, trouble
    connections = Connections(parameters, clock)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(connections.get, "studio")]
        assert parameters.asked.wait(10)
        waiting += [threads.submit(connections.get, "studio") for _ in range(3)]
        for _ in range(5):  # each has looked at the clock and found nothing to go on; the reader looked once more
            assert clock.looks.acquire(timeout=10)
        parameters.answers.set()
        all_of(waiting, timeout=10)
    for one in waiting:
        if trouble is None:
            assert one.result() is not None
        else:
            with pytest.raises(ConfigurationError, match="connections cannot be read"):
                one.result()
    assert parameters.reads == 1


def test_values_that_are_too_old_serve_nobody_while_they_are_read_again() -> None:
    clock = Seconds()
    parameters = SlowParameters(clock, studio=STUDIO)
    connections = Connections(parameters, clock)
    connections.get("studio")
    clock.now += STALE_S + 1
    parameters.slow = True
    del parameters.texts["studio"]
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(connections.get, "studio") for _ in range(2)]
        assert parameters.asked.wait(10)
        parameters.answers.set()
        assert [one.result(10) for one in waiting] == [None, None]


def test_without_any_value_trouble_is_raised() -> None:
    parameters = Parameters()
    parameters.trouble = RuntimeError("no way")
    with pytest.raises(ConfigurationError, match="connections cannot be read"):
        Connections(parameters, Seconds()).get("studio")


@pytest.mark.parametrize(
    ("owners", "usable"), [(["default"], False), (["team-a", "team-b"], True), (["*"], True), ([], False)]
)
def test_only_listed_owners_use_a_connection(owners: list[str], usable: bool) -> None:
    text = json.dumps({"type": "jimmy", "base_url": "https://jimmy.example", "owners": owners})
    assert usable_by(parse_connection("studio", text), "team-b") is usable


def test_a_connection_belongs_to_the_default_owner_unless_it_says_more() -> None:
    connection = parse_connection("studio", STUDIO)
    assert usable_by(connection, "default")
    assert not usable_by(connection, "team-b")


def test_all_pages_of_parameters_are_read_and_decrypted() -> None:
    client = boto3.client("ssm", region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test")
    asked = {"Path": "/rb/connections", "WithDecryption": True, "Recursive": False}
    with Stubber(client) as stub:
        first = {"Parameters": [{"Name": "/rb/connections/studio", "Value": "one"}], "NextToken": "more"}
        stub.add_response("get_parameters_by_path", first, asked)
        second = {"Parameters": [{"Name": "/rb/connections/other", "Value": "two"}]}
        stub.add_response("get_parameters_by_path", second, {**asked, "NextToken": "more"})
        found = parameters_under(lambda: SSMProvider(boto3_client=client), "/rb/connections")()
    assert found == {"studio": "one", "other": "two"}
