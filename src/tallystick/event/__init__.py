"""The event: its model, its strict reading and its canonical line."""

from tallystick.event.model import (
    Actor,
    Change,
    Context,
    Delegate,
    Event,
    Ingest,
    Producer,
    Redaction,
    SealedGroup,
    Source,
    Target,
)

__all__ = [
    "Actor",
    "Change",
    "Context",
    "Delegate",
    "Event",
    "Ingest",
    "Producer",
    "Redaction",
    "SealedGroup",
    "Source",
    "Target",
]
