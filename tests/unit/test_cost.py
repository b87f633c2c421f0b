"""What tasks cost, reckoned by hand beside the script that docs/benchmarks.md is written from."""

from __future__ import annotations

import pytest

from tests.benchmarks import cost
from tests.benchmarks.usage import Usage, logged
from tests.benchmarks.writes import Units, item_bytes

UNITS = Units(
    registration=8,
    later=24,
    request=3,
    told=14,
    reads=9,
    shown=3,
    stored_bytes=3000,
    lease_writes_per_minute=5,
    reads_per_minute=200,
    idle_reads_per_minute=8,
    poller_s=60,
)
USAGE = Usage(
    api_s=0.04,
    authorizer_s=0.03,
    notifier_s=0.2,
    idle_s=0.1,
    api_logged=1000,
    authorizer_logged=1000,
    notifier_logged=1200,
    poller_logged=1000,
    webhook_bytes=1500,
)
DEPLOYED = cost.Deployed(alarms=17, secrets=2, metrics=23)


@pytest.mark.parametrize(
    ("design", "usd"),
    [
        # 18 rounds of wait, call and choose, and three more, at 25 a million; 18 polls at 0.2 and 0.075 GB-s at 13.3334
        (cost.step_functions, 57 * 25 + 18 * 1.2),
        (cost.durable_functions, 38 * 8 + 18 * 1.2),  # a step and a wait each, and two more
        # 180 s of 64 MB are 3,125 GB-hours: 1,000 at 0.06 and 2,125 at 0.03; a request each at 1 a million
        (cost.express, 60 + 63.75 + 1 + 18 * 1.2),
        (cost.queue, 18 * 3 * 0.4 + 18 * 1.2),
        (cost.schedules, 3 * 1 + 3 * 1.2),
    ],
)
def test_another_design_costs_what_its_steps_do(design: object, usd: float) -> None:
    assert callable(design)
    assert design() == pytest.approx(usd, abs=0.005)


def test_the_task_s_own_item_and_its_marker_are_what_is_left_of_all_writes() -> None:
    assert (UNITS.writes, UNITS.state) == (32, 15)


def test_a_month_of_one_poller_is_its_memory_all_the_time_and_one_run_a_minute() -> None:
    bill = cost.polling(UNITS, 1)
    # 2,628,000 s of half a gigabyte, and 43,800 runs
    assert bill["pollers"] == pytest.approx(1_314_000 * 13.3334e-6 + 43_800 * 0.2e-6)
    assert bill["the schedule"] == pytest.approx(0.0438)
    assert bill["leases and looks"] == pytest.approx(43_800 * (5 * 0.625e-6 + 200 * 0.125e-6))


def test_half_the_memory_is_half_the_price_of_running() -> None:
    runs = 43_800 * 0.2e-6
    whole, half = cost.polling(UNITS, 1)["pollers"], cost.polling(UNITS, 1, 256)["pollers"]
    assert half - runs == pytest.approx((whole - runs) / 2)


def test_pollers_cost_by_the_worker_and_the_schedule_once() -> None:
    one, three = cost.polling(UNITS, 1), cost.polling(UNITS, 3)
    assert three == pytest.approx({name: (1 if name == "the schedule" else 3) * usd for name, usd in one.items()})


def test_polling_a_million_tasks_in_a_month_costs_a_month_of_one_poller_and_their_state() -> None:
    month = 17.5201 + 0.0088 + 0.0438 + 1.2319
    assert cost.polling_and_state(UNITS, 1e6) == pytest.approx(month + 15 * 0.625 + 0.125, abs=0.001)


def test_more_tasks_in_a_month_share_what_pollers_cost() -> None:
    month = sum(cost.polling(UNITS, cost.workers_for(30e6)).values())
    assert cost.polling_and_state(UNITS, 30e6) == pytest.approx(month / 30 + 15 * 0.625 + 0.125)


@pytest.mark.parametrize(("tasks", "workers"), [(0, 1), (1e6, 1), (42e6, 1), (43e6, 2), (90e6, 3)])
def test_workers_are_enough_for_half_of_their_processors(tasks: float, workers: int) -> None:
    # a poller of 512 MB has 0.289 processors, half of which are 289 polls a second: 42.3 million tasks of 18 polls
    assert cost.workers_for(tasks) == workers


