"""The server holds what `/openapi.json` promises, for data that fits the document and for data that does not (Schemathesis)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from support.server import ADMIN_KEY
from support.target import Target, event, run_target

EXAMPLES = 16
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]
CONFIGURATION = """
[limits]
failed_logins = 1000000
[sources.github]
type = "http"
mapping = "github_audit"
[destinations.disk]
type = "file"
path = "out.jsonl"
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with run_target(tmp_path_factory.mktemp("openapi"), CONFIGURATION) as running:
        running.accept(b"\n".join(json.dumps(event()).encode() for _ in range(20)))
        running.post(b"{}", on_invalid="quarantine")
        yield running


@pytest.fixture(scope="module")
def document(target: Target) -> dict[str, Any]:
    loaded: dict[str, Any] = target.server.http.get("/openapi.json").json()
    return loaded


@pytest.fixture(scope="module")
def described(target: Target, document: dict[str, Any]) -> BaseSchema:
    config = SchemathesisConfig.from_dict({"generation": {"mode": "all", "deterministic": True}})
    loaded = schemathesis.openapi.from_dict(document, config=config)
    loaded.config.update(base_url=target.server.url)
    return loaded


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_documented(described: BaseSchema, mode: GenerationMode) -> None:
    """No 5xx but a 503 with Retry-After, no undocumented status, content type, header or form of an answer."""
    faults: dict[str, str] = {}
    for result in described.exclude(operation_id="tailEvents").get_all_operations():
        operation = result.ok()
        try:
            probe(operation, mode)
        except Exception as error:
            faults[operation.label] = f"{type(error).__name__}: {error}"
    assert not faults, "\n\n".join(f"{label}\n{fault[:3000]}" for label, fault in faults.items())


def probe(operation: APIOperation, mode: GenerationMode) -> None:
    """Call one operation with generated data and judge each answer."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def run(case: Case) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        answer = case.call(headers=headers, timeout=20)
        assert answer.status_code < 500 or (answer.status_code == 503 and answer.headers["retry-after"]), answer.text
        case.validate_response(answer, checks=CHECKS, headers=headers)

    with contextlib.suppress(Unsatisfiable):  # there is no wrong data for an operation without parameters
        run()


def test_the_live_tail_is_documented(target: Target, document: dict[str, Any]) -> None:
    """The one endless answer: its head has the documented status and type; a bad query is a clean 400."""
    answers = document["paths"]["/v1/tail"]["get"]["responses"]
    with target.server.http.stream("GET", "/v1/tail") as answer:
        assert str(answer.status_code) in answers
        assert answer.headers["content-type"].partition(";")[0] in answers["200"]["content"]
    refused = target.server.http.get("/v1/tail", params={"query": "(("})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
