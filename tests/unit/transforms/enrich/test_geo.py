"""Where addresses are, from databases that somebody else's writer made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from tallystick.errors import ConfigError
from tallystick.transforms.enrich.dataset import BadFileError, Content, WatchedFile
from tallystick.transforms.enrich.geo import Database, Registries

CITY = {
    "country": {"iso_code": "GB"},
    "city": {"names": {"en": "London", "de": "Londra"}},
    "subdivisions": [{"iso_code": "ENG"}],
    "location": {"latitude": 51.5, "longitude": -0.12},
}


def written(path: Path, networks: dict[str, dict[str, Any]], ip_version: int = 6, kind: str = "Test-City") -> bytes:
    writer = MMDBWriter(ip_version, database_type=kind, ipv4_compatible=ip_version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path.read_bytes()


def database(path: Path, networks: dict[str, dict[str, Any]], ip_version: int = 6, **fields: str) -> Database:
    return Database(Content(path, written(path, networks, ip_version), "", 0.0), fields)


def test_a_city_database(tmp_path: Path) -> None:
    """Nested members and a list; the name and the build date of the database stand beside."""
    made = database(tmp_path / "c.mmdb", {"81.2.69.0/24": CITY, "2a00:1450::/32": {"country": {"iso_code": "IE"}}})
    found = made.find("81.2.69.160")
    assert found is not None
    dataset = found.pop("dataset")
    assert found == {"country": "GB", "region": "ENG", "city": "London", "latitude": 51.5, "longitude": -0.12}
    assert dataset["name"] == "Test-City"
    assert dataset["date"].startswith("20")
    assert (made.find("::ffff:81.2.69.160") or {})["country"] == "GB"
    assert (made.find("2a00:1450::1") or {})["country"] == "IE"
    assert made.find("8.8.8.8") is None


def test_flat_records_and_chosen_fields(tmp_path: Path) -> None:
    """As IPinfo and ip-location-db have them; any other by `fields`."""
    flat = {"country_code": "CH", "asn": "AS64500", "as_name": "Example"}
    found = database(tmp_path / "f.mmdb", {"8.8.8.0/24": flat}, 4).find("8.8.8.8")
    assert found is not None
    assert (found["country"], found["asn"], found["as_name"]) == ("CH", "AS64500", "Example")
    chosen = database(tmp_path / "g.mmdb", {"81.2.69.0/24": CITY}, town="city.names.de", none="nosuch.x").find("81.2.69.1")
    assert chosen is not None
    assert set(chosen) == {"town", "dataset"}
    assert chosen["town"] == "Londra"


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "fe80::1", "fd00::1", "::1", "::ffff:10.0.0.1",
     "ff02::1", "ec2.amazonaws.com", "", "8.8.8", "8.8.8.8:443"],
)  # fmt: skip
def test_what_is_not_public_gives_nothing(tmp_path: Path, text: str) -> None:
    """Private, shared, local, reserved and group addresses, and what is none; also where a database claims to know them."""
    everything = {half: {"country": {"iso_code": "XX"}} for half in ("0.0.0.0/1", "128.0.0.0/1")}
    assert database(tmp_path / "x.mmdb", everything, 4).find(text) is None
    assert Registries().find(text) is None


def test_a_database_that_is_written_over_in_place_is_no_danger(tmp_path: Path) -> None:
    """The reader has a copy: cut short under it, the file still answers, and the bad new one is not taken."""
    path = tmp_path / "c.mmdb"
    written(path, {"81.2.69.0/24": CITY})
    file = WatchedFile("known", path, 2**20, 10, lambda content: Database(content, {}))
    os.truncate(path, 16)
    file.look()
    assert b'"GB"' in (file.answering(0.0)(b'"81.2.69.1"') or b"")
    written(path, {"81.2.69.0/24": {"country": {"iso_code": "FR"}}})
    file.look()
    assert b'"FR"' in (file.answering(0.0)(b'"81.2.69.1"') or b"")


def test_no_database(tmp_path: Path) -> None:
    """Text, nothing, and the first half of one."""
    half = written(tmp_path / "c.mmdb", {"81.2.69.0/24": CITY})[:-200]
    for data in (b"", b"text", half):
        with pytest.raises(BadFileError):
            Database(Content(tmp_path / "c.mmdb", data, "", 0.0), {})
    with pytest.raises(ConfigError):
        WatchedFile("known", tmp_path / "nosuch.mmdb", 2**20, 10, lambda content: Database(content, {}))


def test_countries_of_the_registries() -> None:
    """The package's own data, by its version."""
    found = Registries().find("193.0.6.139")  # RIPE NCC itself
    assert found is not None
    assert found["country"] == "NL"
    assert found["dataset"]["name"] == "iptocc"
