"""Send events from an application and read them back.

export TALLYSTICK_URL=http://127.0.0.1:8420 TALLYSTICK_KEY=ts_...
python client.py
"""

from __future__ import annotations

import tallystick
from tallystick.client import ProblemError


def main() -> None:
    with tallystick.Client() as log:
        # One event. `action` and `actor` are all that is needed; a string as actor is a user's id.
        log.send(action="user.login", actor="u_17", outcome="success")

        # What changed, on whose behalf, from where: the fields an investigator will ask for.
        answer = log.send(
            action="role.grant",
            actor={"type": "user", "id": "u_17", "name": "Ana", "roles": ["support"]},
            on_behalf_of=[{"type": "user", "id": "u_9", "mode": "impersonation"}],
            targets=[{"type": "user", "id": "u_22", "name": "Bob"}],
            outcome="success",
            reason="ticket T-118",
            context={"ip": "203.0.113.9", "session_id": "s_81"},
            changes=[{"path": "/role", "op": "replace", "before": "member", "after": "admin"}],
            metadata={"app_version": "4.2.0"},
        )
        receipt = answer.receipts[0]
        print(f"in {receipt.log} at {receipt.ranges}, root of this request {receipt.batch_root}")

        # Many at once are stored all or none. An id of your own makes a repeat harmless.
        batch = [{"id": f"import-{n}", "action": "invoice.view", "actor": "u_17"} for n in range(100)]
        first, again = log.send_many(batch), log.send_many(batch)
        print(f"first {first.accepted} accepted, then {again.duplicates} duplicates")

        # A refused request names every bad line.
        try:
            log.send_many([{"action": "user.login"}])
        except ProblemError as error:
            print(f"refused: {error}")

        for event in log.search("actor.id:u_17 AND action:role.*", limit=5):
            print(event["occurred_at"], event["action"], event["targets"][0]["name"])


if __name__ == "__main__":
    main()
