from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.moto import S3Server, run_s3_server
from tallystick.privacy.keys import KeyStore


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore.create(tmp_path / "data.keys")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with run_s3_server() as server:
        yield server
