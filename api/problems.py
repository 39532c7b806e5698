"""Errors as application/problem+json (RFC 9457): what happened, what was expected, what to do. Never a stack trace.

Below /v1 they have the shape and, where there is one, the code that OpenAI's clients know.
"""

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
REFERENCE = {"$ref": "#/components/schemas/Problem"}  # api/document.py sees to it that it is there
OPENAI_PATHS = "/v1/"
OPENAI_CODES = {
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "invalid_option": "invalid_value",
}

PHRASES = {  # Python 3.13 knows newer ones
    413: "Request Entity Too Large",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
}


def phrase(status: int) -> str:
    return PHRASES.get(status) or HTTPStatus(status).phrase


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
    """`responses=` of a route that may answer with these; who shows a key may lack the right, or have had enough."""
    all_of_them = {*statuses, 403, 429} if 401 in statuses else set(statuses)
    return {
        status: {"description": phrase(status), "content": {MEDIA_TYPE: {"schema": REFERENCE}}}
        for status in sorted(all_of_them)
    }


class OpenAIError(BaseModel):
    message: str = Field(examples=["response_format: expected json, text, srt, verbose_json or vtt"])
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(examples=["response_format"])
    code: str | None = Field(examples=["invalid_value"])


class OpenAIProblem(BaseModel):
    """As api.openai.com has it."""

    error: OpenAIError


def openai_documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`documented` for routes below /v1. `default` keeps FastAPI from promising its own 422, which never comes."""
    texts: dict[int | str, str] = {status: phrase(status) for status in statuses}
    texts["default"] = "Any other problem"
    return {status: {"model": OpenAIProblem, "description": text} for status, text in texts.items()}


def openai_problem(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The body, which is also what a stream says when it breaks off."""
    error = OpenAIError(message=message, type=_openai_type(status), param=param, code=OPENAI_CODES.get(code, code))
    return OpenAIProblem(error=error).model_dump()


def openai_status(status: int) -> int:
    """Their clients know one status for whatever is wrong with a request."""
    return 400 if status in (415, 422) else status


def _openai_type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"


def install(app: FastAPI) -> None:
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.ServiceError)
    fields = error.problems if isinstance(error, errors.InvalidOption) else ()
    headers = {}
    if isinstance(error, (errors.Unavailable, errors.TooManyRequests)):
        headers["Retry-After"] = str(error.retry_after_s)
        emit("request.refused", code=error.code, reason=str(error))
    if isinstance(error, errors.TooSlow):
        headers["Connection"] = "close"  # the server would read the rest for as long as it comes
        emit("request.refused", code=error.code, reason=str(error))
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return answer(request, error.status, error.code, str(error), fields=fields, headers=headers)


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [(".".join(str(part) for part in item["loc"][1:]), str(item["msg"])) for item in error.errors()]
    detail = "; ".join(f"{field}: {message}" for field, message in fields)
    return answer(request, 422, "invalid_option", detail, fields=fields)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = phrase(error.status_code).lower().replace(" ", "_")
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else _hint(request, error.status_code)
    return answer(request, error.status_code, code, detail, headers=dict(error.headers or {}))


def _hint(request: Request, status: int) -> str:
    if status == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {request.url.path}. The API is described at /docs."
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not possible at {request.url.path}. The API is described at /docs."
    return phrase(status)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    structlog.get_logger("api").error("request.crashed", path=request.url.path, exc_info=error)
    detail = "The service failed in an unexpected way. The operator's log has the details under this request id."
    return answer(request, 500, "internal_error", detail)


def answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    fields: Sequence[tuple[str, str]] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem in the shape that the clients of this path know."""
    if request.url.path.startswith(OPENAI_PATHS):
        param = fields[0][0] if fields else None
        return JSONResponse(openai_problem(status, code, detail, param), openai_status(status), headers)
    problem = Problem(
        title=phrase(status),
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        errors=[FieldProblem(field=field, message=message) for field, message in fields] or None,
        request_id=request.scope.get("request_id"),
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)