def test_the_whole_bill_is_by_service() -> None:
    bill = cost.whole_bill(UNITS, USAGE, DEPLOYED, 1e6)
    assert bill["API Gateway"] == pytest.approx(7.0)
    assert bill["Lambda: API"] == pytest.approx(2 * (0.02 * 13.3334 + 0.2))
    assert bill["Lambda: authorizer"] == pytest.approx(438_000 * (0.015 * 13.3334e-6 + 0.2e-6))
    assert bill["Lambda: notifier"] == pytest.approx(1.0 * 13.3334 + 0.2)  # 0.2 s, and 0.8 s for 20 MB
    assert bill["DynamoDB: writes"] == pytest.approx(20.0)
    assert bill["DynamoDB: reads"] == pytest.approx(1.5)
    assert bill["DynamoDB: storage and recovery"] == pytest.approx(3 * 0.45 * 45 / (730 / 24))
    assert bill["S3: requests"] == pytest.approx(5.0)
    assert bill["S3: a month of each video"] == pytest.approx(460.0)
    gigabytes = (2 * 1.6 + 1.2) + 43_800 * 11_000 / 1e9  # of tasks; of one poller and ten keys each minute
    assert bill["CloudWatch: logs"] == pytest.approx(gigabytes * (0.5 + 0.03 * 30 / (730 / 24)))
    assert bill["CloudWatch: 23 metrics"] == pytest.approx(6.9)
    assert bill["X-Ray, if it takes all"] == pytest.approx(15.0)


def test_an_idle_month_is_short_ticks_alarms_and_secrets() -> None:
    bill = cost.idle_month(UNITS, USAGE, DEPLOYED)
    assert bill["Lambda: poller"] == pytest.approx(43_800 * (0.05 * 13.3334e-6 + 0.2e-6))
    assert bill["DynamoDB: leases and looks"] == pytest.approx(43_800 * 8 * 0.125e-6)
    assert bill["CloudWatch: 17 alarms"] == pytest.approx(1.7)
    assert bill["Secrets Manager: 2 secrets"] == pytest.approx(0.8)
    assert sum(bill.values()) == pytest.approx(0.0380 + 0.0438 + 0.0232 + 0.0438 + 1.7 + 0.8, abs=0.0005)


def test_alarms_secrets_and_metrics_are_counted_in_the_template_and_the_code() -> None:
    found = cost.deployed()
    assert (found.alarms, found.secrets) == (17, 2)
    # poller: 6 counts and 5 errors; notifier: 7 and 5
    assert found.metrics == 23


def test_the_section_judges_by_the_dearer_of_both_volumes() -> None:
    told = cost.measure(UNITS, USAGE)
    assert told.met is True
    assert "| Step Functions, Standard: wait, call, choose | 1,446.60 | 1/1.0 |" in told.markdown()
    dear = Units(**{name: getattr(UNITS, name) for name in Units.__slots__} | {"later": 26.0})
    assert cost.measure(dear, USAGE).met is False


def test_an_item_is_as_large_as_dynamodb_says() -> None:
    assert item_bytes({"pk": {"S": "é"}}) == 2 + 2
    assert item_bytes({"n": {"N": "1234"}}) == 1 + 2 + 1
    assert item_bytes({"n": {"N": "-100"}}) == 1 + 1 + 1
    assert item_bytes({"b": {"BOOL": True}}) == 1 + 1
    assert item_bytes({"l": {"L": [{"S": "ab"}, {"M": {"k": {"S": "v"}}}]}}) == 1 + 3 + (1 + 2) + (1 + 3 + 1 + 1 + 1)


def test_a_function_s_warm_runs_and_bytes_are_read_from_its_log() -> None:
    reports = [f"REPORT RequestId: r\tDuration: {ms} ms\tBilled Duration: {ms} ms" for ms in (4000, 20, 30, 40)]
    found = logged(["START RequestId: r", *reports])
    assert found.usual_s == pytest.approx(0.03)
    assert found.bytes_each == (sum(len(line) for line in reports) + 18 + 5 * 26) / 4


def test_a_function_that_has_not_run_has_no_usual_time() -> None:
    with pytest.raises(AssertionError, match="has not run"):
        logged(["START RequestId: r"])
