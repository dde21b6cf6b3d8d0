"""Query parameters: read strictly, described once for the handlers and the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import QueryParameter

from tallystick.errors import EventInvalidError
from tallystick.event.strict import compact, require_strict
from tallystick.http.problem import Problem

QueryText = Annotated[
    str, QueryParameter(name="query", description="The search, in the query grammar; empty matches all.", max_length=32_768)
]
FromTime = Annotated[
    str | None, QueryParameter(name="from", description="Inclusive start: RFC 3339, or back from now as in `-24h`.", max_length=64)
]
ToTime = Annotated[
    str | None, QueryParameter(name="to", description="Exclusive end: RFC 3339, or back from now as in `-1h`.", max_length=64)
]
TimeField = Annotated[
    Literal["occurred_at", "received_at"],
    QueryParameter(name="time", description="Which time `from`, `to` and the order refer to."),
]
TenantParam = Annotated[
    str | None,
    QueryParameter(name="tenant", description="Whose events; may be left out when the key is bound to one tenant.", max_length=63),
]
PageLimit = Annotated[int, QueryParameter(name="limit", description="Most entries in the answer.", ge=1, le=1_000)]

_DEPTH_MAX = 32
_RELATIVE = re.compile(r"-(\d{1,9})(s|m|h|d|w)")
_ABSOLUTE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def bad_parameter(name: str, message: str) -> Problem:
    """The 400 answer that names the parameter."""
    return Problem(400, "parameter_invalid", f"`{name}`: {message}", errors=[{"pointer": f"?{name}", "message": message}])


def read_time(name: str, text: str | None, now: datetime) -> datetime | None:
    """RFC 3339 or ``-<n><s|m|h|d|w>`` before ``now``; None stays None. Raises the 400 problem."""
    if text is None or text == "":
        return None
    if text == "now":
        return now
    relative = _RELATIVE.fullmatch(text)
    try:
        if relative:
            return now - timedelta(seconds=int(relative[1]) * _SECONDS[relative[2]])
        # A plus sign in a query string decodes to a blank; accept it where only a zone can follow.
        candidate = re.sub(r" (\d{2}:\d{2})$", r"+\1", text)
        if _ABSOLUTE.fullmatch(candidate):
            return datetime.fromisoformat(candidate.replace("z", "Z").replace("t", "T")).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise bad_parameter(name, "expected RFC 3339 such as `2026-01-31T12:00:00Z`, or back from now such as `-24h`")


def read_range(start: str | None, end: str | None, now: datetime | None = None) -> tuple[datetime | None, datetime | None]:
    """Both ends of a time range. Raises the 400 problem when it is empty by construction."""
    at = now or datetime.now(UTC)
    first, last = read_time("from", start, at), read_time("to", end, at)
    if first is not None and last is not None and first > last:
        raise bad_parameter("from", "must not be later than `to`")
    return first, last


def query_names(handler: BaseRouteHandler) -> frozenset[str]:
    """The query parameters that a handler declares."""
    names = set()
    for parameter in handler.parsed_fn_signature.parameters.values():
        kwarg = parameter.kwarg_definition
        if isinstance(kwarg, QueryParameter) and kwarg.name:
            names.add(kwarg.name)
    return frozenset(names)


async def check_request(request: Request[Any, Any, Any]) -> None:
    """Hook before every handler: unknown and repeated query parameters are a 400, a body that is no strict JSON a 415 or 400."""
    _refuse_unknown(request)
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if has_body and request.method == "POST" and not request.route_handler.opt.get("is_form"):
        _refuse_media(request)
        _refuse_loose(await request.body())


def _refuse_media(request: Request[Any, Any, Any]) -> None:
    media, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.partition("charset=")[2].strip('" ')
    if media.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise Problem(415, "media_type_unsupported", "send application/json in UTF-8", headers={"accept": "application/json"})
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "encoding_unknown", "this call takes no compressed body", headers={"accept-encoding": "identity"})


def _refuse_loose(body: bytes) -> None:
    """Raise the 400 for JSON that two readers could understand differently (the rules of events: `event.strict`)."""
    try:
        require_strict(compact(body), _DEPTH_MAX)
    except EventInvalidError as error:
        item = {"pointer": error.pointer, "message": error.message}
        raise Problem(400, error.code, error.message, errors=[item]) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "json_invalid", "the body is no JSON") from None


def _refuse_unknown(request: Request[Any, Any, Any]) -> None:
    handler = request.route_handler
    if not isinstance(handler, HTTPRouteHandler) or handler.opt.get("any_query"):
        return
    known = query_names(handler)
    seen: set[str] = set()
    for name, _ in _pairs(request):
        if name not in known:
            raise bad_parameter(name[:64], f"unknown parameter; known here: {', '.join(sorted(known)) or 'none'}")
        if name in seen:
            raise bad_parameter(name, "given more than once")
        seen.add(name)


def _pairs(request: Request[Any, Any, Any]) -> Iterable[tuple[str, str]]:
    return request.query_params.multi_items()


def request_id_of(request: Request[Any, Any, Any]) -> str:
    """The id that the edge gave this request."""
    return str(request.scope["state"]["request_id"])
