"""What the mappings make of the real records that lie beside the repository. Run as ``python -m tools.samples [--write]``.

One row for each mapping that has some: how many records, how many became events, and in how many of those an action, an actor, a
target, an outcome, a time and an address was found. With ``--write`` the table goes into ``docs/mappings.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests know which records are whose

from support.mapping_cases import NAMES, load, sample_records  # noqa: E402
from support.sample_oracle import samples  # noqa: E402
from tallystick.plugin import Carrier  # noqa: E402
from tallystick.transforms import MapOptions, load_mappings  # noqa: E402
from tallystick.transforms.report import FIELDS, Report  # noqa: E402

PAGE = ROOT / "docs" / "mappings.md"
_BEGIN, _END = "<!-- made by: python -m tools.samples --write -->", "<!-- end of what it made -->"
_BY_FOLDER = ("aws_cloudtrail", "github_audit", "kubernetes_audit")
_COLUMNS = ("mapping", "records", "mapped %", *(f"{name} %" for name in FIELDS))


def rows() -> list[tuple[str, ...]]:
    """The table without its head."""
    names = sorted({*_BY_FOLDER, *(name for name in NAMES if load(name)["samples"]["files"])})
    return [_row(name) for name in track(names, "mapping", console=Console(stderr=True), transient=True)]


def _row(name: str) -> tuple[str, ...]:
    mapping, report = load_mappings()[name], Report(load_mappings()[name])
    found = (one.document for one in samples(name)) if name in _BY_FOLDER else (record for _, record in sample_records(name))
    for record in found:
        report.add(mapping.map_batch([record], [Carrier()], MapOptions(name, keep_raw=False)))
    shares = (100 * report.mapped / report.records, *(report.share(field) for field in FIELDS))
    return name, f"{report.records:,}", *("" if share is None else f"{share:.1f}" for share in shares)


def table_of(found: list[tuple[str, ...]]) -> str:
    """As the page has it."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---|" + "---:|" * (len(_COLUMNS) - 1)]
    return "\n".join([*lines, *("| `" + row[0] + "` | " + " | ".join(row[1:]) + " |" for row in found)])


def write(text: str) -> None:
    """Put the table into the page, between its markers."""
    before, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", "utf-8")


def main(arguments: list[str]) -> None:
    """Print the table; ``--write``: and put it into the page."""
    found = rows()
    table = Table(*_COLUMNS, box=SIMPLE)
    for row in found:
        table.add_row(*row)
    Console().print(table)
    if "--write" in arguments:
        write(table_of(found))


if __name__ == "__main__":
    main(sys.argv[1:])
