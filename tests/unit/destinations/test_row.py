"""Rows of destinations in SQL."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystick.destinations.row import tab_separated


def unescape(text: str) -> str | None:
    return (
        None
        if text == "\\N"
        else text.replace("\\\\", "\0").replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
    )


@given(
    st.lists(
        st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=2, max_size=3),
        min_size=1,
    )
)
def test_tab_separated_keeps_every_value_apart(rows: list[list[str | None]]) -> None:
    """Whatever a value holds, it comes back, and no row or column more."""
    lines = tab_separated(rows).decode().removesuffix("\n").split("\n")
    assert [[unescape(value) for value in line.split("\t")] for line in lines] == rows
