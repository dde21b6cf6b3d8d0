"""A real SMTP server (aiosmtpd) on a free port of the loopback, with STARTTLS and logins."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from support.certificates import Authority

USER, PASSWORD = "tallystick", "open sesame"


class SmtpServer:
    """``messages`` are what was taken. Dials: ``data`` is said to a message in place of 250, ``refused`` maps addresses to what they get."""

    def __init__(self, directory: Path) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.secured: list[bool] = []
        self.data = ""
        self.refused: dict[str, str] = {}
        authority = Authority(directory)
        self.ca, self.stranger = authority.path, Authority(directory, "stranger").path
        pair = authority.issue("localhost", "localhost", "127.0.0.1")
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(pair.cert, pair.key)
        self.port = 0

    async def handle_RCPT(  # noqa: N802 - as aiosmtpd names it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data:
            return self.data
        message = message_from_bytes(bytes(envelope.content or b""), policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.recipients.append(list(envelope.rcpt_tos))
        self.secured.append(session.ssl is not None)
        return "250 2.0.0 taken"

    def texts(self) -> list[str]:
        return [message.get_content().replace("\r\n", "\n") for message in self.messages]


def _authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    is_known = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=is_known, handled=False)


class _Controller(Controller):
    """On whatever port is free, and asked for it afterwards."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def run_smtp_server(*, is_secure: bool = True) -> Iterator[SmtpServer]:
    """With STARTTLS and the login of ``USER``, both required; or neither."""
    with TemporaryDirectory() as directory:
        handler = SmtpServer(Path(directory))
        secure: dict[str, Any] = {
            "tls_context": handler.context, "require_starttls": True, "authenticator": _authenticate, "auth_required": True,
        }  # fmt: skip
        controller = _Controller(handler, hostname="127.0.0.1", port=0, **(secure if is_secure else {}))
        controller.start()
        handler.port = controller.port
        try:
            yield handler
        finally:
            controller.stop()
