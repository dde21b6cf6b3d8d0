from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.moto import S3Server, run_s3_server
from tallystick.privacy.keys import KeyStore
from unit.archive.bench import Bench


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore.create(tmp_path / "data.keys")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with run_s3_server() as server:
        yield server


@pytest.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**archive: Any) -> Bench:
        benches.append(Bench(tmp_path, archive))
        return benches[-1]

    yield make
    for bench in benches:
        if bench.journal is not None:
            await bench.journal.close()
