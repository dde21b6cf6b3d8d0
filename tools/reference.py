"""Writes the generated parts of the reference pages: settings, verbs, metrics, endpoints. Run as ``python -m tools.reference``.

Each page is written by hand around one part between two marker lines; only what stands between them is replaced. What the
part says comes from the code itself (settings classes, the command, the metrics' own registry, the OpenAPI document), so a
page can be checked against the code: ``tests/unit/test_docs.py`` fails when a part is not what this module would write.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from msgspec import inspect as shapes

DOCS = Path(__file__).parents[1] / "docs"
_BEGIN, _END = "<!-- generated: python -m tools.reference -->", "<!-- end of the generated part -->"


# Settings


def settings_classes() -> dict[str, type[msgspec.Struct]]:
    """Heading → settings class, in the order of the page; plug-ins after the fixed sections."""
    from tallystick.alerts.rule import Rule, RuleTest
    from tallystick.config import (
        BatchSettings,
        CaseSettings,
        ClassSettings,
        Config,
        ContractSettings,
        DestinationSettings,
        PrivacySettings,
        ReviewSettings,
        TenantSettings,
        TlsSettings,
    )
    from tallystick.destinations import DESTINATIONS, load_destination
    from tallystick.destinations.encodings import EncodingSettings
    from tallystick.destinations.object_lock import ObjectLockSettings
    from tallystick.destinations.over_http import HttpSettings
    from tallystick.sources.forward import ForwardUser
    from tallystick.sources.kafka_login import SaslSettings
    from tallystick.sources.kind import KINDS, MappedSettings, SourceSettings, load_kind
    from tallystick.sources.listener import ListenSettings
    from tallystick.sources.pull.auth import AuthSettings
    from tallystick.sources.remote import RemoteTlsSettings
    from tallystick.transforms import TRANSFORMS
    from tallystick.transforms.enrich.settings import GeoSettings, LookupSettings, ThreatSettings, UserAgentSettings
    from tallystick.transforms.redact import PathRule
    from tallystick.transforms.shape import ChosenSettings

    found: dict[str, type[msgspec.Struct]] = {}
    for field in cast("shapes.StructType", shapes.type_info(Config)).fields:
        if isinstance(field.type, shapes.StructType):
            found[f"[{field.name}]"] = field.type.cls
        if field.name == "server":
            found["[server] tls = {…}"] = TlsSettings
        if field.name == "limits":
            found["[tenants.NAME]"] = TenantSettings
        if field.name == "retention":
            found["[retention.classes.NAME]"] = ClassSettings
        if field.name == "alerts":
            found["[reviews.NAME]"] = ReviewSettings
            found["[privacy.NAME]"] = PrivacySettings
        if field.name == "catalog":
            found["[catalog.contracts.NAME]"] = ContractSettings
    found["[sources.NAME], every type"] = SourceSettings
    found["[sources.NAME], every type with a mapping"] = MappedSettings
    found["[sources.NAME], every type that listens by itself"] = ListenSettings
    for kind in sorted(KINDS):
        found[f'[sources.NAME] with type = "{kind}"'] = load_kind(kind).settings
    found["tls = {…} of a source or destination that connects"] = RemoteTlsSettings
    found["object_lock = {…} of an object_store"] = ObjectLockSettings
    found["[sources.NAME] users.NAME = {…} of a forward source"] = ForwardUser
    found["sasl = {…} of a source or destination of type kafka"] = SaslSettings
    found["[sources.NAME] auth = {…} of a source that pulls"] = AuthSettings
    found["[transforms.NAME], every type that changes events"] = ChosenSettings
    for kind, settings in TRANSFORMS.items():
        found[f'[transforms.NAME] with type = "{kind}"'] = settings
    found['[transforms.NAME] with type = "redact", one of paths = [{…}]'] = PathRule
    for setting, settings in (
        ("lookups", LookupSettings),
        ("geo", GeoSettings),
        ("user_agents", UserAgentSettings),
        ("threats", ThreatSettings),
    ):
        found[f'[transforms.NAME] with type = "enrich", one of {setting} = [{{…}}]'] = settings
    found["[[tests]]"] = CaseSettings
    found["[[rules]] of a rule file"] = Rule
    found["[[tests]] of a rule file"] = RuleTest
    found["[destinations.NAME], every type"] = DestinationSettings
    found["[destinations.NAME], every type over HTTP"] = HttpSettings
    found["[destinations.NAME] batch = {…}"] = BatchSettings
    found["[destinations.NAME], every type with an encoding"] = EncodingSettings
    for kind in sorted(DESTINATIONS):
        found[f'[destinations.NAME] with type = "{kind}"'] = load_destination(kind).settings
    return found


def settings_part() -> str:
    """One table for each settings class; a plug-in's own table leaves out what its base classes say already."""
    parts = []
    for heading, kind in settings_classes().items():
        bases = [base for base in kind.__mro__[1:] if base in settings_classes().values()]
        known = {_row(field) for base in bases for field in _fields(base)}
        rows = [row for field in _fields(kind) if (row := _row(field)) not in known]
        table = _table(("setting", "type", "default", "what"), rows) if rows else "No settings of its own."
        parts.append(f"### `{heading}`\n\n{table}")
    return "\n\n".join(parts)


def _fields(kind: type[msgspec.Struct]) -> tuple[shapes.Field, ...]:
    return cast("shapes.StructType", shapes.type_info(kind)).fields


def _row(field: shapes.Field) -> tuple[str, ...]:
    return f"`{field.name}`", _type_text(field.type), _default_text(field), _description(field.type)


def _description(kind: shapes.Type) -> str:
    while isinstance(kind, shapes.Metadata):
        text = (kind.extra_json_schema or {}).get("description")
        if text:
            return str(text)
        kind = kind.type
    return ""


