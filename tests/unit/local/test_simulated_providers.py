"""The simulated providers, asked and read by the real provider code."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
import requests
from pydantic import ValidationError

from local.providers.lifecycle import ProviderType, Trouble
from local.providers.server import Simulators
from renderbell.providers import (
    PROVIDERS,
    Connection,
    DeletingProvider,
    HttpResponse,
    Listed,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderTaskNotFound,
    ProviderUnavailable,
    lister_of,
)
from tests.unit.local.simulated import START, FakeClock, ask, connection, poll

ALL = [kind.value for kind in ProviderType]


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize("provider", ALL)
def test_a_task_goes_from_the_queue_through_processing_to_its_video(
    simulators: Simulators, clock: FakeClock, provider: str, version: str
) -> None:
    of = connection(simulators, provider)
    task_id = simulators.create(provider, seconds=100, version=version)
    states = []
    progress = []
    for second in (0, 20, 40, 60, 80, 99):
        clock.at(second)
        seen = poll(of, task_id)
        assert seen.videos == ()
        states.append(seen.state.value)
        progress.append(seen.progress or 0)
    assert set(states) <= {"queued", "processing"}
    assert states[-1] == "processing"
    assert progress == sorted(progress)
    clock.at(101)
    done = poll(of, task_id)
    assert done.state == "succeeded"
    assert len(done.videos) == 1
    assert requests.get(done.videos[0], timeout=10).content == b"".join(simulators.file(provider, task_id).chunks())


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize("provider", ALL)
def test_a_failure_comes_with_its_reason_where_the_provider_gives_one(
    simulators: Simulators, clock: FakeClock, provider: str, version: str
) -> None:
    task_id = simulators.create(provider, seconds=5, outcome="fail", error="the prompt is too dull", version=version)
    clock.at(5)
    seen = poll(connection(simulators, provider), task_id)
    assert seen.state == "failed"
    silent = provider == "moneyprinterturbo" and version == "old"
    assert seen.error == (None if silent else "the prompt is too dull")


@pytest.mark.parametrize(
    ("provider", "error"),
    [
        ("capcut-mate", ProviderTaskNotFound),
        ("scenext", ProviderUnavailable),  # it says the same of a fault of its own
        ("jimmy", ProviderError),
        ("moneyprinterturbo", ProviderTaskNotFound),
        ("mingyan", ProviderTaskNotFound),
    ],
)
def test_a_lost_task_and_an_unknown_one_are_answered_alike(
    simulators: Simulators, clock: FakeClock, provider: str, error: type[ProviderError]
) -> None:
    of = connection(simulators, provider)
    lost = simulators.create(provider, seconds=10, outcome="lose")
    assert poll(of, lost).state in {"queued", "processing"}
    clock.at(10)
    unknown = lost.replace(lost[-6:], "nobody")
    for task_id in (lost, unknown):
        with pytest.raises(error):
            poll(of, task_id)


@pytest.mark.parametrize("provider", ALL)
def test_a_success_without_a_file_has_no_links(simulators: Simulators, clock: FakeClock, provider: str) -> None:
    task_id = simulators.create(provider, seconds=1, outcome="no_video")
    clock.at(2)
    seen = poll(connection(simulators, provider), task_id)
    assert (seen.state, seen.videos) == ("succeeded", ())


@pytest.mark.parametrize("provider", ["scenext", "jimmy", "mingyan"])
def test_a_wrong_key_is_refused(simulators: Simulators, provider: str) -> None:
    task_id = simulators.create(provider)
    with pytest.raises(ProviderAuthError):
        poll(connection(simulators, provider, api_key="wrong"), task_id)


@pytest.mark.parametrize("provider", ["capcut-mate", "moneyprinterturbo"])
def test_a_wrong_base_address_does_not_look_like_a_lost_task(simulators: Simulators, provider: str) -> None:
    right = connection(simulators, provider)
    with pytest.raises(ProviderProtocolError):
        poll(connection(simulators, provider, base_url=f"{right.base_url}/elsewhere"), simulators.create(provider))


def test_capcut_mate_is_completed_for_an_instant_before_it_has_a_link(simulators: Simulators, clock: FakeClock) -> None:
    of = connection(simulators, "capcut-mate")
    task_id = simulators.create("capcut-mate", seconds=10)
    clock.at(10.01)
    early = json.loads(ask(of, task_id).body)
    assert (early["status"], early["progress"], early["video_url"]) == ("completed", 95, "")
    assert early["completed_at"] is None
    clock.at(10.2)
    assert len(poll(of, task_id).videos) == 1


def test_capcut_mate_marks_stages_and_falls_to_nought_on_failure(simulators: Simulators, clock: FakeClock) -> None:
    of = connection(simulators, "capcut-mate")
    task_id = simulators.create("capcut-mate", seconds=100, outcome="fail")
    seen = set()
    for second in range(16, 100):
        clock.at(second)
        seen.add(poll(of, task_id).progress)
    assert seen == {10, 20, 30, 40, 50, 70, 95}
    clock.at(100)
    assert json.loads(ask(of, task_id).body)["progress"] == 0


def test_capcut_mate_writes_naive_local_times_with_microseconds(simulators: Simulators) -> None:
    of = connection(simulators, "capcut-mate")
    task_id = simulators.create("capcut-mate")
    body = json.loads(ask(of, task_id).body)
    assert body["created_at"] == "2026-03-01T20:00:00.250000"  # +08:00, unsaid
    assert poll(of, task_id).provider_times["created_at"].at == START


def test_capcut_mate_speaks_english_only_when_asked_to(simulators: Simulators) -> None:
    of = connection(simulators, "capcut-mate")
    task_id = simulators.create("capcut-mate")
    english = json.loads(ask(of, task_id, {"Accept-Language": "en-US"}).body)
    assert (english["code"], english["message"]) == (0, "Success")


def test_scenext_shows_finished_frames_instead_of_a_number(simulators: Simulators, clock: FakeClock) -> None:
    of = connection(simulators, "scenext")
    task_id = simulators.create("scenext", seconds=100)
    clock.at(60)
    seen = poll(of, task_id)
    assert seen.progress is None
    assert len(seen.images) == 2
    picture = requests.get(seen.images[0], timeout=10)
    assert picture.content.startswith(b"\x89PNG")


def test_scenext_and_moneyprinterturbo_can_make_several_videos(simulators: Simulators) -> None:
    for provider in ("scenext", "moneyprinterturbo"):
        task_id = simulators.create(provider, seconds=0, videos=3)
        links = poll(connection(simulators, provider), task_id).videos
        files = [requests.get(link, timeout=10).content for link in links]
        assert len(set(files)) == 3
        assert files[2] == b"".join(simulators.file(provider, task_id, 3).chunks())


def test_jimmy_can_cancel_and_the_others_cannot(simulators: Simulators, clock: FakeClock) -> None:
    task_id = simulators.create("jimmy", seconds=1, outcome="cancel")
    clock.at(1)
    assert poll(connection(simulators, "jimmy"), task_id).state == "cancelled"
    with pytest.raises(ValidationError, match="knows no cancelled tasks"):
        simulators.create("mingyan", outcome="cancel")


def test_moneyprinterturbo_links_are_relative_and_its_errors_begin_with_the_requests_id(
    simulators: Simulators, clock: FakeClock
) -> None:
    of = connection(simulators, "moneyprinterturbo")
    task_id = simulators.create("moneyprinterturbo", seconds=1)
    clock.at(1)
    data = json.loads(ask(of, task_id).body)["data"]
    assert data["videos"] == [f"/tasks/{task_id}/final-1.mp4"]
    assert data["error"] is None
    unknown = ask(of, "nobody", {"x-task-id": "my-request-1"})
    assert unknown.status == 404
    assert json.loads(unknown.body) == {"status": 404, "message": "my-request-1: task not found"}


def test_an_id_with_a_slash_is_found_by_its_encoded_segment_only_where_the_provider_allows_it(
    simulators: Simulators,
) -> None:
    assert poll(connection(simulators, "jimmy"), simulators.create("jimmy", provider_task_id="a/b?c")).state == "queued"
    with pytest.raises(ProviderProtocolError):  # its router does not match it
        poll(
            connection(simulators, "moneyprinterturbo"),
            simulators.create("moneyprinterturbo", provider_task_id="a/b"),
        )


@pytest.mark.parametrize("provider", ALL)
def test_trouble_replaces_the_answer_for_its_time_only(simulators: Simulators, clock: FakeClock, provider: str) -> None:
    of = connection(simulators, provider)
    trouble = [{"from_s": 10, "to_s": 20, "status": 500}, {"from_s": 20, "to_s": 30, "status": 429, "retry_after": 7}]
    task_id = simulators.create(provider, seconds=100, trouble=trouble)
    states = []
    for second in (9, 10, 29, 30):
        clock.at(second)
        try:
            states.append(str(poll(of, task_id).state))
        except ProviderUnavailable as error:
            states.append(f"unavailable {error.retry_after}")
    waiting = "processing" if provider in {"scenext", "moneyprinterturbo"} else "queued"  # these know no queue
    assert states == [waiting, "unavailable None", "unavailable 7.0", "processing"]
    assert [seen.status for seen in simulators.polls(provider, task_id)] == [200, 500, 429, 200]


def test_trouble_can_hold_an_answer_back_or_send_nonsense(simulators: Simulators, clock: FakeClock) -> None:
    of = connection(simulators, "mingyan")
    slow = simulators.create("mingyan", trouble=[{"delay_s": 4}])
    assert poll(of, slow).state == "processing"  # as it stands when the answer leaves
    assert clock.slept == [4]
    odd = simulators.create("mingyan", trouble=[{"status": 200, "body": "<html>maintenance</html>"}])
    with pytest.raises(ProviderProtocolError):
        poll(of, odd)


def test_a_whole_provider_can_be_disturbed_and_made_well_again(simulators: Simulators) -> None:
    of = connection(simulators, "jimmy")
    task_id = simulators.create("jimmy")
    simulators.disturb("jimmy", Trouble(status=503))
    with pytest.raises(ProviderUnavailable):
        poll(of, task_id)
    simulators.disturb("jimmy", None)
    assert poll(of, task_id).state == "queued"


def test_a_task_can_be_told_something_else_while_it_runs(simulators: Simulators, clock: FakeClock) -> None:
    of = connection(simulators, "jimmy")
    task_id = simulators.create("jimmy", outcome="never")
    clock.at(1000)
    assert poll(of, task_id).state == "processing"
    simulators.change("jimmy", task_id, outcome="succeed")
    assert poll(of, task_id).state == "succeeded"


def test_a_task_can_wait_for_its_first_poll_before_it_runs(simulators: Simulators, clock: FakeClock) -> None:
    of = connection(simulators, "jimmy")
    task_id = simulators.create("jimmy", seconds=10, from_first_poll=True)
    states = []
    for second in (100, 105, 110):
        clock.at(second)
        states.append(poll(of, task_id).state.value)
    assert states == ["queued", "processing", "succeeded"]


def test_tasks_outlive_a_restart_with_a_journal(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> None:
    journal = tmp_path_factory.mktemp("providers") / "tasks.jsonl"
    with Simulators(clock=clock, journal=journal) as before:
        task_id = before.create("jimmy", provider_task_id="r1", seconds=10)
        before.change("jimmy", task_id, seconds=20)
        sha256 = before.file("jimmy", task_id).sha256
    clock.at(15)
    with Simulators(clock=clock, journal=journal) as after:
        assert poll(connection(after, "jimmy"), task_id).state == "processing"
        assert after.file("jimmy", task_id).sha256 == sha256


# -- the control API ----------------------------------------------------------------------------------------------


def test_the_control_api_makes_a_task_of_the_origins_own_provider(simulators: Simulators, clock: FakeClock) -> None:
    url = simulators.provider_urls["capcut-mate"]
    made = requests.post(f"{url}/_sim/tasks", json={"seconds": 3, "size_bytes": 50_000}, timeout=10)
    assert made.status_code == 201
    task_id = made.json()["provider_task_id"]
    clock.at(4)
    [link] = poll(connection(simulators, "capcut-mate"), task_id).videos
    requests.get(link, headers={"Range": "bytes=0-9"}, timeout=10)
    report = requests.get(made.json()["control_url"], timeout=10).json()
    assert report["phase"] == "ended"
    assert report["polls"] == [{"at": (START + timedelta(seconds=4)).isoformat(), "status": 200, "range": None}]
    assert report["downloads"] == [
        {"at": (START + timedelta(seconds=4)).isoformat(), "status": 206, "range": "bytes=0-9"}
    ]
    file = simulators.file("capcut-mate", task_id)
    assert report["files"] == [{"n": 1, "size_bytes": 50_000, "sha256": file.sha256}]


def test_the_control_api_makes_a_task_of_another_provider_and_changes_it(simulators: Simulators) -> None:
    url = simulators.provider_urls["jimmy"]
    made = requests.post(f"{url}/_sim/tasks", json={"provider": "mingyan", "provider_task_id": "v1"}, timeout=10)
    assert made.json()["provider"] == "mingyan"
    changed = requests.patch(f"{url}/_sim/tasks/v1", json={"outcome": "fail", "seconds": 0}, timeout=10)
    assert changed.json()["phase"] == "ended"
    assert poll(connection(simulators, "mingyan"), "v1").state == "failed"
    listed = requests.get(f"{url}/_sim/tasks", timeout=10).json()["tasks"]
    assert ("mingyan", "v1") in [(one["provider"], one["provider_task_id"]) for one in listed]


def test_the_control_api_disturbs_a_provider(simulators: Simulators) -> None:
    url = simulators.provider_urls["jimmy"]
    task_id = simulators.create("jimmy")
    assert requests.post(f"{url}/_sim/trouble", json={"status": 502}, timeout=10).status_code == 204
    assert ask(connection(simulators, "jimmy"), task_id).status == 502
    requests.post(f"{url}/_sim/trouble", json={}, timeout=10)
    assert ask(connection(simulators, "jimmy"), task_id).status == 200


@pytest.mark.parametrize(
    "told",
    [
        '{"provider": "nobody"}',
        '{"outcome": "maybe"}',
        '{"second": 3}',
        '{"size_bytes": 10}',
        "[]",
        "{",
        '{"videos": 2}',
    ],
)
def test_the_control_api_refuses_what_it_does_not_understand(simulators: Simulators, told: str) -> None:
    answer = requests.post(f"{simulators.provider_urls['jimmy']}/_sim/tasks", data=told, timeout=10)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_the_control_api_knows_no_other_route_or_task(simulators: Simulators) -> None:
    url = simulators.provider_urls["jimmy"]
    assert requests.get(f"{url}/_sim/tasks/nobody", timeout=10).status_code == 404
    assert requests.get(f"{url}/_sim/elsewhere", timeout=10).status_code == 404


@pytest.mark.parametrize(("version", "while_it_runs"), [("new", 409), ("old", 200)])
def test_moneyprinterturbo_deletes_a_task_that_has_ended_with_its_files(
    simulators: Simulators, clock: FakeClock, version: str, while_it_runs: int
) -> None:
    of = connection(simulators, "moneyprinterturbo")
    task_id = simulators.create("moneyprinterturbo", seconds=10, version=version)
    assert delete(of, task_id).status == while_it_runs
    again = simulators.create("moneyprinterturbo", seconds=10, version=version)
    clock.at(20)
    (link,) = poll(of, again).videos
    assert delete(of, again).status == 200
    assert delete(of, again).status == 404
    with pytest.raises(ProviderTaskNotFound):
        poll(of, again)
    assert requests.get(link, timeout=10).status_code == 404


def delete(of: Connection, task_id: str) -> HttpResponse:
    """The answer to the request that the real provider code builds."""
    provider = PROVIDERS[of.type]
    assert isinstance(provider, DeletingProvider)
    request = provider.delete_request(of, task_id)
    answer = requests.request(request.method, request.url, headers=request.headers, timeout=10)
    return HttpResponse(answer.status_code, answer.headers, answer.content)


class TestMoneyPrinterTurbosList:
    @pytest.fixture
    def simulators(self, clock: FakeClock) -> Iterator[Simulators]:
        """A server of this test's own: a list shows the tasks of all."""
        with Simulators(clock=clock, sleep=clock.sleep) as simulators:
            yield simulators

    def page(self, of: Connection, wanted: set[str], number: int = 1) -> Listed:
        lister = lister_of(of)
        assert lister is not None
        request = lister.list_request(of, number)
        answer = requests.get(request.url, headers=request.headers, timeout=10)
        return lister.parse_list(of, HttpResponse(answer.status_code, answer.headers, answer.content), wanted)

    def test_tells_who_runs_as_their_own_answers_do(self, simulators: Simulators, clock: FakeClock) -> None:
        of = connection(simulators, "moneyprinterturbo")
        slow, quick, lost = (
            simulators.create("moneyprinterturbo", seconds=seconds, outcome=outcome)
            for seconds, outcome in ((60, "succeed"), (10, "succeed"), (10, "lose"))
        )
        clock.at(30)
        page = self.page(of, {slow, quick, lost, "unknown"})
        assert dict(page.running) == {slow: poll(of, slow)}
        assert page.unclear == {quick}
        assert (page.count, page.more) == (2, False)

    def test_shows_paths_of_its_file_system(self, simulators: Simulators, clock: FakeClock) -> None:
        of = connection(simulators, "moneyprinterturbo")
        task_id = simulators.create("moneyprinterturbo", seconds=1)
        clock.at(2)
        (item,) = requests.get(f"{of.base_url}/api/v1/tasks", timeout=10).json()["data"]["tasks"]
        assert item["videos"] == [f"/srv/MoneyPrinterTurbo/storage/tasks/{task_id}/final-1.mp4"]

    def test_comes_in_pages_and_refuses_what_is_no_page(self, simulators: Simulators) -> None:
        of = connection(simulators, "moneyprinterturbo")
        made = [simulators.create("moneyprinterturbo", seconds=60) for _ in range(5)]

        def get(query: str) -> requests.Response:
            return requests.get(f"{of.base_url}/api/v1/tasks?{query}", timeout=10)

        pages = [get(f"page={number}&page_size=2").json()["data"] for number in (1, 2, 3, 4)]
        assert [[item["task_id"] for item in page["tasks"]] for page in pages] == [made[:2], made[2:4], made[4:], []]
        assert {page["total"] for page in pages} == {5}
        for query in ("page=0", "page_size=0", "page=abc"):
            assert get(query).status_code == 400
        assert requests.post(f"{of.base_url}/api/v1/tasks", timeout=10).status_code == 405

    def test_fails_as_a_whole_for_one_record_that_is_corrupt(self, simulators: Simulators) -> None:
        of = connection(simulators, "moneyprinterturbo")
        simulators.create("moneyprinterturbo", seconds=60)
        simulators.create("moneyprinterturbo", seconds=60, trouble=[{"status": 500}])
        with pytest.raises(ProviderUnavailable):
            self.page(of, set())

    def test_is_a_first_poll_for_those_who_wait_for_one(self, simulators: Simulators, clock: FakeClock) -> None:
        of = connection(simulators, "moneyprinterturbo")
        task_id = simulators.create("moneyprinterturbo", seconds=60, from_first_poll=True)
        clock.at(100)
        assert self.page(of, {task_id}).running.keys() == {task_id}
