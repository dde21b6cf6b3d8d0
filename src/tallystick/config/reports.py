"""`[reports]`"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tallystick.config.base import Settings


class ReportSettings(Settings, frozen=True):
    """`[reports]`"""

    frameworks: Annotated[
        tuple[str, ...],
        Meta(
            description="Framework files of your own (docs/reports.md); one with the id of a built-in takes its place. Relative paths "
            "start at this file."
        ),
    ] = ()
