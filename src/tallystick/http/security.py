"""Response headers that every answer carries (RELIABILITY "Secure defaults" 12)."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; object-src 'none'; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

SECURITY_HEADERS: Headers = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_HSTS = (b"strict-transport-security", b"max-age=31536000")


def with_security_headers(lines: Iterable[tuple[bytes, bytes]], *, is_tls: bool) -> Headers:
    """``lines`` and the security headers that are not among them; HSTS only under TLS."""
    present = list(lines)
    names = {name for name, _ in present}
    wanted = [*SECURITY_HEADERS, _HSTS] if is_tls else SECURITY_HEADERS
    return present + [line for line in wanted if line[0] not in names]
