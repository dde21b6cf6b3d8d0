"""Destination `email`: a message to some addresses for each cut, through an SMTP server (RFC 5321), at least once.

One message is one transaction: MAIL, RCPT for everybody, DATA. It is sent to all addresses or to none: when the server refuses one of
them, nothing is sent, and the destination waits with the address named in its reason.

`Message-ID` is made of the cut (RFC 5322 3.6.4), so a message that comes again after a lost answer is the same to a reader that knows
ids. What an event says never reaches a header unflattened, and the body is plain text: nothing in it is a link of somebody else's
making or markup.
"""

from __future__ import annotations

import asyncio
import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.answers import REPLY_CHARACTERS, AnswerTable, Row
from tallystick.destinations.notice import Manners, Notice, one_line, read_notice
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut
from tallystick.sources.remote import RemoteTlsSettings, check_tls, client_context, require_safe, rooted_tls

EVENTS_SHOWN = 50
"""Events that a message spells out; of more it gives the number."""
_ADDRESS = re.compile(r"[^@\s<>,;:\"()\[\]\\]+@[A-Za-z0-9.-]+")
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_SUBJECT_MAX = 150
_REASON_MAX = 500


class EmailSettings(DestinationSettings, frozen=True, kw_only=True):
    """`type = "email"`"""

    host: Annotated[str, Meta(description="The SMTP server, host or address.", min_length=1)]
    sender: Annotated[str, Meta(description="Address that the messages come from.")]
    to: Annotated[tuple[str, ...], Meta(description="Addresses that they go to.", min_length=1, max_length=50)]
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65_535)] | None, Meta(description="Port; 587 with `starttls`, 465 with `tls`, 25 with `none`.")
    ] = None
    security: Annotated[
        Literal["starttls", "tls", "none"],
        Meta(description="TLS after STARTTLS, from the first byte, or none; never less than said."),
    ] = "starttls"
    tls: Annotated[RemoteTlsSettings | None, Meta(description="Other CA certificates than the system's, or a client's own.")] = None
    insecure: Annotated[bool, Meta(description='Allow `security = "none"` to another machine.')] = False
    username: Annotated[str | None, Meta(description="User to log in as.")] = None
    password: Annotated[str | None, Meta(description="That user's password.")] = None
    prefix: Annotated[str, Meta(description="Beginning of every subject.")] = "[Tallystick]"
    console: Annotated[str | None, Meta(description="URL of the console; messages then link to what they tell of.")] = None
    interval: Annotated[Duration, Meta(description="Least time between two messages.")] = field(
        default_factory=lambda: Duration("10s")
    )
    repeat: Annotated[
        Duration, Meta(description="Alerts of a rule and group that was told so shortly before make no message; `0s`: each does.")
    ] = field(default_factory=lambda: Duration("0s"))
    timeout: Annotated[Duration, Meta(description="Longest silence of the server.")] = field(
        default_factory=lambda: Duration("30s")
    )

    def rooted(self, base_dir: Path) -> EmailSettings:
        return msgspec.structs.replace(self, tls=rooted_tls(self.tls, base_dir))

    def check(self) -> None:
        for address in (self.sender, *self.to):
            if not _ADDRESS.fullmatch(address):
                raise ConfigError(f"{address!r} is no mail address", hint='As in "oncall@example.com"')
        require_safe(self.host, is_encrypted=self.security != "none", insecure=self.insecure, place="host")
        check_tls(self.tls, Path())
        if (self.username is None) != (self.password is None):
            raise ConfigError("username and password belong together")
        if self.console is not None and not self.console.startswith(("https://", "http://")):
            raise ConfigError("console: a URL begins with https:// or http://")


BEFORE = AnswerTable(
    Row([range(400, 500)], AnswerKind.RETRY, "4xx", "retry"),
    Row(
        [range(500, 600)],
        AnswerKind.PARK,
        "5xx to login, sender or an address",
        "park: nothing is sent to anybody, and the reason has the answer",
    ),
)
"""Answers before the message itself."""
AFTER = AnswerTable(
    Row([range(200, 300)], AnswerKind.DELIVERED, "2xx to the message", "delivered"),
    Row(
        [552],
        AnswerKind.SPLIT,
        "552 to the message (too large)",
        "split the cut in halves; a single event is dead-lettered as too_large",
        "too_large",
    ),
    Row([range(400, 500)], AnswerKind.RETRY, "4xx to the message", "retry"),
    Row(
        [range(500, 600)],
        AnswerKind.SPLIT,
        "other 5xx to the message",
        "split the cut in halves; a single event is dead-lettered as refused",
        "refused",
    ),
)
"""Answers to the message."""


