"""Metrics of delivery. No tenant label (DESIGN section 5)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter("tallystick_delivery_attempts_total", "Attempts to send a cut, by answer.", ["destination", "answer"])
ATTEMPT_SECONDS = Histogram("tallystick_delivery_attempt_seconds", "Time of one attempt.", ["destination"])
EVENTS_SETTLED = Counter("tallystick_events_settled_total", "Events settled, by outcome.", ["destination", "outcome"])
LAG_EVENTS = Gauge(
    "tallystick_destination_lag_events", "Sealed events not settled.", ["destination"], multiprocess_mode="mostrecent"
)
OLDEST_PENDING_SECONDS = Gauge(
    "tallystick_destination_oldest_pending_seconds",
    "How long the oldest pending event has been waiting since it was received.",
    ["destination"],
    multiprocess_mode="mostrecent",
)
