"""A provider that its connection's `spec` describes: a new provider needs no code.

The order of judgement is the contract of a spec: the HTTP status first where it is clear, then a failed or cancelled
`state`, then `not_found`, `auth_error`, `rejected` and `ok`, then the other states.
"""

from __future__ import annotations

from collections.abc import Collection
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
    Listed,
    Observation,
    ProviderState,
    answer_of,
    id_in_answer,
    listed,
    path_segment,
    provider_times,
    request_headers,
)
from renderbell.providers.reading import MAX_LINK, Answer, duration_of, link, links, progress_of
from renderbell.providers.spec import PAGE, TASK_ID, Expression, GenericSpec, ListSpec, word_of
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
        ascii_id = quote(provider_task_id, safe=_ASCII)  # a header holds no other characters
        own = {name: value.replace(TASK_ID, ascii_id) for name, value in spec.request.headers.items()}
        path = spec.request.path.replace(TASK_ID, path_segment(provider_task_id))
        body = _filled(spec.request.body, TASK_ID, provider_task_id)
        return HttpRequest(spec.request.method, connection.base_url + path, _headers(connection, spec, own), body)

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says by the spec's expressions."""
        spec = _spec_of(connection)
        answer = answer_of(connection, response)
        return _read(connection, spec, answer, answer.as_json())

    def lists(self, connection: Connection) -> bool:
        """Where its spec says how."""
        return connection.spec is not None and connection.spec.listing is not None

    def list_request(self, connection: Connection, page: int) -> HttpRequest:
        """The spec's request for a page of the list."""
        spec, listing = _listing_of(connection)
        number = str(page - 1 + listing.first_page)
        own = {name: value.replace(PAGE, number) for name, value in listing.request.headers.items()}
        path = listing.request.path.replace(PAGE, number)
        body = _filled(listing.request.body, PAGE, number)
        return HttpRequest(listing.request.method, connection.base_url + path, _headers(connection, spec, own), body)

    def parse_list(self, connection: Connection, response: HttpResponse, wanted: Collection[str]) -> Listed:
        """Each task of the list, read by the spec's expressions."""
        spec, listing = _listing_of(connection)
        answer = answer_of(connection, response)
        parsed = answer.as_json()
        document = parsed[0] if parsed else None
        if not answer.ok:
            raise answer.error_by_status(_found(spec.error, document))
        items = listing.items.search(document)
        if not isinstance(items, list):
            raise answer.unreadable("no list of tasks in the answer")
        more = bool(items) if listing.more is None else listing.more.search(document) is True
        tasks = ((_id_of(listing, item), item) for item in items)
        return listed(
            (
                (name, _seen(connection, spec, answer, document, item))
                for name, item in tasks
                if name is not None and name in wanted
            ),
            count=len(items),
            more=more and listing.request.varies,
        )


def _spec_of(connection: Connection) -> GenericSpec:
    if connection.spec is None:
        raise ConfigurationError(f"the connection {connection.name} has no spec")
    return connection.spec


def _listing_of(connection: Connection) -> tuple[GenericSpec, ListSpec]:
    spec = _spec_of(connection)
    if spec.listing is None:
        raise ConfigurationError(f"the spec of the connection {connection.name} has no list")
    return spec, spec.listing


def _id_of(listing: ListSpec, item: object) -> str | None:
    found = listing.task_id.search(item)
    return id_in_answer(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def _seen(
    connection: Connection, spec: GenericSpec, answer: Answer, document: object, item: object
) -> Observation | None:
    """What a list says of one of its tasks; None where that is no observation."""
    put_in = spec.listing.put_in if spec.listing is not None else None
    if put_in is not None:
        item = {**(document if isinstance(document, dict) else {}), put_in: item}
    try:
        return _read(connection, spec, answer, (item,))
    except ProviderError:
        return None


def _read(connection: Connection, spec: GenericSpec, answer: Answer, parsed: tuple[object] | None) -> Observation:
    """What a document of an answer says, in the order of judgement."""
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


def _headers(connection: Connection, spec: GenericSpec, own: dict[str, str]) -> dict[str, str]:
    headers = request_headers(connection, spec.auth.header, spec.auth.format)
    if "accept" in {name.lower() for name in own}:
        del headers["Accept"]
    return headers | own


def _filled(template: JsonValue, placeholder: str, value: str) -> JsonValue:
    """The body's template with a value in its strings; a string that is nothing but a page's number becomes one."""
    if isinstance(template, str):
        return int(value) if template == placeholder == PAGE else template.replace(placeholder, value)
    if isinstance(template, dict):
        return {key: _filled(one, placeholder, value) for key, one in template.items()}
    if isinstance(template, list):
        return [_filled(one, placeholder, value) for one in template]
    return template
