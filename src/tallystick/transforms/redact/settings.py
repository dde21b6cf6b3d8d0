"""`[transforms.NAME]` with `type = "redact"`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from tallystick.config.settings import Settings

Action = Literal["mask", "drop", "partial", "hash"]


class PathRule(Settings, frozen=True):
    """One of `paths`."""

    path: Annotated[
        str,
        Meta(description="JSON Pointer into the event, as in `/metadata/customer/*/name`; `*` stands for one member or element."),
    ]
    action: Annotated[Action, Meta(description="As `action`.")] = "mask"


class RedactSettings(Settings, frozen=True):
    """`[transforms.x]` with `type = "redact"`."""

    secrets: Annotated[bool, Meta(description="Look for secrets: members named for one, and tokens of known form in any text.")] = (
        True
    )
    personal: Annotated[
        bool | tuple[str, ...],
        Meta(description="Look for personal data: `true`, or some of `email`, `card_number`, `iban`, `ssn`, `phone`."),
    ] = False
    keys: Annotated[tuple[str, ...], Meta(description="Further member names whose values are secrets, whole and in any case.")] = ()
    allow: Annotated[tuple[str, ...], Meta(description="Member names that are no secrets though they sound so.")] = ()
    without: Annotated[tuple[str, ...], Meta(description="Rules that do not count here, by the names in `ingest.redactions`.")] = ()
    paths: Annotated[
        tuple[PathRule, ...], Meta(description="Places in the event whose value goes, whatever it is: `{ path, action }`.")
    ] = ()
    action: Annotated[
        Action,
        Meta(
            description="What is done with a secret. `mask` puts `[REDACTED:<rule>]` in place; `drop` takes the member away; `partial` leaves the "
            "last few characters of a long value; `hash` puts a keyed hash in place, which is the same for the same value of a tenant."
        ),
    ] = "mask"
    personal_action: Annotated[Action, Meta(description="The same for personal data.")] = "mask"
