"""A report as one HTML page: pure, text in and text out, standard library only.

The page has no script and fetches nothing, and says so to the browser. It is well-formed XML as well, so that any reader of either can take it in. All
that came from events is escaped; what no reader shows (controls, direction marks) stands there as an escape.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tallystick.reports.style import CSS

Report = dict[str, Any]
_NUMBERS = frozenset(
    {"count", "events", "records", "waiting", "accepted", "delivered", "filtered", "dead_lettered", "pending", "statements"}
)


_COLUMNS_MAX = 7
_WORD_MAX = 24
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z")
_CODE = re.compile(r"`([^`]+)`")


def assemble(lines: Iterable[dict[str, Any]]) -> Report:
    """The lines of `/v1/report` as one document. Raises ValueError when the last is missing: the answer broke off."""
    report: Report = {"controls": [], "parts": {}}
    for line in lines:
        kind = line.pop("part")
        if kind == "head":
            report = {**line, **report}
        elif kind == "control":
            report["controls"].append(line)
        elif kind == "limits":
            report["limits"] = line["limits"]
        else:
            report["parts"][kind] = line
    if "limits" not in report:
        raise ValueError("the report broke off before its end")
    return report


def render(report: Report) -> str:
    """The whole page."""
    framework = report["framework"]
    title = f"{framework['name']}: {_day(report['from'])} to {_day(report['to'])}"
    body = "\n".join([*_cover(report, title), *_controls(report), *_parts(report), *_limits(report), *_annex(report)])
    return (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
        '<meta name="viewport" content="width=device-width"/>'
        f"<title>{_text(title)}</title><style>{CSS}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _cover(report: Report, title: str) -> Iterator[str]:
    framework, server = report["framework"], report["server"]
    yield f"<h1>{_text(title)}</h1><p class='quiet'>{_text(framework['about'])}</p>"
    yield _facts(
        {
            "Framework": f"{framework['name']}, {framework['version']}",
            "Period": f"{report['from']} up to {report['to']}, by {report['time']}",
            "Tenants": ", ".join(report["tenants"]) or "none",
            "Made": f"{report['made_at']} by {report['made_by']['owner']} (key {report['made_by']['key']}); on record as tallystick.export",
            "Server": f"{server['name']}, Tallystick {server['version']}",
            "Configuration": f"SHA-256 {server['config']}",
        }
    )
    yield "<nav><p><a href='#controls'>Controls</a>"
    yield "".join(f" · <a href='#{name}'>{_text(part['title'])}</a>" for name, part in report["parts"].items())
    yield " · <a href='#limits'>What this report cannot show</a> · <a href='#samples'>Samples and proofs</a></p></nav>"


def _controls(report: Report) -> Iterator[str]:
    yield "<h2 id='controls'>Controls</h2>"
    yield "<table><thead><tr><th>Control</th><th>About</th><th class='n'>Events</th></tr></thead><tbody>"
    for number, control in enumerate(report["controls"]):
        link = f"<a href='#c{number}'>{_text(control['id'])}</a>"
        yield f"<tr><td>{link}</td><td>{_text(control['title'])}</td><td class='n'>{_number(control['count'])}</td></tr>"
    yield "</tbody></table>"
    for number, control in enumerate(report["controls"]):
        yield from _control(report, number, control)


def _control(report: Report, number: int, control: dict[str, Any]) -> Iterator[str]:
    yield f"<section class='control' id='c{number}'><h3>{_text(control['id'])} {_text(control['title'])}</h3>"
    yield f"<p>{_text(control['asks'])}</p>"
    counted = f"<span class='count'>{_number(control['count'])}</span> events match <code>{_text(control['query'])}</code>"
    links = [f"<a href='#{name}'>{_text(report['parts'][name]['title'])}</a>" for name in control["see"] if name in report["parts"]]
    yield f"<p>{counted}</p>" + (f"<p class='quiet'>See also: {', '.join(links)}</p>" if links else "")
    if control["samples"]:
        yield "<table><thead><tr><th>Newest</th><th>Actor</th><th>Action</th><th>Target</th><th>Outcome</th><th>Proof</th></tr></thead><tbody>"
        for place, sample in enumerate(control["samples"]):
            proof = (
                f"<a href='#s{number}-{place}'>{_text(sample['tenant'])} {sample['index']}</a>"
                if sample["proof"]
                else "not sealed yet"
            )
            cells = "".join(f"<td>{_text(cell)}</td>" for cell in _sample_cells(json.loads(sample["line"])))
            yield f"<tr>{cells}<td>{proof}</td></tr>"
        yield "</tbody></table>"
    yield "</section>"


def _sample_cells(event: dict[str, Any]) -> tuple[str, ...]:
    target = (event.get("targets") or [{}])[0]
    actor = event.get("actor", {})
    return (
        str(event.get("occurred_at", ""))[:19].replace("T", " "),
        str(actor.get("name") or actor.get("id", "")),
        str(event.get("action", "")),
        f"{target.get('type', '')} {target.get('name') or target.get('id', '')}".strip(),
        str(event.get("outcome", "unknown")),
    )


def _parts(report: Report) -> Iterator[str]:
    for name, part in report["parts"].items():
        yield f"<h2 id='{_text(name)}'>{_text(part['title'])}</h2>"
        for key, value in part.items():
            if key == "title":
                continue
            yield from _value(key, value)


def _value(key: str, value: Any) -> Iterator[str]:
    """A list of objects is a table, an object a list of facts, anything else one line."""
    words = _text(key.replace("_", " "))
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        yield f"<h3>{words}</h3>"
        yield _table(value)
    elif isinstance(value, dict) and value:
        yield f"<h3>{words}</h3>"
        yield _facts({name: _plain(one) for name, one in value.items()})
    else:
        yield f"<p><span class='quiet'>{words}:</span> {_text(_plain(value))}</p>"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Notes and checkpoints are long and stand beneath their row; rows with many columns are lists of facts."""
    columns = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if name not in ("note", "checkpoint") or not _is_long(rows, name)
    ]
    long = [name for name in ("note", "checkpoint") if name not in columns and any(row.get(name) for row in rows)]
    if len(columns) > _COLUMNS_MAX:
        return "".join(
            _facts({name: _plain(value) for name, value in row.items() if value not in (None, "", [], {})}) for row in rows
        )
    head = "".join(
        f"<th class='n'>{_text(_words(name))}</th>" if name in _NUMBERS else f"<th>{_text(_words(name))}</th>" for name in columns
    )
    body = []
    for row in rows:
        cells = "".join(
            f"<td class='n'>{_number(row.get(name))}</td>"
            if name in _NUMBERS and not isinstance(row.get(name), dict)
            else _cell(_plain(row.get(name)))
            for name in columns
        )
        body.append(f"<tr>{cells}</tr>")
        body += [f"<tr><td colspan='{len(columns)}'><pre>{_text(row[name])}</pre></td></tr>" for name in long if row.get(name)]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(text: str) -> str:
    """A hash or a key may be broken anywhere, so that it fits; words stay whole."""
    is_wordy = all(len(word) <= _WORD_MAX for word in text.split())
    return f"<td>{_text(text)}</td>" if is_wordy else f"<td class='b'>{_text(text)}</td>"


