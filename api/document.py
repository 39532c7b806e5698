"""The OpenAPI document: what FastAPI finds out by itself, and what it cannot know: problems, and how to sign in."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.problems import Problem

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (tk_…) or a token of the issuer."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key (tk_…)."},
}
NEEDS_KEY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
REFS = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's own documentation does it


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, problems = models_json_schema([(Problem, "serialization")], ref_template=REFS)
    components = document["components"]
    components["schemas"] |= problems["$defs"]
    components["securitySchemes"] = SCHEMES
    for operations in document["paths"].values():
        for operation in operations.values():
            if "401" in operation["responses"]:
                operation["security"] = NEEDS_KEY
    return document
