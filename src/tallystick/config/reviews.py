"""`[reviews.*]`: what somebody has to look through again and again, and how often."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from tallystick.config.base import Settings
from tallystick.config.units import Duration


class ReviewSettings(Settings, frozen=True):
    """`[reviews.NAME]`: a review that is due again and again."""

    tenant: Annotated[
        str,
        Meta(
            description="Whose events are reviewed; `_tallystick` is the server's own log.",
            pattern=r"\A(_tallystick|[a-z0-9][a-z0-9_-]{0,62})\Z",
        ),
    ]
    query: Annotated[str, Meta(description="Which of them; empty for all.", max_length=8_192)] = ""
    every: Annotated[
        Duration, Meta(description="Time from one sign-off to the next, and from the tenant's first event to the first one.")
    ] = field(default_factory=lambda: Duration("30d"))
    owner: Annotated[str, Meta(description="Who answers for it; shown where it is overdue.", max_length=256)] = ""

    def __post_init__(self) -> None:
        if self.every.seconds < 1:
            raise ValueError(f"every = {self.every.text!r} is shorter than a second")