class EmailText:
    """The body of one message: a paragraph for each event, up to a number."""

    name = "email"
    version = "1"
    content_type = "text/plain; charset=utf-8"
    suffix = ".txt"

    def __init__(self, console: str | None = None) -> None:
        self._console = console.rstrip("/") if console else None

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        notices = [read_notice(line) for line in lines]
        parts = [self._say(notice) for notice in notices[:EVENTS_SHOWN]]
        if len(notices) > EVENTS_SHOWN:
            parts.append(f"… and {len(notices) - EVENTS_SHOWN} more events")
        parts.append(f"-- \n{origin}, index {first_index} to {last_index}")
        return ("\n\n".join(parts) + "\n").encode()

    def _say(self, notice: Notice) -> str:
        head = f"{notice.level}: {one_line(notice.subject)}" if notice.level else one_line(notice.subject)
        when = f"{notice.occurred_at[:10]} {notice.occurred_at[11:19]}Z"
        said = [head, f"  {when} {notice.action} in {notice.tenant}, by {one_line(notice.actor.called)}: {notice.outcome}"]
        if notice.reason:
            said.append(f"  {one_line(notice.reason, _REASON_MAX)}")
        said += [f"  {name}: {one_line(value)}" for name, value in _facts(notice)]
        if self._console is not None:
            place = {"id": notice.alert} if notice.alert else {"open": notice.id, "from": "-52w"}
            said.append(f"  {self._console}/{'alerts' if notice.alert else ''}?{urlencode(place | {'tenant': notice.tenant})}")
        said.append(f"  id: {notice.id}")
        return "\n".join(said)


