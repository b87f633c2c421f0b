"""A provider that its connection's `spec` describes: a new provider needs no code.

The order of judgement is the contract of a spec: the HTTP status first where it is clear, then a failed or cancelled
`state`, then `not_found`, `auth_error`, `rejected` and `ok`, then the other states.
"""

from __future__ import annotations

from urllib.parse import quote, urljoin

from pydantic import JsonValue

from renderbell.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderRejected,
    ProviderTaskNotFound,
)
from renderbell.providers.base import (
    GENERIC,
    Connection,
    HttpRequest,
    HttpResponse,
    Observation,
    ProviderState,
    answer_of,
    path_segment,
    provider_times,
    request_headers,
)
from renderbell.providers.reading import MAX_LINK, Answer, duration_of, link, links, progress_of
from renderbell.providers.spec import TASK_ID, Expression, GenericSpec, word_of
from renderbell.schedule import PollSchedule

_ASCII = "".join(map(chr, range(0x20, 0x7F)))
_ENDED_BADLY = {ProviderState.FAILED, ProviderState.CANCELLED}


class Generic:
    """Any provider that answers JSON to one status request."""

    type = GENERIC
    poll_schedule = PollSchedule(10.0, 10.0, 80.0)

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The spec's request for this task."""
        spec = _spec_of(connection)
        headers = request_headers(connection, spec.auth.header, spec.auth.format)
        ascii_id = quote(provider_task_id, safe=_ASCII)  # a header holds no other characters
        own = {name: value.replace(TASK_ID, ascii_id) for name, value in spec.request.headers.items()}
        if "accept" in {name.lower() for name in own}:
            del headers["Accept"]
        path = spec.request.path.replace(TASK_ID, path_segment(provider_task_id))
        body = _filled(spec.request.body, provider_task_id)
        return HttpRequest(spec.request.method, connection.base_url + path, headers | own, body)

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says by the spec's expressions."""
        spec = _spec_of(connection)
        answer = answer_of(connection, response)
        parsed = answer.as_json()
        document = parsed[0] if parsed else None
        word = word_of(spec.state.search(document)) if parsed and answer.defers_to_body else None
        named = None if word is None else spec.state_named(word)
        if not answer.ok and named is None:
            raise _error_of_status(answer, _found(spec.error, document))
        if parsed is None:
            raise answer.unreadable("the answer is no JSON")
        state = ProviderState.PROCESSING if named is None else ProviderState(named)
        if state not in _ENDED_BADLY:
            _raise_verdict(spec, document, answer)
            if word is None:
                raise answer.unreadable("no state in the answer")
        return _observation(connection, spec, document, answer, state)


def _spec_of(connection: Connection) -> GenericSpec:
    if connection.spec is None:
        raise ConfigurationError(f"the connection {connection.name} has no spec")
    return connection.spec


def _found(expression: Expression | None, document: object) -> object:
    return None if expression is None else expression.search(document)


def _raise_verdict(spec: GenericSpec, document: object, answer: Answer) -> None:
    """Raises what the answer's own verdicts say, in their order."""
    verdicts: tuple[tuple[Expression | None, type[ProviderError]], ...] = (
        (spec.not_found, ProviderTaskNotFound),
        (spec.auth_error, ProviderAuthError),
        (spec.rejected, ProviderRejected),
    )
    for expression, kind in verdicts:
        if _found(expression, document) is True:
            raise answer.refused(kind, _found(spec.error, document))
    if _found(spec.ok, document) is False:  # a rate limit reads so
        raise answer.unavailable(_found(spec.error, document))


def _error_of_status(answer: Answer, detail: object = None) -> ProviderError:
    return answer.refused(ProviderTaskNotFound, detail) if answer.status == 404 else answer.error_by_status(detail)


def _observation(
    connection: Connection, spec: GenericSpec, document: object, answer: Answer, state: ProviderState
) -> Observation:
    def resolve(value: object) -> str | None:
        return result_link(connection, value)

    ended_badly = state in _ENDED_BADLY
    progress = progress_of(_found(spec.progress, document), spec.progress_scale)
    model = _found(spec.model, document)
    times = {
        name: raw
        for name, expression in spec.times
        if isinstance(raw := expression.search(document), str | int | float) and not isinstance(raw, bool)
    }
    return Observation(
        state,
        progress=None if ended_badly and not progress else progress,
        videos=links(spec.videos.search(document), resolve) if state is ProviderState.SUCCEEDED else (),
        images=() if ended_badly else links(_found(spec.images, document), resolve),
        error=answer.text(_found(spec.error, document)) if ended_badly else None,
        model=model if isinstance(model, str) and model else None,
        provider_times=provider_times(connection, **times) if times else {},
        duration_s=duration_of(_found(spec.duration_s, document)),
    )


def result_link(connection: Connection, value: object) -> str | None:
    """A link as it is; a path on the base or media address; a storage key on the media address; else None."""
    found = link(value)
    if found is not None or not isinstance(value, str) or not value or len(value) > MAX_LINK:
        return found
    base = connection.media_base_url or (connection.base_url if value.startswith("/") else None)
    segments = value.split("/")
    if base is None or ":" in segments[0] or "\\" in value or {".", ".."} & set(segments):
        return None
    try:
        return link(urljoin(f"{base}/", value))
    except ValueError:
        return None


def _filled(template: JsonValue, task_id: str) -> JsonValue:
    """The body's template with the task id in its strings."""
    if isinstance(template, str):
        return template.replace(TASK_ID, task_id)
    if isinstance(template, dict):
        return {key: _filled(value, task_id) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, task_id) for value in template]
    return template
