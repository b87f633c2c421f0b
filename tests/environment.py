"""What the functions read from their environment, for tests that start them in this process."""

from __future__ import annotations

ENVIRONMENT = {
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "POWERTOOLS_METRICS_NAMESPACE": "Renderbell",
    "POWERTOOLS_SERVICE_NAME": "test",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    "TABLE_NAME": "table",
    "BUCKET_NAME": "bucket",
    "CONNECTIONS_PATH": "/renderbell/connections",
    "SLOTS": "16",
    "POLLER_WORKERS": "3",
    "POLL_CONCURRENCY": "8",
    "POLLER_FUNCTION_NAME": "poller",
    "NOTIFIER_FUNCTION_NAME": "notifier",
    "MASTER_SECRET_ID": "master",
    "FIRST_KEY_SECRET_ID": "first",
    "EVENT_BUS_NAME": "studio",
    "MAX_VIDEO_BYTES": "1000",
    "VIDEO_RETENTION_DAYS": "0",
    "TASK_RETENTION_DAYS": "30",
}
