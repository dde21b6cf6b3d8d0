"""The client: send events and read them back, over HTTP. Needs only the base install.

    with tallystick.client.Client(url, key) as log:
        log.send(action="user.login", actor="u_1")

``send`` returns when the server has the event on disk. It retries through outages with the id it chose before the first
attempt, so a retry is stored once.
"""

from tallystick.client.async_client import AsyncClient
from tallystick.client.problem import ProblemError, UnavailableError
from tallystick.client.sync_client import Client
from tallystick.client.wire import Answer, Receipt

__all__ = ["Answer", "AsyncClient", "Client", "ProblemError", "Receipt", "UnavailableError"]
