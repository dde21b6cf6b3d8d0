"""`[retention]`: how long events are kept, by class, and what holds expiry back."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, field

from tallystick.config.base import Settings
from tallystick.config.units import Duration

DEFAULT_CLASS = "standard"
DEFAULT_PERIOD = "400d"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class ClassSettings(Settings, frozen=True):
    """`[retention.classes.NAME]`: events of one retention class."""

    period: Annotated[Duration, Meta(description="How long events are kept, counted from `received_at`.")] = field(
        default_factory=lambda: Duration(DEFAULT_PERIOD)
    )
    floor: Annotated[
        Duration, Meta(description="No tenant's own period for this class may be shorter. Longer than `period` is refused.")
    ] = field(default_factory=lambda: Duration("0s"))
    where: Annotated[
        str | None,
        Meta(
            description="Query over the event as it is stored: what matches gets this class at intake. The first class in the "
            "file that matches wins; what none takes is `standard`."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.period.seconds < 1:
            raise ValueError(f"period = {self.period.text!r} is shorter than a second")
        if self.floor.seconds > self.period.seconds:
            raise ValueError(f"floor = {self.floor.text!r} is longer than the period of {self.period.text}")


class RetentionSettings(Settings, frozen=True):
    """`[retention]`"""

    classes: Annotated[
        dict[str, ClassSettings],
        Meta(description="Retention classes by name: `[retention.classes.NAME]`. `standard` is there without a table."),
    ] = field(default_factory=dict)
    interval: Annotated[Duration, Meta(description="Time between two looks for what has expired.")] = field(
        default_factory=lambda: Duration("1m")
    )
    brake_percent: Annotated[
        int,
        Meta(
            description="Expiry stops, until a person lets it go on, when more of all archived events are due at once.",
            ge=0,
            le=100,
        ),
    ] = 25
    brake_events: Annotated[int, Meta(description="So many events may expire at once whatever part of all they are.", ge=0)] = 1_000
    clock_jump: Annotated[
        Duration,
        Meta(
            description="Expiry stops when the clock is further ahead than this of where it should be; also when the server was "
            "off for longer."
        ),
    ] = field(default_factory=lambda: Duration("3d"))
    shorten_delay: Annotated[
        Duration, Meta(description="A shorter period is announced in the root log and in force only after this time.")
    ] = field(default_factory=lambda: Duration("7d"))

    def __post_init__(self) -> None:
        for name in self.classes:
            if not _NAME.fullmatch(name):
                raise ValueError(f"classes = {name!r} is no name of a class: a-z, 0-9, _ and -, at most 63 characters")
        standard = self.classes.get(DEFAULT_CLASS)
        if standard is not None and standard.where is not None:
            raise ValueError("classes = `standard` takes what no other class takes; it has no `where`")

    def check(self, periods: dict[str, Duration]) -> None:
        """Hold a tenant's own periods to what there is. Raises ValueError."""
        for name, period in periods.items():
            if name not in self.known:
                raise ValueError(f"there is no retention class {name!r}; there are {', '.join(self.known)}")
            floor = self.known[name].floor
            if period.seconds < max(floor.seconds, 1):
                raise ValueError(f"{period.text} is less than the floor of {name}, {floor.text}, or than a second")

    @property
    def known(self) -> dict[str, ClassSettings]:
        """All classes, `standard` among them, in the order of the file."""
        return self.classes if DEFAULT_CLASS in self.classes else {**self.classes, DEFAULT_CLASS: ClassSettings()}
