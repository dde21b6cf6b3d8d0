"""The documentation of destinations says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.certificates import Authority
from tallystick.config import load_config
from tallystick.destinations import DESTINATIONS, load_destination, read_settings

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


@pytest.mark.parametrize("kind", sorted(DESTINATIONS))
def test_the_example_is_a_configuration(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's first block is accepted as it stands, with its secrets in the environment, and its batch is the default."""
    text = (DOCS / f"{kind}.md").read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    for name in re.findall(r'\{ env = "(\w+)" \}', text):
        monkeypatch.setenv(name, "https://hooks.example.com/x" if name == "SLACK_WEBHOOK" else "a secret of some length")
    for name in re.findall(r'\bca = "([^"…]+)"', text):
        Authority(tmp_path, name.removesuffix(".pem"))
    (tmp_path / "tallystick.toml").write_text(text, encoding="utf-8")
    ((destination, settings),) = read_settings(load_config(tmp_path / "tallystick.toml")).values()
    batch = destination.batch
    assert settings.batch.max_events == batch.max_events
    assert settings.batch.max_bytes is not None
    assert settings.batch.max_bytes.bytes == batch.max_bytes
    assert settings.batch.max_age is not None
    assert settings.batch.max_age.seconds == batch.max_age_s
