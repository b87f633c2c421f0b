"""What each function reads from its environment, validated once at the cold start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AliasGenerator, BeforeValidator, ConfigDict, Field, ValidationError

from renderbell.errors import ConfigurationError
from renderbell.models import Model

__all__ = ["ApiSettings", "AuthorizerSettings", "NotifierSettings", "PollerSettings", "Settings"]


def _parts(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_parts)]


class Settings(Model):
    """The common base: a field `table_name` is read from `TABLE_NAME`."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        alias_generator=AliasGenerator(validation_alias=str.upper),
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The settings; raises `ConfigurationError` that names every variable that is missing or wrong."""
        names = [name.upper() for name in cls.model_fields]
        try:
            return cls.model_validate({name: environment[name] for name in names if name in environment})
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            text = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in details)
            raise ConfigurationError(text) from None


class ApiSettings(Settings):
    """What the API needs."""

    table_name: str
    bucket_name: str
    connections_path: str
    slots: int = Field(ge=1)
    poller_workers: int = Field(ge=1)
    poller_function_name: str
    notifier_function_name: str
    master_secret_id: str
    public_base_url: str = ""
    event_bus_name: str = ""
    video_retention_days: int = Field(ge=0)
    task_retention_days: int = Field(ge=7)
    allowed_private_cidrs: CommaSeparated = ()
    allow_http_webhooks: bool = False


class AuthorizerSettings(Settings):
    """What the authorizer needs."""

    table_name: str
    first_key_secret_id: str


class PollerSettings(Settings):
    """What the poller needs."""

    table_name: str
    connections_path: str
    slots: int = Field(ge=1)
    poller_workers: int = Field(ge=1)
    poll_concurrency: int = Field(ge=1, le=900)
    notifier_function_name: str


class NotifierSettings(Settings):
    """What the notifier needs."""

    table_name: str
    bucket_name: str
    connections_path: str
    master_secret_id: str
    event_bus_name: str = ""
    max_video_bytes: int = Field(ge=1)
    allowed_private_cidrs: CommaSeparated = ()
    allow_http_webhooks: bool = False
