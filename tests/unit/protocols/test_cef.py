"""CEF and LEEF."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.cef import parse_cef, parse_leef

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,8}", fullmatch=True).filter(lambda name: name not in ("cef", "leef"))
VALUES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), max_size=12)


def test_a_header_with_escapes_and_values_with_blanks_and_signs() -> None:
    """The examples of the standard: an escaped pipe in the header, an escaped equals sign and line feed in the extension."""
    found = parse_cef(
        r"Sep 19 08:26:10 host CEF:0|security|threat\|manager|1.0|100|detected a \\ in packet|10|src=10.0.0.1 act=blocked a \= dst=1.1.1.1 msg=two\nlines"
    )
    assert found == {
        "cef": {
            "version": "0", "vendor": "security", "product": "threat|manager", "product_version": "1.0", "class_id": "100",
            "name": "detected a \\ in packet", "severity": "10",
        },
        "src": "10.0.0.1", "act": "blocked a =", "dst": "1.1.1.1", "msg": "two\nlines",
    }  # fmt: skip


def test_what_appliances_write_instead() -> None:
    """`CEF: 0|`, no `CEF:` at all, no extension; a header that is not whole is none."""
    for text in ("CEF: 0|v|p|1|7|n|3|src=1.1.1.1", "0|v|p|1|7|n|3|src=1.1.1.1"):
        found = parse_cef(text)
        assert found is not None
        assert (found["cef"]["class_id"], found["src"]) == ("7", "1.1.1.1")
    assert (parse_cef("CEF:0|v|p|1|7|n|3") or {})["cef"]["severity"] == "3"
    assert parse_cef("CEF:0|v|p|1|7") is None
    assert parse_cef("notCEF:0|v|p|1|7|n|3|") is None


def test_both_versions_of_leef() -> None:
    """Version 1 has tabs, version 2 names its delimiter as a character or a code, or has tabs too."""
    for text in (
        "LEEF:1.0|IBM|QRadar|7|login|src=192.0.2.1\tusrName=ann b",
        "<13>Jan 18 11:07:53 host LEEF:2.0|IBM|QRadar|7|login|^|src=192.0.2.1^usrName=ann b",
        "LEEF:2.0|IBM|QRadar|7|login|x5E|src=192.0.2.1^usrName=ann b",
        "LEEF:2.0|IBM|QRadar|7|login|0x09|src=192.0.2.1\tusrName=ann b",
        "LEEF:2.0|IBM|QRadar|7|login||src=192.0.2.1\tusrName=ann b",
        "LEEF:2.0|IBM|QRadar|7|login|src=192.0.2.1\tusrName=ann b",
    ):
        found = parse_leef(text)
        assert found is not None, text
        assert (found["leef"]["event_id"], found["src"], found["usrName"]) == ("login", "192.0.2.1", "ann b"), text
    assert parse_leef("CEF:0|v|p|1|7|n|3|") is None


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_what_was_escaped_comes_back(pairs: dict[str, str]) -> None:
    """Values with any signs, once the standard's escapes are made."""
    extension = " ".join(f"{name}=" + value.replace("\\", "\\\\").replace("=", "\\=") for name, value in pairs.items())
    found = parse_cef(f"CEF:0|v|p|1|7|n|3|{extension}")
    assert found is not None
    del found["cef"]
    assert found == pairs


@given(st.text(max_size=200), st.sampled_from(["", "CEF:0|", "LEEF:2.0|a|b|c|d|", "LEEF:1.0|"]))
def test_no_text_breaks_them(text: str, start: str) -> None:
    """Whatever is there, the answer is members or None."""
    for parse in (parse_cef, parse_leef):
        found = parse(start + text)
        assert found is None or found.keys() & {"cef", "leef"}
