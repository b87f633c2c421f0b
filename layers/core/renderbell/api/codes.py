"""The stable words that errors are told by: what clients act on, and what the OpenAPI document lists."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FIELD_CODES", "PROBLEM_CODES", "listed"]

# Of a problem; the last four are API Gateway's own answers.
PROBLEM_CODES: Mapping[str, str] = {
    "already_registered": "the render is watched with other settings; `task_id` names that task",
    "body_too_large": "the body is larger than its route allows",
    "delivery_pending": "a webhook is yet to be delivered",
    "endpoint_disabled": "nothing is sent to the endpoint: it is disabled, or deleted",
    "forbidden": "the key's scope does not cover this",
    "internal_error": "something failed on our side; try again",
    "invalid_input": "something in the request cannot be used; `errors` names the fields",
    "method_not_allowed": "the route takes other methods: `Allow` names them",
    "not_found": "there is no such thing or route, or it is not yours",
    "nothing_to_redeliver": "the task has sent nothing of that kind",
    "provider_unavailable": "the provider could not be reached, refuses, or is not understood",
    "request_running": "the same call, with the same `Idempotency-Key`, is still running",
    "task_ended": "the task has already ended",
    "task_not_failed": "only FAILED and EXPIRED tasks are retried",
    "task_running": "the task still runs",
    "too_many_endpoints": "the owner has as many endpoints as there may be",
    "too_many_keys": "the owner has as many keys as there may be",
    "try_again": "another changes the same thing just now",
    "unauthorized": "no API key or a wrong one; for a callback, no right signature",
    "unknown_connection": "the task's connection is there no more, or is yours no more",
    "video_expired": "the stored file has been removed by the retention rule",
    "bad_request": "the request is malformed",
    "throttled": "too many requests; `Retry-After` says when to come again",
    "timeout": "the request took too long; try again",
    "unsupported_media_type": "the body is of another kind than is taken",
}

# Of a field, beside those of pydantic for types, lengths and patterns, as `missing` and `string_too_short`.
FIELD_CODES: Mapping[str, str] = {
    "cursor_invalid": "the cursor is none of this query and this owner",
    "conflicting_fields": "only one of two fields may be given",
    "description_invalid": "the description holds control characters",
    "duplicate_parameter": "the parameter may be given once",
    "duplicate_url": "the URL stands there twice",
    "flag_invalid": "the parameter is neither `true` nor `false`",
    "header_name_invalid": "the header's name has another form",
    "header_name_twice": "two headers' names differ in their case alone",
    "header_reserved": "the header is set by us or means something to the connection",
    "header_value_invalid": "the header's value has another form",
    "idempotency_key_invalid": "the `Idempotency-Key` has another form",
    "idempotency_key_reused": "the `Idempotency-Key` was used for another call",
    "json_invalid": "the body is no JSON in UTF-8",
    "metadata_invalid": "the metadata holds an empty key or control characters",
    "metadata_too_large": "the metadata is larger than it may be",
    "name_invalid": "the name holds control characters",
    "not_an_object": "the body is no JSON object",
    "number_invalid": "the number is not written in decimal digits",
    "provider_cannot_delete": "this type of provider deletes nothing",
    "provider_task_id_unusable": "nobody can be asked by such an id",
    "string_unicode": "the text is no valid Unicode",
    "time_invalid": "the time is none of ISO 8601 with a zone, or absurd",
    "unknown_parameter": "the route has no such parameter",
    "unknown_connection": "there is no such connection, or it is not yours",
    "url_not_allowed": "the URL may not be called",
    "url_too_long": "the URL is longer than it may be",
}


def listed(codes: Mapping[str, str]) -> str:
    """Codes with their meanings, as a list in Markdown."""
    return "\n".join(f"- `{code}`: {meaning}" for code, meaning in sorted(codes.items()))
