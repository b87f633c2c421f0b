"""What functions read from their environment."""

from __future__ import annotations

import pytest

from renderbell.errors import ConfigurationError
from renderbell.settings import ApiSettings

ENVIRONMENT = {
    "TABLE_NAME": "table",
    "BUCKET_NAME": "bucket",
    "CONNECTIONS_PATH": "/rb/connections",
    "SLOTS": "16",
    "POLLER_WORKERS": "1",
    "POLLER_FUNCTION_NAME": "poller",
    "NOTIFIER_FUNCTION_NAME": "notifier",
    "MASTER_SECRET_ID": "master",
    "PUBLIC_BASE_URL": "",
    "VIDEO_RETENTION_DAYS": "0",
    "TASK_RETENTION_DAYS": "90",
    "ALLOWED_PRIVATE_CIDRS": "10.0.0.0/8, fd00::/8,",
    "ALLOW_HTTP_WEBHOOKS": "true",
    "PATH": "/usr/bin",
}


def test_settings_are_read_by_their_names() -> None:
    settings = ApiSettings.from_environment(ENVIRONMENT)
    assert (settings.table_name, settings.slots, settings.allow_http_webhooks) == ("table", 16, True)
    assert settings.allowed_private_cidrs == ("10.0.0.0/8", "fd00::/8")


def test_an_empty_list_is_empty_and_switches_are_off_unless_they_are_on() -> None:
    settings = ApiSettings.from_environment(ENVIRONMENT | {"ALLOWED_PRIVATE_CIDRS": "", "ALLOW_HTTP_WEBHOOKS": "false"})
    assert (settings.allowed_private_cidrs, settings.allow_http_webhooks) == ((), False)


def test_everything_that_is_missing_or_wrong_is_named_at_once_without_its_value() -> None:
    broken = {name: value for name, value in ENVIRONMENT.items() if name != "TABLE_NAME"} | {"SLOTS": "hunter2"}
    with pytest.raises(ConfigurationError) as refused:
        ApiSettings.from_environment(broken)
    assert "TABLE_NAME" in str(refused.value)
    assert "SLOTS" in str(refused.value)
    assert "hunter2" not in str(refused.value)
