"""The documentation of destinations says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.destinations import DESTINATIONS, load_destination

DOCS = Path(__file__).parents[3] / "docs" / "destinations"


@pytest.mark.parametrize("kind", sorted(DESTINATIONS))
def test_every_answer_and_setting_is_documented(kind: str) -> None:
    """The published table has each row that the class declares, its guarantee, and each of its settings."""
    page = (DOCS / f"{kind}.md").read_text(encoding="utf-8").replace("`", "")
    destination = load_destination(kind)
    for answer, action in destination.answers.items():
        assert f"| {answer} | {action} |" in page
    assert destination.guarantee.split(",")[0] in page.lower()
    for setting in destination.settings.__struct_fields__:
        assert setting in page
    batch = destination.batch
    assert f"max_events = {batch.max_events}," in page
