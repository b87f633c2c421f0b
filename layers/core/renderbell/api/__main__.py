"""Writes the OpenAPI document: `python -m renderbell.api > docs/openapi.json`."""

import sys

from renderbell.api import DOCUMENTED_URL, openapi_document

sys.stdout.write(openapi_document(DOCUMENTED_URL) + "\n")
