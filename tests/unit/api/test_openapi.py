"""The OpenAPI document and the pages around it."""

from __future__ import annotations

import re

from support.api_rig import Rig
from tallystick.api.openapi import build_document


async def test_the_document_describes_every_route(rig: Rig) -> None:
    """Each path has an operation id, a summary, descriptions of its parameters and the answers that all calls share."""
    async with rig.client() as client:
        document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/events", "/v1/in/{source}", "/healthz/live", "/healthz/ready", "/metrics", "/log/{handle}/checkpoint"} <= set(
        document["paths"]
    )
    assert set(document["paths"]["/v1/events"]) == {"get", "post"}
    ids = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            ids.append(operation["operationId"])
            assert operation["summary"], (method, path)
            assert all(parameter.get("description") for parameter in operation.get("parameters", [])), (method, path)
            if not path.startswith("/healthz") and not path.endswith("/health"):
                assert {"400", "401", "403"} <= set(operation["responses"]), (method, path)
    assert len(ids) == len(set(ids))


async def test_every_path_parameter_is_declared(rig: Rig) -> None:
    """Names in braces and declared path parameters are the same."""
    for path, item in build_document(rig.app)["paths"].items():
        for operation in item.values():
            declared = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path)), path


async def test_references_lead_somewhere(rig: Rig) -> None:
    """Every $ref names a schema that is there."""
    async with rig.client() as client:
        answer = await client.get("/openapi.json")
    schemas = answer.json()["components"]["schemas"]
    for name in re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', answer.text):
        assert name in schemas


async def test_the_intake_answers_are_all_there(rig: Rig) -> None:
    """POST /v1/events lists every status of DESIGN section 5."""
    operation = build_document(rig.app)["paths"]["/v1/events"]["post"]
    assert {"200", "400", "401", "403", "409", "413", "415", "422", "429", "503"} <= set(operation["responses"])
    assert "application/x-ndjson" in operation["requestBody"]["content"]


async def test_the_docs_page_loads_nothing_from_elsewhere(rig: Rig) -> None:
    """One HTML page that names every operation, without script or foreign resource."""
    async with rig.client() as client:
        answer = await client.get("/docs")
    assert answer.status_code == 200
    assert "POST /v1/events" in answer.text
    assert "<script" not in answer.text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', answer.text)