def _is_long(rows: Sequence[dict[str, Any]], name: str) -> bool:
    """Signed notes have lines; a person's note is a cell like others."""
    return any("\n" in str(row.get(name) or "") for row in rows)


def _limits(report: Report) -> Iterator[str]:
    yield "<h2 id='limits'>What this report cannot show</h2><ul class='limits'>"
    yield from (f"<li>{_CODE.sub(_code, _text(one['text']))}</li>" for one in report["limits"])
    yield "</ul>"


def _code(match: re.Match[str]) -> str:
    return f"<code>{match[1]}</code>"


def _annex(report: Report) -> Iterator[str]:
    yield "<h2 id='samples' class='annex'>Samples and their proofs</h2>"
    yield (
        "<p class='quiet'>Each sample is the event's line and a tlog-proof (C2SP): SHA-256 over a zero byte and the line is the leaf, the hashes lead from it to "
        "the root of the signed checkpoint at the end. The key of each log is under The log. The data file beside this page has the exact "
        "bytes; here, characters that cannot be seen are written as escapes.</p>"
    )
    for number, control in enumerate(report["controls"]):
        for place, sample in enumerate(control["samples"]):
            yield f"<h3 id='s{number}-{place}'>{_text(control['id'])}: {_text(sample['tenant'])}, index {sample['index']}</h3>"
            yield f"<pre>{_text(sample['line'])}</pre>"
            yield f"<pre>{_text(sample['proof'] or 'not sealed yet')}</pre>"


def _facts(facts: dict[str, Any]) -> str:
    rows = "".join(
        f"<dt>{_text(_words(name))}</dt><dd>" + (f"<pre>{_text(value)}</pre>" if "\n" in str(value) else _text(value)) + "</dd>"
        for name, value in facts.items()
    )
    return f"<dl>{rows}</dl>"


def _plain(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    time = _TIME.fullmatch(str(value))  # the whole of it: a signed note that quotes a time stays as it was signed
    return f"{time[1]} {time[2]} Z" if time else str(value)


def _number(value: Any) -> str:
    return "not counted" if value is None else f"{value:,}" if isinstance(value, int) else _text(_plain(value))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _day(time: str) -> str:
    return time[:10]


def _text(value: Any) -> str:
    """Text for an element or an attribute: markup escaped, invisible characters but line breaks as escapes."""
    return html.escape("".join(one if one.isprintable() or one == "\n" else _visible(one) for one in str(value)))


def _visible(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
