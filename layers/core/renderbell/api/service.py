"""The routes that need no key: whether the API answers, and what it offers."""

from __future__ import annotations

from http import HTTPStatus
from importlib import resources
from string import Template
from typing import Any

from aws_lambda_powertools.event_handler import Response

from renderbell.api.document import VERSION, openapi_document
from renderbell.api.problems import documented
from renderbell.api.serving import JSON, NO_STORE, OPEN, current_base_url, json_answer, route
from renderbell.models import Model

# The page runs its scripts inline, and may talk to nobody but this API.
DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "font-src data:; connect-src 'self'"
)

# The icon is empty, or browsers ask the host for one.
_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Renderbell</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<div id="swagger-ui"></div>
<script>$script</script>
<script>
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "openapi.json",
  deepLinking: true,
  filter: true,
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [SwaggerUIBundle.plugins.DownloadUrl],
});
</script>
</body>
</html>
""")


class Health(Model):
    """The API answers."""

    status: str
    version: str


@route(
    "GET",
    "/health",
    summary="Ask whether the API answers",
    operation_id="health",
    tags=[OPEN],
    responses=documented(ok_200=("It does.", Health)),
)
def get_health() -> Response[Health]:
    """Needs no key."""
    return json_answer(HTTPStatus.OK, Health(status="ok", version=VERSION))


@route(
    "GET",
    "/openapi.json",
    summary="Read this document",
    operation_id="openapi",
    tags=[OPEN],
    responses=documented(ok_200=("This OpenAPI document.", dict[str, Any])),
)
def get_openapi() -> Response[str]:
    """This API as an OpenAPI document. Needs no key."""
    return Response(HTTPStatus.OK.value, JSON, openapi_document(current_base_url()), NO_STORE)


@route(
    "GET",
    "/docs",
    summary="Read this document as a page",
    operation_id="docs",
    tags=[OPEN],
    responses={200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}},
)
def get_docs() -> Response[str]:
    """This API as a page to read and try. Needs no key, and no other host."""
    ui = resources.files("aws_lambda_powertools.event_handler.openapi.swagger_ui")
    page = _PAGE.substitute(
        style=ui.joinpath("swagger-ui.min.css").read_text("utf-8"),
        script=ui.joinpath("swagger-ui-bundle.min.js").read_text("utf-8"),
    )
    headers = {**NO_STORE, "Content-Security-Policy": DOCS_POLICY}
    return Response(HTTPStatus.OK.value, "text/html; charset=utf-8", page, headers)
