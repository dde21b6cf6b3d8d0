"""A sender without manners, in a process of its own: the same body on many connections, again and again, whatever the answer is.

``python -m support.flood PORT SECRET CONNECTIONS SECONDS BODY_FILE`` prints one JSON object: status or error → count, and the
smallest Retry-After that came with a refusal.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any


def start_flood(port: int, secret: str, connections: int, seconds: float, body: Path) -> subprocess.Popen[bytes]:
    """Start it; `result_of` waits for its end."""
    command = [sys.executable, "-m", "support.flood", str(port), secret, str(connections), str(seconds), str(body)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])


def result_of(flood: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What the flood printed."""
    out, _ = flood.communicate(timeout=120)
    assert flood.returncode == 0
    result: dict[str, Any] = json.loads(out)
    return result


def _send(port: int, secret: str, body: bytes, deadline: float, counts: Counter[str], advice: list[int]) -> None:
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/x-ndjson"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < deadline:
        try:
            connection.request("POST", "/v1/events", body, headers)
            answer = connection.getresponse()
            answer.read()
            counts[str(answer.status)] += 1
            if answer.status in (429, 503):
                advice.append(int(answer.getheader("retry-after", "-1")))
        except (OSError, http.client.HTTPException) as error:
            counts[type(error).__name__] += 1
            connection.close()
    connection.close()


def main() -> None:
    port, secret, connections, seconds, path = sys.argv[1:]
    body = Path(path).read_bytes()
    deadline = time.monotonic() + float(seconds)
    counts: Counter[str] = Counter()
    advice: list[int] = []
    threads = [
        threading.Thread(target=_send, args=(int(port), secret, body, deadline, counts, advice)) for _ in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"counts": counts, "retry_after_min": min(advice, default=None)}))


if __name__ == "__main__":
    main()
