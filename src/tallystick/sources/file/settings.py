"""`[sources.NAME]` with `type = "file"`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import re2
from msgspec import Meta, field

from tallystick.config import Duration, Size
from tallystick.errors import ConfigError
from tallystick.protocols.joining import ByKey, EachLine, FromStart, Joiner
from tallystick.sources.kind import MappedSettings

AUDITD = "auditd"
_AUDITD_KEY = r"msg=audit\([0-9.]+:([0-9]+)\)"
_AUDITD_END = r"^(?:node=\S+ )?type=EOE "


class FileSettings(MappedSettings, frozen=True, kw_only=True):
    """Which files are followed, and how their bytes become records."""

    paths: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(
            description="Paths or patterns (`*`, `?`, `[…]`, `**`) of the files, relative to the configuration file.", min_length=1
        ),
    ]
    exclude: Annotated[tuple[str, ...], Meta(description="Patterns of files to leave out, though `paths` names them.")] = ()
    read_from: Annotated[
        Literal["beginning", "end"],
        Meta(description="Where files that are there at the source's first start are begun; later ones are always read whole."),
    ] = "beginning"
    start: Annotated[
        str | None, Meta(description="Pattern (RE2) that the first line of a record matches; the lines behind it belong to it.")
    ] = None
    join: Annotated[
        str | None,
        Meta(description="Lines with the same key are one record: a pattern (RE2) whose first group is the key, or `auditd`."),
    ] = None
    join_end: Annotated[str | None, Meta(description="Pattern (RE2) of the line that ends a record made by `join`.")] = None
    join_wait: Annotated[Duration, Meta(description="Records made of several lines wait this long for more of them.")] = field(
        default_factory=lambda: Duration("2s")
    )
    line_max: Annotated[
        Size,
        Meta(
            description="Longest line, and longest record of several. Of a longer line only the beginning is kept, in quarantine."
        ),
    ] = field(default_factory=lambda: Size("1MiB"))
    watch: Annotated[
        Literal["poll", "inotify"],
        Meta(description="`inotify` notices changes at once; local file systems only. It looks at every `poll` too."),
    ] = "poll"
    poll: Annotated[Duration, Meta(description="Time between two looks at the files.")] = field(
        default_factory=lambda: Duration("500ms")
    )
    rotate_wait: Annotated[
        Duration, Meta(description="A file that was renamed or deleted is followed until nothing came for this time.")
    ] = field(default_factory=lambda: Duration("30s"))
    files_max: Annotated[int, Meta(description="Files held open at once.", ge=1)] = 256

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError for patterns that RE2 does not take, or that do not go together."""
        if self.start is not None and self.join is not None:
            raise ConfigError("start and join exclude each other", place="join", hint="Records are joined in one way or the other")
        if self.join_end is not None and (self.join is None or self.join == AUDITD):
            raise ConfigError("it needs a `join` with a pattern", place="join_end")
        if self.line_max.bytes < 1024:
            raise ConfigError("it is at least 1KiB", place="line_max")
        for name in ("start", "join_end"):
            _compiled(getattr(self, name), name)
        if self.join not in (None, AUDITD) and _compiled(self.join, "join").groups < 1:
            raise ConfigError("the pattern has no group that is the key", place="join", hint=r"As in 'serial=(\d+)'")

    def joiner(self, given: list[int]) -> Joiner:
        """How lines become records. ``given``: places of lines behind the first that was held, which were given out already."""
        wait_s, record_max = self.join_wait.seconds, self.line_max.bytes
        if self.start is not None:
            return FromStart(_compiled(self.start, "start"), wait_s, record_max)
        if self.join == AUDITD:
            return ByKey(_compiled(_AUDITD_KEY, "join"), _compiled(_AUDITD_END, "join_end"), wait_s, record_max, given)
        if self.join is not None:
            return ByKey(_compiled(self.join, "join"), _compiled(self.join_end, "join_end"), wait_s, record_max, given)
        return EachLine()


def _compiled(pattern: str | None, name: str) -> Any:
    """The pattern for bytes; None for None. Raises ConfigError."""
    if pattern is None:
        return None
    try:
        return re2.compile(pattern.encode())
    except re2.error as error:
        raise ConfigError(
            f"RE2 does not take the pattern: {error}", place=name, hint="github.com/google/re2/wiki/Syntax"
        ) from error
