"""The ledger of producers' numbers: epochs, repeats, what is owed, and its state at any moment."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tallystick.sources.producers import LedgerState, OwedEntry, ProducerKey, ProducerLedger, Seen

KEY = ProducerKey("a" * 16, "k1", "billing")
END = 1e9


def ledger(producers: int = 100) -> ProducerLedger:
    return ProducerLedger(producers, 5.0)


def note(book: ProducerLedger, *numbers: int, epoch: int = 1, key: ProducerKey = KEY, at: float = 0.0, seq: int = 0) -> None:
    for place, number in enumerate(numbers):
        book.note(key, epoch, number, Seen(seq + place, at, "app"))


def told(book: ProducerLedger) -> list[tuple[str, int, list[list[int]]]]:
    book.due(END)
    return [(str(item.entry["reason"]), int(item.entry["epoch"]), item.entry.get("ranges", [])) for item in book.owed]


def test_a_gap_and_a_repeat_are_each_one_entry() -> None:
    """With tenant, credential, producer, epoch, ranges and times."""
    book = ledger()
    note(book, 1, 2, 5, 8, 5, 5, at=1_760_000_000.0)
    assert not book.due(1_760_000_004.0)
    assert book.due(1_760_000_005.0)
    assert [item.entry for item in book.owed] == [
        {
            "type": "gap", "source": "app", "reason": "sequence", "producer": "billing", "epoch": 1, "credential": "k1",
            "count": 4, "ranges": [[3, 4], [6, 7]],
            "since": "2025-10-09T08:53:20.000000Z", "until": "2025-10-09T08:53:25.000000Z",
        },
        {
            "type": "gap", "source": "app", "reason": "repeat", "producer": "billing", "epoch": 1, "credential": "k1",
            "count": 2, "ranges": [[5, 5], [5, 5]],
            "since": "2025-10-09T08:53:20.000000Z", "until": "2025-10-09T08:53:25.000000Z",
        },
    ]  # fmt: skip
    assert book.totals == {KEY.handle: {"sequence": 4, "repeat": 2}}


def test_a_number_that_comes_after_it_was_told_is_late() -> None:
    """Both are on record: that it was missing, and that it came."""
    book = ledger()
    note(book, 1, 3)
    assert told(book) == [("sequence", 1, [[2, 2]])]
    note(book, 2)
    assert told(book)[1:] == [("late", 1, [[2, 2]])]


def test_a_new_epoch_is_a_restart_and_begins_where_the_one_before_did() -> None:
    """Seen from its beginning once, a producer that starts anew at 4 lost three; one that goes on counting lost none."""
    book = ledger()
    note(book, 1, 2, 3)
    note(book, 3, 6, epoch=2)
    note(book, 1, 2, 3, key=KEY._replace(id="other"))
    note(book, 4, 5, epoch=2, key=KEY._replace(id="other"))
    assert told(book) == [("sequence", 2, [[1, 2], [4, 5]]), ("restart", 2, []), ("restart", 2, [])]
    restart = book.owed[2].entry
    assert (restart["last"], restart["first"]) == (3, 4)


def test_an_older_epoch_is_still_known() -> None:
    """What comes of it takes itself off its own list; it is no restart."""
    book = ledger()
    note(book, 70, 73)
    note(book, 1, epoch=2)
    note(book, 71, 72)
    assert told(book) == [("restart", 2, [])]


def test_credentials_and_tenants_do_not_share_numbers() -> None:
    """The same id under another key is another producer."""
    book = ledger()
    note(book, 1, 2)
    note(book, 9, key=KEY._replace(credential="k2"))
    note(book, 20, key=KEY._replace(handle="b" * 16))
    assert told(book) == []
    assert len(book) == 3


def test_the_longest_silent_is_forgotten_and_told_of_first() -> None:
    """Its holes are not lost with it."""
    book = ledger(producers=2)
    note(book, 1, 3, key=KEY._replace(id="one"))
    note(book, 1, key=KEY._replace(id="two"))
    note(book, 1, key=KEY._replace(id="three"))
    assert (len(book), book.forgotten) == (2, 1)
    assert [item.entry["producer"] for item in book.owed] == ["one"]
    note(book, 9, key=KEY._replace(id="one"))
    assert told(book) == [("sequence", 1, [[2, 2]])]


def test_a_long_id_is_kept_as_its_digest() -> None:
    """An entry has a bound, and so has the memory."""
    book = ledger()
    note(book, 1, 3, key=KEY._replace(id="x" * 100_000))
    assert told(book)
    assert len(str(book.owed[0].entry["producer"])) == 71


Step = tuple[int, int, int, bool]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 30), st.booleans()), max_size=80))
def test_its_state_is_all_there_is(steps: list[Step]) -> None:
    """Stored and taken up again after any step, as JSON, it finds the same as one that never ended."""
    steady, broken = ledger(producers=4), ledger(producers=4)
    for place, (name, epoch, number, is_ended) in enumerate(steps):
        for book in (steady, broken):
            note(book, number, epoch=epoch, key=KEY._replace(id=str(name)), at=float(place), seq=place)
            book.due(float(place))
        if is_ended:
            state = msgspec.json.decode(msgspec.json.encode(broken.state()), type=LedgerState)
            broken = ledger(producers=4)
            broken.restore(state)
    assert _ended(steady) == _ended(broken)


def _ended(book: ProducerLedger) -> list[OwedEntry]:
    book.due(END)
    return sorted(book.owed, key=lambda item: item.id)
