"""Errors as application/problem+json (RFC 9457): what happened, what was expected, what to do. Never a stack trace."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

import errors
from telemetry.events import emit

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no job with this id. It may have been purged."])
    instance: str = Field(examples=["/transcribe/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"])
    code: str = Field(examples=["not_found"])
    errors: list[FieldProblem] | None = Field(None, examples=[None])
    request_id: str | None = Field(None, examples=["0f8fad5bd9cb469fa165"])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may answer with these problems."""
    return {
        status: {"model": Problem, "content": {MEDIA_TYPE: {}}, "description": HTTPStatus(status).phrase}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.ServiceError)
    fields = error.problems if isinstance(error, errors.InvalidOption) else ()
    headers = {}
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
        emit("request.refused", code=error.code, reason=str(error))
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(request, error.status, error.code, str(error), fields=fields, headers=headers)


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [(".".join(str(part) for part in item["loc"][1:]), str(item["msg"])) for item in error.errors()]
    detail = "; ".join(f"{field}: {message}" for field, message in fields)
    return _answer(request, 422, "invalid_option", detail, fields=fields)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else _hint(request, error.status_code)
    return _answer(request, error.status_code, code, detail, headers=dict(error.headers or {}))


def _hint(request: Request, status: int) -> str:
    if status == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {request.url.path}. The API is described at /docs."
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not possible at {request.url.path}. The API is described at /docs."
    return HTTPStatus(status).phrase


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    structlog.get_logger("api").error("request.crashed", path=request.url.path, exc_info=error)
    detail = "The service failed in an unexpected way. The operator's log has the details under this request id."
    return _answer(request, 500, "internal_error", detail)


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    fields: Sequence[tuple[str, str]] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        errors=[FieldProblem(field=field, message=message) for field, message in fields] or None,
        request_id=request.scope.get("request_id"),
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)
