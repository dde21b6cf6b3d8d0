"""`[reviews.*]`: what is wrong with one is said with its place in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.errors import ConfigError
from tallystick.pipeline.reviews import check_reviews


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ('tenant = "acme"\nquery = "(("', 3),
        ('tenant = "Acme"', 2),
        ('query = "action:a"', 1),
        ('tenant = "acme"\nevery = "0s"', 3),
        ('tenant = "acme"\nevery = "1 month"', 3),
    ],
)
def test_a_review_that_cannot_be(tmp_path: Path, table: str, line: int) -> None:
    """Query, tenant and interval are checked before anything starts."""
    path = tmp_path / "tallystick.toml"
    path.write_text(f"[reviews.access]\n{table}\n")
    with pytest.raises(ConfigError) as caught:
        check_reviews(load_config(path))
    assert f"tallystick.toml:{line}" in str(caught.value)


def test_a_review_of_the_servers_own_log(tmp_path: Path) -> None:
    """`_tallystick` is a tenant that may be reviewed, and a month is the interval where none is given."""
    path = tmp_path / "tallystick.toml"
    path.write_text('[reviews.admins]\ntenant = "_tallystick"\n')
    config = load_config(path)
    check_reviews(config)
    assert config.reviews["admins"].every.seconds == 30 * 86_400
