"""``/openapi.json`` and ``/docs``: the api's own routes as Litestar sees them, the intake's by hand, and the answers all share."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
import msgspec
from litestar import Litestar, Request, Response, get

from tallystick import __version__
from tallystick.api.openapi_intake import intake_paths, intake_schemas

_SHARED = {
    "400": "A parameter or the body is not understood; the place is named.",
    "401": "No key, or one that is unknown, expired or revoked.",
    "403": "The key lacks the permission.",
    "404": "No such thing, or not yours: the answer is the same.",
    "405": "Another method; `Allow` names those that there are.",
    "421": "A Host header that this server does not serve.",
    "431": "The request line and headers are larger than `/v1/limits` says.",
    "429": "Too many requests.",
    "503": "Too busy, or a part that is needed does not answer; `Retry-After` says when to come back.",
}
_WITH_BODY = {
    "409": "It was settled, or exists already.",
    "413": "The body is too large.",
    "415": "The body is no JSON.",
    "422": "Understood, but it cannot be done.",
}
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FunctionLoader(lambda name: (files("tallystick.api") / name).read_text("utf-8")), autoescape=True
)


def build_document(app: Litestar) -> dict[str, Any]:
    """The whole OpenAPI 3.1 document."""
    document: dict[str, Any] = app.openapi_schema.to_schema()
    document["openapi"] = "3.1.0"
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(intake_schemas())
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer ts_<id>_<secret>`"}
    }
    document["security"] = [{"key": []}]
    for item in document["paths"].values():
        for method, operation in item.items():
            _complete(method, operation)
    for path, item in intake_paths().items():
        document["paths"].setdefault(path, {}).update(item)
    document["paths"] = dict(sorted(document["paths"].items()))
    return document


def _complete(method: str, operation: dict[str, Any]) -> None:
    answers = operation.setdefault("responses", {})
    answers.pop("400", None)
    for answer in answers.values():
        whole = answer.get("content", {}).get("application/json", {})
        if whole.get("schema", {}).get("type") == "string":
            # A handler that gives bytes as they are, such as a canonical line: Litestar sees text, the caller gets a document.
            whole["schema"] = {"type": "object"}
    for status, text in (_SHARED | (_WITH_BODY if method == "post" else {})).items():
        answers.setdefault(
            status,
            {"description": text, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}},
        )
    if method == "post" and "requestBody" not in operation:
        operation.pop("requestBody", None)


@get("/openapi.json", include_in_schema=False, media_type="application/json")
async def get_openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """OpenAPI 3.1."""
    return Response(msgspec.json.encode(document_of(request.app)), media_type="application/json")


@get("/docs", include_in_schema=False, media_type="text/html")
async def get_docs(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The same document to read; one page, nothing from elsewhere."""
    page = _TEMPLATES.get_template("docs.html").render(
        document=document_of(request.app), operations=_operations(document_of(request.app))
    )
    return Response(page.encode(), media_type="text/html")


def document_of(app: Litestar) -> dict[str, Any]:
    """The document, built once per app."""
    if "openapi_document" not in app.state:
        app.state["openapi_document"] = build_document(app)
    document: dict[str, Any] = app.state["openapi_document"]
    return document


def _operations(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Operations by tag, in the order of their paths."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append({"path": path, "method": method.upper(), **operation})
    return dict(sorted(groups.items()))


TITLE, VERSION = "Tallystick", __version__
HANDLERS = [get_openapi, get_docs]
