"""What a reload reaches: the processes that read what has changed start again, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.config import load_config
from tallystick.pipeline.changes import followers_to_restart


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("", ()),
        ("[seal]\ninclude_by = '2h'", ("sealer",)),
        ("[retention]\ninterval = '5s'", ("sealer", "archiver", "api")),
        ("[alerts]\nbuiltin = ['all']", ("sealer", "archiver", "api")),
        ("[destinations.disk]\ntype = 'file'\npath = 'x'", ("sealer", "dispatcher", "api")),
        ("[reviews.all]\ntenant = 'acme'", ("sealer", "api")),
    ],
)
def test_who_starts_again(tmp_path: Path, text: str, roles: tuple[str, ...]) -> None:
    """The sealer with every change of the file, since its hash goes into the root log."""
    path = tmp_path / "tallystick.toml"
    path.write_text("")
    before = load_config(path)
    path.write_text(text)
    assert followers_to_restart(before, load_config(path)) == roles