def _type_text(kind: shapes.Type) -> str:
    match kind:
        case shapes.Metadata():
            return _type_text(kind.type)
        case shapes.UnionType():
            return " or ".join(_type_text(one) for one in kind.types if not isinstance(one, shapes.NoneType))
        case shapes.LiteralType():
            return ", ".join(f'`"{value}"`' for value in kind.values)
        case shapes.VarTupleType() | shapes.ListType():
            return f"list of {_type_text(kind.item_type)}"
        case shapes.DictType():
            return f"table of {_type_text(kind.value_type)}"
        case shapes.CustomType():
            return kind.cls.__name__.lower()
        case shapes.StructType():
            return "table"
        case shapes.IntType():
            bounds = [f"from {kind.ge}"] * (kind.ge is not None) + [f"to {kind.le}"] * (kind.le is not None)
            return " ".join(["number", *bounds])
        case shapes.BoolType():
            return "true or false"
    return "text"


def _default_text(field: shapes.Field) -> str:
    if field.required:
        return "required"
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if default is None or isinstance(default, msgspec.Struct):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple | list):
        return "`[" + ", ".join(f'"{value}"' for value in default) + "]`"
    if isinstance(default, dict):
        return "`{}`"
    return f"`{default}`" if isinstance(default, int) else f'`"{getattr(default, "text", default)}"`'


# Verbs


def verbs() -> Iterator[tuple[str, Any]]:
    """(name as typed, command) of every verb, groups opened."""
    from typer.main import get_command

    from tallystick.cli.main import app

    def walk(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
        for name, child in command.commands.items():
            if hasattr(child, "commands"):
                yield from walk(f"{prefix}{name} ", child)
            else:
                yield f"{prefix}{name}", child

    yield from walk("", get_command(app))


def verbs_part() -> str:
    """Usage, help and options of each verb."""
    return "\n\n".join(_verb_text(name, command) for name, command in verbs())


def _verb_text(name: str, command: Any) -> str:
    arguments = [param for param in command.params if type(param).__name__ == "TyperArgument"]
    options = [param for param in command.params if param not in arguments]
    usage = " ".join(["tallystick", name, *map(_argument_usage, arguments), *(["[OPTIONS]"] if options else [])])
    text, _, examples = inspect.cleandoc(command.help or "").partition("Example")
    shown = [usage, "", *(line.strip() for line in examples.split("\n")[1:] if line.strip())]
    rows = [(f"`{_argument_name(param)}`", "", param.help or "") for param in arguments]
    rows += [(f"`{', '.join(param.opts)}`", _option_default(param), param.help or "") for param in options]
    block = "```\n" + "\n".join(shown).strip() + "\n```"
    table = [_table(("argument or option", "default", "what"), rows)] if rows else []
    return "\n\n".join([f"### `{name}`", text.strip(), block, *table])


def _argument_name(param: Any) -> str:
    return str(param.name).upper()


def _argument_usage(param: Any) -> str:
    name = _argument_name(param) + ("…" if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _option_default(param: Any) -> str:
    if param.required:
        return "required"
    sources = [f"`${param.envvar}`"] if param.envvar else []
    if param.default not in (None, False, ""):
        sources.append(f"`{param.default}`")
    return ", else ".join(sources)


# Metrics


def metrics() -> list[Any]:
    """Every metric of ours, by name, as the Prometheus client knows it. Importing makes them; the cached sets are made here."""
    import prometheus_client

    import tallystick

    for module in pkgutil.walk_packages(tallystick.__path__, "tallystick."):
        for name, made in list(vars(importlib.import_module(module.name)).items()):
            if name.endswith("_metrics") and hasattr(made, "cache_info"):
                made()
    families = [family for family in prometheus_client.REGISTRY.collect() if family.name.startswith("tallystick_")]
    return sorted(families, key=lambda family: str(family.name))


def metrics_part() -> str:
    """Name, type, labels and help of each metric."""
    import prometheus_client

    families = metrics()
    collectors = prometheus_client.REGISTRY._collector_to_names
    labels = {getattr(collector, "_name", ""): getattr(collector, "_labelnames", ()) for collector in collectors}
    rows = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels[family.name]), family.documentation))
    return _table(("metric", "type", "labels", "what"), rows)


# Endpoints


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of every endpoint in the OpenAPI document."""
    from tallystick.api.app import create_app
    from tallystick.api.openapi import document_of
    from tallystick.config import Config

    app = create_app(cast("Any", SimpleNamespace(config=Config())))
    for path, item in document_of(app)["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def endpoints_part() -> str:
    """One table for each tag."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for method, path, operation in operations():
        parameters = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
        row = (f"`{method} {path}`", operation.get("summary", ""), ", ".join(f"`{name}`" for name in parameters))
        groups.setdefault((operation.get("tags") or ["other"])[0], []).append(row)
    tables = [f"### {tag}\n\n{_table(('call', 'what', 'query parameters'), rows)}" for tag, rows in sorted(groups.items())]
    return "\n\n".join(tables)


# Pages


def _cell(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|")


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "configuration.md": settings_part,
    "cli.md": verbs_part,
    "metrics.md": metrics_part,
    "api.md": endpoints_part,
}


def with_part(page: str, part: str) -> str:
    """The page with its generated part replaced. Raises ValueError when it has no place for one."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {_BEGIN!r} and {_END!r}")
    return f"{before}{_BEGIN}\n\n{part}\n\n{_END}{after}"


def main() -> int:
    """Bring every page up to date; prints those that changed."""
    for name, make in PARTS.items():
        path = DOCS / name
        page = path.read_text("utf-8")
        fresh = with_part(page, make())
        if fresh != page:
            path.write_text(fresh, "utf-8")
            print(f"docs/{name} is new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
