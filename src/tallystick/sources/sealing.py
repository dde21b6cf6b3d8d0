"""The step of the way in that seals members of a tenant's events (`[privacy.TENANT]`), after redaction and before the journal.

1. `ready`: every person's key and the keys of the month are on disk. This may fail, and then nothing was done to the events.
2. `take_out`: the members leave the events. A person who was erased lately gets no new key: then they are gone for good.
3. `put_in`: once a line has its class, the members come back in `sealed`, at its end.

A worker does the same as the writer's process: the key store's files are written under a lock, not by one role (`privacy.subjects`).
What the server records of itself is not sealed: who opened or erased what must stay readable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from tallystick.config import Config
from tallystick.config.privacy import PrivacySettings
from tallystick.errors import (
    DiskFullError,
    EventInvalidError,
    EventTooLargeError,
    IntegrityError,
    KeysMissingError,
    NotAcceptingError,
)
from tallystick.event import Event, Ingest, Redaction
from tallystick.evidence.origin import event_origin
from tallystick.journal.space import FULL_ERRNOS
from tallystick.privacy.keys import KeyStore
from tallystick.privacy.members import subject_text, take_out, text_at
from tallystick.privacy.seal import epoch_subject_key, plain_text, seal, to_text
from tallystick.privacy.subjects import Subject, SubjectKeys, SubjectsExceededError
from tallystick.sources.part import Part
from tallystick.sources.submission import Draft

_CLASS = b'"class":"'
_INGEST = b'"ingest":{'
ERASED = "erased"
"""The rule that is named in ``ingest.redactions`` of what came of a person after the erasure, and what ``actor.id`` then reads."""


@dataclass(slots=True)
class Taken:
    """What left one tenant's events: by event (its identity in this process), whose it is and P."""

    groups: dict[int, tuple[Subject, bytes]] = field(default_factory=dict)


class Sealing:
    """False when no tenant has sealed members. Blocking: with people seen for the first time, files are synced."""

    def __init__(self, config: Config | None = None, keys: KeyStore | None = None, server_name: str = "") -> None:
        self._keys = keys
        self._server = server_name
        self._subjects = SubjectKeys(keys) if keys is not None and config is not None and config.privacy else None
        self._settings: Mapping[str, PrivacySettings] = config.privacy if config is not None and self._subjects else {}
        self._classes: Sequence[str] = tuple(config.retention.known) if config is not None else ()
        self._epochs: dict[tuple[str, str, str], bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._settings)

    def covers(self, draft: Draft, part: Part) -> bool:
        """Whether members of these events are sealed."""
        return part.tenant.name in self._settings and not draft.sender.is_own

    def ready(self, draft: Draft, part: Part) -> dict[str, Subject | None]:
        """Step 1: the keys of all people in the part. Raises PushbackError."""
        assert self._subjects is not None
        assert self._keys is not None
        settings = self._settings[part.tenant.name]
        handle, month = part.tenant.handle, draft.received_at[:7]
        names = list(dict.fromkeys(text_at(event, settings.subject) for event in part.events))
        try:
            for retention_class in self._classes:
                place = (handle, retention_class, month)
                if place not in self._epochs:
                    self._epochs = {at: key for at, key in self._epochs.items() if at[2] == month}
                    self._epochs[place] = self._keys.epoch_key(*place, create=True)
            return self._ensure(draft, part, names, settings)
        except OSError as error:
            kind = DiskFullError if error.errno in FULL_ERRNOS else NotAcceptingError
            raise kind(f"the key store cannot be written: {error.strerror}", retry_after_s=5) from error
        except (IntegrityError, KeysMissingError) as error:
            raise NotAcceptingError(f"the key store cannot be read: {error.message}", retry_after_s=5) from error

    def _ensure(self, draft: Draft, part: Part, names: list[str], settings: PrivacySettings) -> dict[str, Subject | None]:
        """All at once; when that is too many, one by one, and the events of those for whom there is no place are refused."""
        assert self._subjects is not None
        handle = part.tenant.handle
        found: dict[str, Subject | None] = {}
        try:
            return self._subjects.ensure(handle, names, settings.subjects_max)
        except SubjectsExceededError as exceeded:
            reason = str(exceeded)
        for name in names:
            try:
                found |= self._subjects.ensure(handle, [name], settings.subjects_max)
            except SubjectsExceededError:
                continue
        error = EventInvalidError(reason, pointer=f"/{settings.subject.replace('.', '/')}", code="subjects_exceeded")
        part.refuse({at: error for at, event in enumerate(part.events) if text_at(event, settings.subject) not in found}, draft)
        return found

    def take_out(self, part: Part, subjects: Mapping[str, Subject | None]) -> Taken:
        """Step 2."""
        settings, taken = self._settings[part.tenant.name], Taken()
        part.said = ()
        for event in part.events:
            subject = subjects[text_at(event, settings.subject)]
            raw, event.raw = event.raw, UNSET
            members = take_out(event, settings.seal, ERASED if subject is None else subject_text(to_text(subject.skid)))
            if raw is not UNSET and settings.raw == "seal":
                members["/raw"] = msgspec.json.encode(raw)
            if subject is None:
                _note(event, members)
            elif members:
                taken.groups[id(event)] = (subject, plain_text(members))
        return taken

    def put_in(self, draft: Draft, part: Part, lines: list[bytes], taken: Taken, bytes_max: int) -> list[bytes]:
        """Step 3. Events whose line is too long with it become bad."""
        handle, month = part.tenant.handle, draft.received_at[:7]
        origin, derived = event_origin(self._server, handle), {}
        for at, event in enumerate(part.events):
            group = taken.groups.get(id(event))
            if group is None:
                continue
            subject, plain = group
            retention_class = _class_of(lines[at])
            if (subject.skid, retention_class) not in derived:
                epoch = self._epochs[handle, retention_class, month]
                derived[subject.skid, retention_class] = epoch_subject_key(epoch, subject.key)
            sealed = seal(derived[subject.skid, retention_class], subject.skid, plain, origin, str(event.id))
            lines[at] = lines[at][:-1] + b',"sealed":' + msgspec.json.encode([sealed]) + b"}"
        long = [at for at, line in enumerate(lines) if len(line) > bytes_max]
        if long:
            error = EventTooLargeError(f"with its sealed members the event has more than {bytes_max} bytes", positions=long)
            part.refuse(dict.fromkeys(long, error), draft)
            lines = [line for line in lines if len(line) <= bytes_max]
        return lines


def _class_of(line: bytes) -> str:
    start = line.index(_CLASS, line.rindex(_INGEST)) + len(_CLASS)
    return line[start : line.index(b'"', start)].decode()


def _note(event: Event, members: Mapping[str, bytes]) -> None:
    """Say what was dropped of somebody who was erased."""
    ingest = Ingest() if event.ingest is UNSET else event.ingest
    dropped = [Redaction(path=pointer, rule=ERASED, action="drop") for pointer in members]
    ingest.redactions = [*(ingest.redactions or []), *dropped]
    event.ingest = ingest
