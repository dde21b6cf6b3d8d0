"""The commands on the integrity page that check the log elsewhere, each as it is pasted into a shell. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tallystick.evidence.tile_path import TILE_WIDTH, TileName

_KEY = '-H "Authorization: Bearer $TALLYSTICK_KEY"'


@dataclass(frozen=True, slots=True)
class Command:
    """What it is for, in a sentence, and the lines to paste."""

    purpose: str
    lines: str


def prove_commands(url: str, root_vkey: str, log: str, size: int, tenant: str) -> list[Command]:
    """``log`` is the path of one log (below ``/log/``) with ``size`` > 0 leaves, ``tenant`` whose log it is."""
    width = min(size, TILE_WIDTH)
    tile, entries = TileName(0, 0, width).path(), TileName(None, 0, width).path()
    verify = f"tallystick verify --url {url} --public-key {root_vkey}"
    return [
        Command(
            "With our verifier, on a machine that you trust (pip install tallystick), against the public key noted when this "
            "server was set up. It ends with 5: whether something newer is withheld, nobody can know who sees the log for the first time.",
            verify,
        ),
        Command(
            "Keep a head; whatever is signed until then can never be taken back unseen. The second line is for later, and again.",
            f"curl -sSf {_KEY} {url}/log/root/checkpoint > root-head\n{verify} --heads root-head",
        ),
        Command(
            "Without our software, as any client of C2SP tlog-tiles reads it: head, hashes, entries. The last two lines print the "
            "same number twice: the hash of the first entry, and the first leaf of the tree.",
            f"curl -sSf {_KEY} {url}/log/{log}/checkpoint\n"
            f"curl -sSf {_KEY} {url}/log/{log}/{tile} -o tile\n"
            f"curl -sSf {_KEY} {url}/log/{log}/{entries} -o entries\n"
            "(printf '\\0'; tail -c +3 entries | head -c $(od -An -tu2 --endian=big -N2 entries)) | sha256sum\n"
            "head -c 32 tile | od -An -v -tx1 | tr -d ' \\n'; echo",
        ),
        Command(
            "The leaf hash of an exported line, by hand; an event's Proof tab leads from this number up to the signed head.",
            f"curl -sSf {_KEY} '{url}/v1/export?tenant={tenant}' > events.jsonl\n"
            "(printf '\\0'; head -n 1 events.jsonl | tr -d '\\n') | sha256sum",
        ),
    ]
