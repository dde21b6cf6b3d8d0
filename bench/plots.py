"""Pictures and the table of docs/performance.md from a file of results: ``python -m bench.plots bench-results.json``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_ROOT = Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "performance.md"
_BEGIN, _END = "<!-- generated: python -m bench.plots -->", "<!-- end of the generated part -->"
_COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#8d6a9f", "#6b705c", "#b08968", "#3d5a80", "#999999")

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "tallystick",  # the same results make the same bytes
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "axes.axisbelow": True,
        "axes.prop_cycle": mpl.cycler(color=_COLOURS),
        "legend.frameon": False,
        "figure.facecolor": "white",
    }
)

Results = dict[str, Any]


def batch_size(results: Results) -> Figure:
    """Throughput and latency against the size of a batch, for each number of connections."""
    figure, (left, right) = _pair("events in a request", "events/s", "milliseconds")
    points = results["series"]["sweep"]
    for colour, connections in zip(_COLOURS, sorted({p["connections"] for p in points}), strict=False):
        found = [p for p in points if p["connections"] == connections]
        sizes = [p["batch"] for p in found]
        left.loglog(
            sizes, [p["events_s"] for p in found], "o-", color=colour, label=f"{connections} connection{'s' * (connections > 1)}"
        )
        right.loglog(sizes, [p["p50_ms"] for p in found], "o--", color=colour, label=f"{connections}, p50")
        right.loglog(sizes, [p["p99_ms"] for p in found], "o-", color=colour, label=f"{connections}, p99")
    _plain_ticks(points, "batch", left, right)
    left.legend()
    right.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def connections(results: Results) -> Figure:
    """The same points against the number of connections."""
    figure, (left, right) = _pair("connections", "events/s", "milliseconds")
    points = results["series"]["sweep"]
    for colour, size in zip(_COLOURS, sorted({p["batch"] for p in points}), strict=False):
        found = [p for p in points if p["batch"] == size]
        counts = [p["connections"] for p in found]
        left.loglog(counts, [p["events_s"] for p in found], "o-", color=colour, label=f"batches of {size:,}")
        right.loglog(counts, [p["p50_ms"] for p in found], "o--", color=colour, label=f"{size:,}, p50")
        right.loglog(counts, [p["p99_ms"] for p in found], "o-", color=colour, label=f"{size:,}, p99")
    _plain_ticks(points, "connections", left, right)
    left.legend()
    right.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def peers(results: Results) -> Figure:
    """One process, two workers, and the peers of the same run."""
    row = _row(results, "batches-1")
    bars = [("Tallystick, one process", row["value"])]
    two = next((found for found in results["rows"] if found["key"] == "batches-2"), None)
    if two is not None and two["value"]:
        bars.append(("Tallystick, two workers", two["value"]))
    bars += [(f"{name} {peer['version']}", peer["events_s"]) for name, peer in row["details"]["peers"].items() if peer["events_s"]]
    figure, axes = _single("events/s, batches of 1,000", "", height=0.9 + 0.45 * len(bars))
    names, values = [name for name, _ in bars][::-1], [value for _, value in bars][::-1]
    axes.barh(names, values, color=[_COLOURS[0] if name.startswith("Tallystick") else _COLOURS[-1] for name in names])
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:,.0f}", va="center")
    axes.set_xlim(0, max(values) * 1.18)
    axes.grid(visible=False, axis="y")
    return figure


def backlog_memory(results: Results) -> Figure:
    """Memory of all processes, and of the largest ones, against the backlog."""
    figure, axes = _single("backlog, GB of journal", "MiB, proportional set size")
    points = results["series"]["backlog"]
    for name in ("total_mib", "intake_mib", "api_mib", "dispatcher_mib"):
        axes.plot([p["gb"] for p in points], [p.get(name, 0) for p in points], "o-", label=name.removesuffix("_mib"))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend()
    return figure


def recovery(results: Results) -> Figure:
    """From a start after kill -9 until ready, against the size of the journal."""
    figure, axes = _single("journal, GB", "seconds until ready")
    points = results["series"]["backlog"]
    axes.plot([p["gb"] for p in points], [p["ready_s"] for p in points], "o-")
    axes.axhline(5, color=_COLOURS[1], linestyle="--", label="5 s")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend()
    return figure


def drain(results: Results) -> Figure:
    """What is left of the backlog after the pause, while intake goes on."""
    figure, axes = _single("seconds since the end of the pause", "million events")
    points = results["series"]["drain"]
    for name in ("sealed", "archived", "pending"):
        axes.plot([p["s"] for p in points], [p[name] / 1e6 for p in points], label=name)
    axes.legend()
    return figure


def sustained(results: Results) -> Figure:
    """Lag and memory over a sustained load."""
    figure, (left, right) = _pair("seconds", "events behind intake", "MiB, all processes")
    points = results["series"]["sustained"]
    seconds = [p["s"] for p in points]
    left.plot(seconds, [p["accepted"] - p["sealed"] for p in points], label="not sealed")
    left.plot(seconds, [p["pending"] for p in points], label="sealed, not delivered")
    left.plot(seconds, [p["accepted"] - p["archived"] for p in points], label="not archived")
    right.plot(seconds, [p["memory_mib"] for p in points])
    left.legend()
    for axes in (left, right):
        axes.set_ylim(bottom=0)
    return figure


def shares(results: Results) -> Figure:
    """CPU of an accepted event by what is done."""
    found = results["series"]["shares"]
    figure, axes = _single("µs of CPU an event", "", height=2.4)
    left = 0.0
    for colour, (name, value) in zip(_COLOURS, found.items(), strict=False):
        axes.barh([""], [value], left=left, color=colour, label=f"{name.partition(':')[0]} {value:.2f}")
        left += value
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35), fontsize="small")
    return figure


PICTURES: dict[str, tuple[str, Callable[[Results], Figure]]] = {
    "peers": ("Batches of 1,000 beside the peers of the same run", peers),
    "batch-size": ("Throughput and latency against the size of a batch", batch_size),
    "connections": ("Throughput and latency against the number of connections", connections),
    "cpu-shares": ("CPU of an accepted event", shares),
    "sustained": ("Lag and memory over a sustained load", sustained),
    "backlog-memory": ("Memory against backlog", backlog_memory),
    "drain": ("A backlog drains while intake goes on", drain),
    "recovery": ("Recovery after kill -9 against the size of the journal", recovery),
}


def draw(results: Results, directory: Path) -> list[str]:
    """Write every picture that the results have the numbers for; the names of those written."""
    directory.mkdir(parents=True, exist_ok=True)
    done = []
    for name, (_title, picture) in PICTURES.items():
        try:
            figure = picture(results)
        except KeyError:
            continue  # that scenario was not part of the run
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None, "Creator": None})
        done.append(name)
    return done


def section(results: Results, pictures: list[str]) -> str:
    """The generated part of the page: machine, table, pictures."""
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"Measured {results['at'][:10]} on {machine['cores']} cores; fdatasync of 64 KiB p50 {machine['sync_p50_ms']:.2f} ms, "
        f"p99 {machine['sync_p99_ms']:.2f} ms; SHA-256 of an event {1e6 / machine['sha256_events_s']:.2f} µs. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "",
        "| what | measured | beside it, same run | must | aim | reached |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        must, aim = ((row[bound] or {}).get("text", "") for bound in ("must", "aim"))
        cells = (row["what"], row["measured"], row["beside"], must, aim, row["reached"])
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    lines += ["", "Under what conditions:", ""]
    lines += [f"- {row['what']}: {row['conditions']}." for row in results["rows"] if row["conditions"]]
    for name in pictures:
        title = PICTURES[name][0]
        lines += ["", f"### {title}", "", f"![{title}](pictures/performance/{name}.svg)"]
    return "\n".join(lines)


def main() -> None:
    """Draw, and put the section into the page."""
    results = json.loads(Path(sys.argv[1]).read_text())
    pictures = draw(results, _ROOT / "docs" / "pictures" / "performance")
    page = _PAGE.read_text()
    before, rest = page.split(_BEGIN)
    after = rest.split(_END)[1]
    _PAGE.write_text(f"{before}{_BEGIN}\n\n{section(results, pictures)}\n\n{_END}{after}")
    print(f"{len(pictures)} pictures, {len(results['rows'])} rows")


def _row(results: Results, key: str) -> dict[str, Any]:
    for row in results["rows"]:
        if row["key"] == key:
            found: dict[str, Any] = row
            return found
    raise KeyError(key)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _plain_ticks(points: list[dict[str, Any]], name: str, *panels: Axes) -> None:
    values = sorted({point[name] for point in points})
    for axes in panels:
        axes.set_xticks(values, [f"{value:,}" for value in values])
        axes.minorticks_off()


def _single(x: str, y: str, *, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _pair(x: str, left: str, right: str) -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    first, second = figure.subplots(1, 2)
    for axes, y in ((first, left), (second, right)):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
    return figure, (first, second)


if __name__ == "__main__":
    main()