class EmailDestination:
    """Messages through one SMTP server."""

    settings: ClassVar[type[DestinationSettings]] = EmailSettings
    guarantee: ClassVar[str] = "at least once, with stable ids"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=50, max_bytes=256 << 10, max_age_s=10.0)
    answers: ClassVar[dict[str, str]] = (
        BEFORE.published
        | AFTER.published
        | {
            "no STARTTLS where it is asked for, certificate not trusted, no login offered": "park",
            "no connection, connection lost, no answer in time, DNS or another TLS failure": "retry",
        }
    )

    def __init__(self, name: str, settings: EmailSettings) -> None:
        self.name = name
        self.encoder = EmailText(settings.console)
        self._settings = settings
        self._port = settings.port or _PORTS[settings.security]
        self._context = client_context(settings.tls or RemoteTlsSettings(), Path())
        self._manners = Manners(settings.interval.seconds, settings.repeat.seconds)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"email-{name}")

    def place(self, cut: Cut) -> str:
        return ""

    async def find(self, place: str, sha256: str) -> bool | None:
        return None

    async def send(self, cut: Cut) -> Answer:
        if told := self._manners.told_by(cut.lines):
            return Answer(AnswerKind.DELIVERED, where=f"told by {told}")
        await self._manners.wait()
        message = self._message(cut)
        answer = await self._attempt(message)
        self._manners.sent(cut.lines, str(message["Message-ID"]), is_delivered=answer.kind is AnswerKind.DELIVERED)
        return answer

    async def probe(self) -> Answer:
        """Log in and name sender and addresses, as for a message, and send none."""
        return await self._attempt(None)

    async def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _message(self, cut: Cut) -> EmailMessage:
        message = EmailMessage(policy=SMTP)
        message["From"] = _address(self._settings.sender)
        message["To"] = [_address(one) for one in self._settings.to]
        message["Subject"] = self._subject([read_notice(line) for line in cut.lines])
        message["Date"] = formatdate()
        message["Message-ID"] = f"<{cut.handle}-{cut.name}@{self._settings.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence is told to us
        message.set_content(cut.body.decode(), cte="quoted-printable")
        return message

    def _subject(self, notices: list[Notice]) -> str:
        """The gravest event, and how many there are beside it."""
        gravest = max(notices, key=lambda notice: notice.severity)
        level = f"{gravest.level}: " if gravest.level else ""
        more = f" and {len(notices) - 1} more" if len(notices) > 1 else ""
        return one_line(f"{self._settings.prefix} {level}{one_line(gravest.subject)} ({gravest.tenant}){more}", _SUBJECT_MAX)

    async def _attempt(self, message: EmailMessage | None) -> Answer:
        where = f"smtp:{self._settings.host}:{self._port} {message['Message-ID'] if message is not None else 'probe'}"
        try:
            table, code, said = await asyncio.get_running_loop().run_in_executor(self._thread, self._deliver, message)
        except ssl.SSLCertVerificationError as error:
            return Answer(AnswerKind.PARK, reason=f"certificate of {self._settings.host}: {error.verify_message}", where=where)
        except smtplib.SMTPNotSupportedError as error:
            return Answer(AnswerKind.PARK, reason=str(error), where=where)
        except smtplib.SMTPResponseException as error:
            is_message = isinstance(error, smtplib.SMTPDataError)
            table, code, said = AFTER if is_message else BEFORE, error.smtp_code, _text(error.smtp_error)
        except (OSError, smtplib.SMTPException) as error:
            return Answer(AnswerKind.RETRY, reason=f"{type(error).__name__}: {error}", where=where)
        if table is BEFORE and code < 300:
            return Answer(AnswerKind.DELIVERED, where=where)
        row = table.find(code)
        reason = (row.reason if row is not None else "") or f"{code} {one_line(said, 300)}"
        if table.kind(code) is AnswerKind.DELIVERED:
            return Answer(AnswerKind.DELIVERED, where=where, reply=said)
        return Answer(table.kind(code), reason=reason, where=where, reply=said)

    def _deliver(self, message: EmailMessage | None) -> tuple[AnswerTable, int, str]:
        """Blocking: the last reply, and the table that reads it. Raises OSError (ssl's errors are) and smtplib's own."""
        with self._connect() as server:
            server.ehlo_or_helo_if_needed()
            if self._settings.username is not None and self._settings.password is not None:
                server.login(self._settings.username, self._settings.password)
            reply = server.mail(self._settings.sender)
            for address in self._settings.to:
                if not 200 <= reply[0] < 300:
                    break
                code, said = server.rcpt(address)
                reply = code, f"{address}: ".encode() + said if code >= 300 else said
            if message is None or not 200 <= reply[0] < 300:
                server.rset()
                return BEFORE, reply[0], _text(reply[1])
            code, said = server.data(message.as_bytes())
            return AFTER, code, _text(said)

    def _connect(self) -> smtplib.SMTP:
        """Raises SMTPNotSupportedError when the server has no STARTTLS: nothing is said in the clear then."""
        timeout_s, host = self._settings.timeout.seconds, self._settings.host
        if self._settings.security == "tls":
            return smtplib.SMTP_SSL(host, self._port, local_hostname=_own_name(), timeout=timeout_s, context=self._context)
        server = smtplib.SMTP(host, self._port, local_hostname=_own_name(), timeout=timeout_s)
        if self._settings.security == "starttls":
            try:
                server.starttls(context=self._context)
            except BaseException:
                server.close()
                raise
        return server


def _own_name() -> str:
    """What HELO says: our name without a look-up, which smtplib would make."""
    name = socket.gethostname()
    return name if name.isascii() and "." in name else "[127.0.0.1]"


def _facts(notice: Notice) -> list[tuple[str, str]]:
    """What an alert or alarm says beside its title."""
    found = notice.metadata.items() if notice.action.startswith("tallystick.al") else ()
    told = [(name, value) for name, value in found if name in ("rule", "count", "first_at", "last_at", "note", "alert", "alarm")]
    group = notice.metadata.get("group") if notice.alert else None
    if isinstance(group, dict):
        told += list(group.items())
    if ip := notice.context.get("ip"):
        told.append(("ip", ip))
    return [(str(name), str(value)) for name, value in told if value]


def _address(text: str) -> Address:
    return Address(addr_spec=text)


def _text(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return text[:REPLY_CHARACTERS]
