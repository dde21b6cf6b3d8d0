"""The audit webhook as kube-apiserver calls it: URL and token out of the kubeconfig of the docs, an EventList by curl."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.ledger import OURS
from support.server import ADMIN_KEY, Server

PAGE = (Path(__file__).parents[2] / "docs/sources/kubernetes.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"```(yaml|sh|toml)\n(.*?)```", PAGE, re.DOTALL))


def test_the_configuration_of_the_docs_works(make_server: Callable[[str], Server]) -> None:
    """The page's kubeconfig names the path and the kind of key; the page's EventList becomes two linked events, in either source, once."""
    server = make_server(BLOCKS["toml"]).start()
    path = re.search(r"server: https://audit\.example\.com(\S+)", BLOCKS["yaml"])
    assert path is not None
    assert "token: ts_" in BLOCKS["yaml"]
    assert f"$TALLYSTICK_URL{path[1]}?" in BLOCKS["sh"]
    environment = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY}
    for script in (BLOCKS["sh"], BLOCKS["sh"], BLOCKS["sh"].replace(path[1], "/v1/in/cluster-a")):
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert (json.loads(done.stdout).get("quarantined"), done.stdout[:1]) == ([], "{")
    for tenant in ("default", "acme"):
        params = {"query": OURS, "order": "asc", "tenant": tenant}
        first, second = server.http.get("/v1/events", params=params).json()["events"]
        assert first["context"]["request_id"] == second["context"]["request_id"]
        assert (first["outcome"], second["outcome"], second["reason"]) == ("unknown", "denied", 'secrets "db" is forbidden')
        assert second["actor"] == {"type": "user", "id": "ann@example.com"}
        assert second["on_behalf_of"] == [{"type": "service", "id": "system:serviceaccount:shop:deployer", "mode": "impersonation"}]
        assert second["targets"] == [{"type": "secrets", "id": "shop/db"}]
        query = f'context.request_id:"{first["context"]["request_id"]}"'
        assert len(server.http.get("/v1/events", params={"query": query, "tenant": tenant}).json()["events"]) == 2
