"""The transform `enrich`: what sets of data know of the values of an event is put below ``enrichment``, beside the record.

No sender can write ``enrichment``, so an auditor sees what the record said and what was added here, and by the member ``dataset`` of each
addition from which data of what date. What is at a place already stays: nothing is ever overwritten, and hits of threat lists are added to
those that are there.

What an event costs: reading each place once, and a look into the memory of answers for each set. The sets are looked through only for values
that were not asked for lately. Files are watched by a thread of its own, which ends with the transform.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, Raw

from tallystick.config.settings import Config
from tallystick.errors import EventInvalidError
from tallystick.event import Event
from tallystick.plugin import NOTHING_KNOWN, BatchFacts
from tallystick.transforms.batch import CompileQuery, plain
from tallystick.transforms.enrich.adders import Adder, build_adders
from tallystick.transforms.enrich.dataset import Answers, WatchedFile
from tallystick.transforms.enrich.settings import EnrichSettings
from tallystick.transforms.paths import EventPath

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class Enrich:
    """The transform. ``clock`` gives Unix seconds."""

    def __init__(
        self,
        name: str,
        settings: EnrichSettings,
        config: Config,
        compile_query: CompileQuery,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._clock = clock
        self._chooses = compile_query(settings.where) if settings.where is not None else None
        adders = build_adders(name, settings, config)
        self._by_key: list[tuple[EventPath, list[Adder]]] = [
            (key, [one for one in adders if one.key.parts == parts])
            for parts, key in {one.key.parts: one.key for one in adders}.items()
        ]
        self._watch = _Watch([one.answers for one in adders], settings.reload_every.seconds)
        weakref.finalize(self, self._watch.stop.set)

    def apply(self, event: Event) -> list[Event]:
        """The event, with what is known of it."""
        self.apply_batch([event])
        return [event]

    def apply_batch(
        self, events: Sequence[Event], contents: Sequence[bytes] = (), about: BatchFacts = NOTHING_KNOWN
    ) -> list[tuple[int, Event | EventInvalidError]] | None:
        """See `plugin.Transform`; None when nothing is known of any of them."""
        self._watch.start()
        now = self._clock()
        asked = [(key, [(one, one.answers.answering(now)) for one in adders]) for key, adders in self._by_key]
        has_changed = False
        for event in events:
            if self._chooses is not None and not self._chooses(plain(event)):
                continue
            added = [
                (one, text)
                for key, answers in asked
                if (value := key.read(event)) is not None
                for one, answer in answers
                if (text := answer(value)) is not None
            ]
            if added:
                _add(event, added)
                has_changed = True
        return list(enumerate(events)) if has_changed else None


class _Watch:
    """Looks whether files changed, in a thread that begins with the first batch, so in the process that works."""

    def __init__(self, answers: Sequence[Answers], every_s: float) -> None:
        self.stop = threading.Event()
        self._answers = list(dict.fromkeys(answers))
        self._every_s = every_s
        self._lock = threading.Lock()
        self._is_needed = any(isinstance(one, WatchedFile) for one in answers)

    def start(self) -> None:
        """Begin, unless that was done."""
        if not self._is_needed:
            return
        with self._lock:
            if self._is_needed:
                self._is_needed = False
                threading.Thread(target=self._run, name="enrich-files", daemon=True).start()

    def _run(self) -> None:
        while not self.stop.is_set():
            for one in self._answers:
                one.look()
            self.stop.wait(self._every_s)


def _add(event: Event, added: Sequence[tuple[Adder, bytes]]) -> None:
    if event.enrichment is UNSET and all(len(one.to.parts) == 2 and not one.is_list for one, _ in added):
        members = [b"%b:%b" % (_encode(one.to.parts[1]), text) for one, text in added]
        event.enrichment = Raw(b"{%b}" % b",".join(members))
        return
    for one, text in added:
        there = one.to.read(event)
        if one.is_list:
            hits = [{"key": one.key.text, **hit} for hit in _decode(text)]
            if there is not None and there[:1] == b"[":
                text = _encode([*_decode_list(there), *hits])
            elif there is None:
                text = _encode(hits)
            else:
                continue
        elif there is not None:
            continue
        try:
            one.to.write(event, text)
        except EventInvalidError:
            continue  # another transform put something there that is no object, and it stays
