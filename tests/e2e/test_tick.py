"""What the schedule alone does: these tasks were registered while nobody woke the poller."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from tests.e2e.client import Client
from tests.e2e.conftest import Unwoken

pytestmark = pytest.mark.e2e

TICK_S = 60


def test_a_task_whose_wake_ups_are_lost_lives_through_two_ticks(
    unwoken: Unwoken,
) -> None:
    client, task = unwoken.client, unwoken.often
    done = client.ended(task["task_id"], limit_s=3 * TICK_S + 60)
    assert done["status"] == "COMPLETED"
    client.told(task["task_id"], "task.completed")
    polls = client.polled_at(task)
    assert polls[-1] - polls[0] > TICK_S, "at least two ticks have served it"
    gaps = [later - earlier for earlier, later in pairwise(polls)]
    assert max(gaps) <= 1 + 6, "the hand-over between ticks leaves no gap"
    client.until(lambda: _ticks_that_polled(client) >= 2, "the second tick's own word", limit_s=2 * TICK_S)


def test_a_task_polled_every_minute_is_polled_every_minute(
    unwoken: Unwoken,
) -> None:
    client, task = unwoken.client, unwoken.rare
    done = client.ended(task["task_id"], limit_s=4 * TICK_S)
    assert done["status"] == "COMPLETED"
    polls = client.polled_at(task)
    gaps = [later - earlier for earlier, later in pairwise(polls)]
    assert all(gap <= TICK_S + 6 for gap in gaps)
    assert len(polls) in {3, 4}, "the first, one at most a minute later, and the grid"


def _ticks_that_polled(client: Client) -> int:
    lines = (line.strip() for line in client.logged("PollerFunctionLogs", '"tick done"'))
    return sum(1 for line in lines if line.startswith("{") and json.loads(line).get("polls", 0) > 0)
