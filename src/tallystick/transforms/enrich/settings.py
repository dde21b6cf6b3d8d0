"""`[transforms.NAME]` with `type = "enrich"`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from tallystick.config.settings import Settings
from tallystick.config.units import Duration, Size
from tallystick.transforms.shape import ChosenSettings


class LookupSettings(Settings, frozen=True, kw_only=True):
    """One of `lookups`."""

    file: Annotated[
        str, Meta(description="The table: CSV with a line of names, or Parquet (`.parquet`); its path starts at this file.")
    ]
    key: Annotated[str, Meta(description="Path in the event whose value is looked up, as in `actor.id`.")]
    column: Annotated[str, Meta(description="The column that it is looked up in. A value that is in it twice makes the file bad.")]
    columns: Annotated[
        dict[str, str],
        Meta(description="Column → where its value goes below `to`, as in `team` or `org.team`. An empty cell adds nothing."),
    ]
    to: Annotated[str, Meta(description="Path below `enrichment` of what is added, as in `enrichment.people`.")]
    match: Annotated[
        Literal["exact", "ignore_case", "network"],
        Meta(description="`network`: the column has addresses and CIDR ranges; the narrowest range that holds the value counts."),
    ] = "exact"


class GeoSettings(Settings, frozen=True, kw_only=True):
    """One of `geo`."""

    database: Annotated[
        str, Meta(description="An MMDB file, its path from this file; or `iptocc`: the country, from the package of that name.")
    ]
    key: Annotated[str, Meta(description="Path in the event of the address.")] = "context.ip"
    to: Annotated[str, Meta(description="Path below `enrichment` of what is added.")] = "enrichment.geo"
    fields: Annotated[
        dict[str, str],
        Meta(
            description='Name → path in the database\'s record, as in `{ city = "city.names.de" }`. Without: `country`, `region`, `city`, `latitude`, '
            "`longitude`, `asn`, `as_name`, from wherever the usual databases have them."
        ),
    ] = field(default_factory=dict)


class UserAgentSettings(Settings, frozen=True, kw_only=True):
    """One of `user_agents`."""

    key: Annotated[str, Meta(description="Path in the event of the User-Agent's text.")] = "context.user_agent"
    to: Annotated[str, Meta(description="Path below `enrichment` of what is added.")] = "enrichment.user_agent"


class ThreatSettings(Settings, frozen=True, kw_only=True):
    """One of `threats`."""

    file: Annotated[
        str,
        Meta(
            description="The list: an indicator a line (`#` begins a comment), or CSV where `column` is set; its path starts at this file."
        ),
    ]
    name: Annotated[str, Meta(description="What a hit calls the list; default: the file's name without its ending.")] = ""
    keys: Annotated[tuple[str, ...], Meta(description="Paths in the event whose values are looked for.", min_length=1)] = (
        "context.ip",
    )
    to: Annotated[str, Meta(description="Path below `enrichment` of the list of hits; threat lists share it.")] = (
        "enrichment.threats"
    )
    column: Annotated[str, Meta(description="CSV: the column of the indicators.")] = ""
    note: Annotated[str, Meta(description="CSV: a column that a hit quotes, as for a campaign's name.")] = ""
    expires: Annotated[
        str,
        Meta(description="CSV: the column with the time (RFC 3339, a date, or Unix seconds) from which on an indicator is no hit."),
    ] = ""
    expire_after: Annotated[
        Duration | None, Meta(description="Age of the file at which those of its indicators expire that have no time of their own.")
    ] = None


class EnrichSettings(ChosenSettings, frozen=True, kw_only=True):
    """`[transforms.x]` with `type = "enrich"`."""

    lookups: Annotated[tuple[LookupSettings, ...], Meta(description="Tables of your own.")] = ()
    geo: Annotated[tuple[GeoSettings, ...], Meta(description="Where addresses are. Private and reserved ones give nothing.")] = ()
    user_agents: Annotated[
        tuple[UserAgentSettings, ...], Meta(description="Browser, system and device, told from the text of the User-Agent.")
    ] = ()
    threats: Annotated[
        tuple[ThreatSettings, ...], Meta(description="Lists of addresses, networks, domains and hashes to be told of.")
    ] = ()
    reload_every: Annotated[
        Duration, Meta(description="How often it is looked whether a file changed. A bad new file leaves the one before in force.")
    ] = field(default_factory=lambda: Duration("5s"))
    file_max: Annotated[
        Size, Meta(description="Largest file; of Parquet, also largest once it is unpacked. A larger one is bad.")
    ] = field(default_factory=lambda: Size("128MiB"))
    rows_max: Annotated[int, Meta(description="Most rows of a table or list.", ge=1)] = 1_000_000
    memo: Annotated[
        int,
        Meta(
            description="Values, for each table, database and list, whose answer is remembered; those over 512 bytes never are.",
            ge=1,
        ),
    ] = 32_768
