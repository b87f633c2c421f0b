"""The HTTP API: routes over the use cases, errors as problem documents, and the OpenAPI document of both."""

from renderbell.api.document import DOCUMENTED_URL, VERSION, openapi_document
from renderbell.api.handler import build_handler
from renderbell.api.serving import ApiParts, base_url_of

__all__ = ["DOCUMENTED_URL", "VERSION", "ApiParts", "base_url_of", "build_handler", "openapi_document"]
