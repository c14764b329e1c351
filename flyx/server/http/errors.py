"""How HTTP errors look: every one has the body `{"code": …, "message": …}`, its code from ErrorCode."""

from __future__ import annotations

import hmac
import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from flyx.server.admission import Admission
from flyx.server.limits import LimitReached
from flyx.server.rooms.store import UNAVAILABLE, StoreUnavailable
from flyx.signaling.messages import ErrorCode

_RETRY_AFTER = 30
_FRAMEWORK_CODES: dict[int, ErrorCode] = {
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ErrorCode.METHOD_NOT_ALLOWED,
}
"""Seconds after which a client that was told 503 may try again: rooms come and go within minutes."""

bearer = HTTPBearer(auto_error=False)
"""Dependency: the token of `Authorization: Bearer`, or None."""


class ApiError(BaseModel):
    """What every error looks like."""

    code: Annotated[str, Field(description="Stable, for programs.")]
    message: Annotated[str, Field(description="A sentence, for people.")]


class ApiFailure(HTTPException):
    """An error with a code of its own."""

    def __init__(self, status: HTTPStatus, code: ErrorCode, message: str, **headers: str) -> None:
        super().__init__(status, message, headers)
        self.code = code


def errors(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return what an operation's documentation says of these errors."""
    return {int(status): {"model": ApiError, "description": status.phrase} for status in statuses}


def unavailable(code: ErrorCode, message: str) -> ApiFailure:
    """Return the error that asks to come back later."""
    return ApiFailure(HTTPStatus.SERVICE_UNAVAILABLE, code, message, **{"Retry-After": str(_RETRY_AFTER)})


def token_is(wanted: str, given: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "surrogatepass"))


def require_token(wanted: str | None, credentials: HTTPAuthorizationCredentials | None) -> None:
    """Accept a request that has the wanted token, or any if none is wanted.

    Raises:
        ApiFailure: 401.
    """
    if wanted is None or (credentials is not None and token_is(wanted, credentials.credentials)):
        return
    message = "this needs the server's token, as Authorization: Bearer"
    raise ApiFailure(HTTPStatus.UNAUTHORIZED, ErrorCode.BAD_TOKEN, message, **{"WWW-Authenticate": "Bearer"})


def add_error_handlers(app: FastAPI, admission: Admission) -> None:
    """Give every error of app the body of an ApiError; limits reached are counted by admission."""

    async def limit_reached(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LimitReached)
        admission.rejected(error.limit)
        body = ApiError(
            code=ErrorCode.RATE_LIMITED, message=f"{error.reason}; try again in {error.retry_after} s"
        )
        headers = {"Retry-After": str(error.retry_after)}
        return JSONResponse(body.model_dump(), HTTPStatus.TOO_MANY_REQUESTS, headers)

    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(LimitReached, limit_reached)
    app.add_exception_handler(StoreUnavailable, _store_away)


async def _store_away(request: Request, error: Exception) -> JSONResponse:
    return await _http_error(request, unavailable(ErrorCode.UNAVAILABLE, UNAVAILABLE))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, ApiFailure):
        code = error.code
    else:
        # From the framework; what is not in the table is a body that could not be read.
        code = _FRAMEWORK_CODES.get(error.status_code, ErrorCode.BAD_REQUEST)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _methods_of(request.app, request.url.path)
    body = ApiError(code=code, message=error.detail)
    return JSONResponse(body.model_dump(), error.status_code, headers=headers)


def _methods_of(app: FastAPI, path: str) -> str:
    """Return the methods of all operations of a path; the framework tells of one alone (RFC 9110 §10.2.1)."""
    methods: list[str] = []
    for template, operations in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path):
            methods += (method.upper() for method in operations)
    # What is no operation is there to be read.
    return ", ".join(sorted(methods)) or "GET, HEAD"


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    body = ApiError(code=ErrorCode.BAD_REQUEST, message=f"{place}: {first['msg']}")
    return JSONResponse(body.model_dump(), HTTPStatus.UNPROCESSABLE_ENTITY)
