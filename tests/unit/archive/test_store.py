from __future__ import annotations

from pathlib import Path

import pytest

from support.moto import S3Server
from tallystick.archive.store import ArchiveStore
from tallystick.durable import set_observer
from tallystick.errors import ConfigError, DestinationUnavailableError, IntegrityError, NotFoundError


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArchiveStore:
    if request.param == "local":
        return ArchiveStore(str(tmp_path / "archive"))
    server: S3Server = request.getfixturevalue("s3")
    return ArchiveStore(f"s3://{server.new_bucket()}/some/prefix", server.options)


def test_objects_come_back_as_put(store: ArchiveStore) -> None:
    """Put, get, size, list and delete agree, on disk and in a bucket."""
    store.put_new("h/standard/a", b"one")
    store.put_new("h/standard/b", b"two")
    store.put_new("i/c", b"")
    assert store.get("h/standard/a") == b"one"
    assert store.size("h/standard/b") == 3
    assert sorted(store.list("h/")) == ["h/standard/a", "h/standard/b"]
    assert sorted(store.list()) == ["h/standard/a", "h/standard/b", "i/c"]
    store.delete("h/standard/a")
    store.delete("h/standard/a")
    assert store.size("h/standard/a") is None
    with pytest.raises(NotFoundError):
        store.get("h/standard/a")


def test_nothing_is_overwritten(store: ArchiveStore) -> None:
    """The same bytes again are a repeat; other bytes under the same name are refused and change nothing."""
    store.put_new("x", b"one")
    store.put_new("x", b"one")
    with pytest.raises(IntegrityError):
        store.put_new("x", b"two")
    assert store.get("x") == b"one"


def test_a_bucket_holds_the_object_under_its_prefix(s3: S3Server) -> None:
    """Somebody else's S3 client finds the object where the URL says."""
    bucket = s3.new_bucket()
    ArchiveStore(f"s3://{bucket}/some/prefix", s3.options).put_new("h/a", b"one")
    assert s3.client().get_object(Bucket=bucket, Key="some/prefix/h/a")["Body"].read() == b"one"


def test_local_objects_are_synced_before_put_returns(tmp_path: Path) -> None:
    """File and directory go through the fsync seam, new directories included."""
    store, seen = ArchiveStore(str(tmp_path / "archive")), []
    set_observer(lambda operation, path, _fd: seen.append((operation, path)))
    try:
        store.put_new("h/a", b"one")
    finally:
        set_observer(None)
    root = tmp_path / "archive"
    assert [step for step in seen if step[0] != "write"] == [
        ("sync_dir", root),
        ("write_new", root / "h" / "a"),
        ("sync_file", None),
        ("sync_dir", root / "h"),
    ]


def test_a_store_that_is_away_is_no_loss() -> None:
    """An unreachable bucket raises the error that says: try again."""
    options = {
        "endpoint": "http://127.0.0.1:9",
        "allow_http": "true",
        "region": "r",
        "access_key_id": "a",
        "secret_access_key": "b",
    }
    store = ArchiveStore("s3://nowhere", options, retry_s=0.0)
    with pytest.raises(DestinationUnavailableError):
        store.put_new("x", b"one")


def test_a_bad_url_or_option_names_the_setting() -> None:
    """A store that cannot be is a configuration error."""
    with pytest.raises(ConfigError, match="archive"):
        ArchiveStore("gopher://x")
    with pytest.raises(ConfigError, match="archive"):
        ArchiveStore("s3://bucket", {"no_such_option": "1"})
