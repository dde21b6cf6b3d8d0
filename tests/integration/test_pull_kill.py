"""The source `pull` on a real server that is killed while it reads three vendors' pages, with the configuration of its docs page."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support import vendors
from support.server import Server, wait_for
from support.vendors import Answer

DOC = Path(__file__).parents[2] / "docs" / "sources" / "pull.md"
COUNT = 120


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OKTA_TOKEN", "GITHUB_TOKEN", "M365_SECRET"):
        monkeypatch.setenv(name, "a-token")


@pytest.mark.usefixtures("_environment")
def test_killed_while_pages_are_read(make_server: Callable[[str], Server]) -> None:
    """Five kills, rate limits and errors: each record is one event, and the mapping is the definition's.

    At the last kill the places are those of the first, as after a crash between the commits of pages and the save of their place.
    """
    (configuration,) = re.findall(r"```toml\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL)
    with ExitStack() as stack:
        found = {
            "okta": stack.enter_context(vendors.serve(vendors.okta)),
            "github": stack.enter_context(vendors.serve(vendors.github)),
            "m365": stack.enter_context(vendors.serve(vendors.microsoft365)),
        }
        for name, vendor in found.items():
            vendor.add(COUNT)
            vendor.trouble = [Answer(429, {}, {"Retry-After": "1"}), Answer(500, {})]
            own = f'[sources.{name}]\nbase = "{vendor.base}"\nallow_private = true\ninterval = "200ms"\n'
            configuration = configuration.replace(f"[sources.{name}]\n", own)
        m365 = found["m365"].base
        configuration = configuration.replace('client_id = "c"', f'client_id = "c", token_url = "{m365}/token"')
        configuration = configuration.replace('"Audit.General", "Audit.AzureActiveDirectory"', '"Audit.General"')
        server = make_server('[seal]\ninterval = "50ms"\nroot_interval = "500ms"\n' + configuration).start()
        chance = random.Random(11)
        places = server.data / "sources"
        for kill in range(5):
            time.sleep(chance.uniform(0.1, 0.8))
            server.kill()
            if kill == 0:
                before = {file: file.read_bytes() for file in places.rglob("places.[ab]")}
            if kill == 4:
                for file in places.rglob("places.[ab]"):
                    file.unlink()
                for file, content in before.items():
                    file.write_bytes(content)
            for vendor in found.values():
                vendor.add(10, age_s=1)
            server.start()
        total = COUNT + 50

        def is_all_there() -> bool:
            return _held(server) == dict.fromkeys(found, total)

        wait_for(is_all_there, f"{total} of each", 90, 0.5)
        page = server.status()["sources"]
        assert [page[name]["reason"] for name in found] == ["", "", ""]
        assert page["okta"]["lag_seconds"] < 60
        assert all(page[name]["duplicates"] for name in found)
        wait_for(lambda: server.status()["tenants"]["acme"]["sealed"] >= 3 * total, "everything to be sealed")
        rows = _rows(server)
        for name in found:
            numbers = Counter(_number(row) for row in rows if row["source"]["name"] == name)
            assert numbers == Counter(range(total)), name
        assert {row["ingest"]["mapping"] for row in rows if row["source"]["name"] == "github"} == {"github_audit"}
        server.stop()
        server.verify()


def _rows(server: Server) -> list[dict[str, Any]]:
    answer = server.http.get("/v1/export", params={"tenant": "acme", "query": "NOT action:tallystick.*"})
    return [json.loads(line) for line in answer.iter_lines()] if answer.status_code == 200 else []


def _held(server: Server) -> dict[str, int]:
    return dict(Counter(row["source"]["name"] for row in _rows(server)))


def _number(row: dict[str, Any]) -> int:
    return int(json.loads(str(row["raw"]))["number"])
