"""A receiver that answers as the REST API of OpenSearch does: bulk requests with one status for each item, documents, counts, searches by `_id`.

Dials beside those of `Receiver`: ``judge`` gives a status and an error for a document that is not taken; ``password`` is what
the user `admin` must show, empty for none; ``missing`` are indexes that do not exist and are not made.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from tallystick.testing.receiver import Receiver, Request, Said

Refusal = tuple[int, str, str]
"""Status, type and reason of an item's error."""


class OpenSearchReceiver(Receiver):
    """Indexes in memory: name → `_id` → document, in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.indexes: dict[str, dict[str, Any]] = {}
        self.judge: Callable[[Any], Refusal | None] = lambda document: None
        self.password = ""
        self.missing: set[str] = set()
        self.searchable: dict[str, set[str]] = {}

    def answer(self, request: Request) -> Said:
        if self.password and request.headers.get("authorization") != _basic(self.password):
            return Said(401, b"Unauthorized", {"content-type": "text/plain", "www-authenticate": "Basic"})
        parts = request.path.strip("/").split("/")
        if request.path == "/":
            return Said(200, {"name": "node", "version": {"number": "2.19.1", "distribution": "opensearch"}, "tagline": "receiver"})
        if parts[-1] == "_bulk" and request.method in ("POST", "PUT"):
            return self._bulk(request, parts[0] if len(parts) == 2 else "")
        if parts[-1] in ("_refresh", "_search") and parts[0] not in self.indexes:
            return Said(404, _error(404, "index_not_found_exception", f"no such index [{parts[0]}]"))
        if parts[-1] == "_refresh":
            self.searchable[parts[0]] = set(self.indexes[parts[0]])
            return Said(200, {"_shards": {"total": 2, "successful": 1, "failed": 0}})
        if parts[-1] == "_search":
            return self._search(request, parts[0])
        if parts[-1] == "_count":
            return Said(200, {"count": len(self.indexes.get(parts[0], {}))})
        if len(parts) == 3 and parts[1] == "_doc" and request.method == "GET":
            found = self.indexes.get(parts[0], {}).get(parts[2])
            page = {"_index": parts[0], "_id": parts[2], "found": found is not None}
            return Said(200, page | {"_source": found}) if found is not None else Said(404, page)
        return Said(405, {"error": f"Incorrect HTTP method for uri [{request.path}] and method [{request.method}]", "status": 405})

    def _search(self, request: Request, index: str) -> Said:
        """By `ids` alone; it sees the documents that were there at the last refresh."""
        query = msgspec.json.decode(request.body)
        wanted = set(query["query"]["ids"]["values"]) & self.searchable.get(index, set())
        held = [(name, document) for name, document in self.indexes[index].items() if name in wanted]
        hits = [{"_id": name, "_source": document} for name, document in held[: query.get("size", 10)]]
        return Said(200, {"hits": {"hits": hits}} if hits else {})

    def _bulk(self, request: Request, index: str) -> Said:
        if not request.body.endswith(b"\n"):
            return _invalid("illegal_argument_exception", "The bulk request must be terminated by a newline [\\n]")
        rows = [line for line in request.body.split(b"\n") if line]
        if not rows:
            return _invalid("action_request_validation_exception", "Validation Failed: 1: no requests added;")
        items: list[dict[str, Any]] = []
        while rows:
            action, about = next(iter(msgspec.json.decode(rows.pop(0)).items()))
            document = None if action == "delete" else msgspec.json.decode(rows.pop(0))
            items.append({action: self._item(action, about.get("_index", index), about.get("_id", f"auto-{len(items)}"), document)})
        page: dict[str, Any] = {"took": 3, "errors": any("error" in item for row in items for item in row.values()), "items": items}
        return Said(200, _filtered(page) if "filter_path" in request.query else page)

    def _item(self, action: str, index: str, name: str, document: Any) -> dict[str, Any]:
        where = {"_index": index, "_id": name}
        if index in self.missing:
            return where | _error(404, "index_not_found_exception", f"no such index [{index}]")
        held = self.indexes.setdefault(index, {})
        if action == "create" and name in held:
            reason = f"[{name}]: version conflict, document already exists (current version [1])"
            return where | _error(409, "version_conflict_engine_exception", reason)
        refusal = self.judge(document)
        if refusal is not None:
            return where | _error(*refusal)
        held[name] = document
        shards = {"total": 2, "successful": 1, "failed": 0}
        return where | {"_version": 1, "result": "created", "_shards": shards, "_seq_no": len(held) - 1, "status": 201}


def _filtered(page: dict[str, Any]) -> dict[str, Any]:
    """What `filter_path=errors,items.*.status,items.*.error` leaves."""
    kept = [
        {action: {name: item[name] for name in ("status", "error") if name in item} for action, item in row.items()}
        for row in page["items"]
    ]
    return {"errors": page["errors"], "items": kept}


def _error(status: int, kind: str, reason: str) -> dict[str, Any]:
    return {"status": status, "error": {"type": kind, "reason": reason}}


def _invalid(kind: str, reason: str) -> Said:
    return Said(400, {"error": {"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason}, "status": 400})


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
