"""Source type `http`: a product's records, posted to `/v1/in/NAME`, with a key of ours or as a signed hook (`verify`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from tallystick.config import Duration
from tallystick.errors import ConfigError
from tallystick.protocols import hooks
from tallystick.protocols.hooks import HmacForm, HmacVerifier, TokenVerifier, Verifier
from tallystick.sources.doors import DoorParts, SourceDoor
from tallystick.sources.hooks import HookDoor
from tallystick.sources.kind import MappedSettings, SourceKind
from tallystick.sources.plan import SourcePlan
from tallystick.sources.routes import READ, Route

_NAMED = {"github": hooks.GITHUB, "slack": hooks.SLACK, "standard": hooks.STANDARD}
_OWN_FORM = ("header", "prefix", "algorithm", "encoding", "signed", "timestamp_header", "id_header")


class HttpSourceSettings(MappedSettings, frozen=True):
    """`[sources.NAME]` with `type = "http"`."""

    verify: Annotated[
        Literal["github", "slack", "okta", "standard", "hmac"] | None,
        Meta(
            description="Who may send: whoever has `secret`, in the way that this product proves it. Absent: a key with `ingest`."
        ),
    ] = None
    secret: Annotated[str | None, Meta(description="With `verify`: the secret that both sides know, at least 16 bytes.")] = None
    previous_secret: Annotated[
        str | None, Meta(description="With `verify`: the old secret, which is taken too while the sender changes over.")
    ] = None
    tolerance: Annotated[
        Duration,
        Meta(description="With `verify`: how far a signed time may be from now, either way; older deliveries are refused."),
    ] = field(default_factory=lambda: Duration("5m"))
    header: Annotated[
        str | None,
        Meta(description="With `hmac`: the header of the signature. With `okta`: that of the text, if not Authorization."),
    ] = None
    prefix: Annotated[str, Meta(description="With `hmac`: what stands before the signature in its header, as in `sha256=`.")] = ""
    algorithm: Annotated[Literal["sha256", "sha1", "sha512"], Meta(description="With `hmac`: the hash.")] = "sha256"
    encoding: Annotated[Literal["hex", "base64"], Meta(description="With `hmac`: how the signature is written.")] = "hex"
    signed: Annotated[
        str, Meta(description="With `hmac`: what is signed, with the places `{body}` (needed), `{timestamp}` and `{id}`.")
    ] = "{body}"
    timestamp_header: Annotated[str | None, Meta(description="With `hmac`: the header of `{timestamp}`, in Unix seconds.")] = None
    id_header: Annotated[str | None, Meta(description="With `hmac`: the header of `{id}`.")] = None

    def check(self, base_dir: Path) -> None:
        """Raises ConfigError, whose place is the setting at fault."""
        super().check(base_dir)
        if self.verify is None:
            given = [name for name in ("secret", "previous_secret", *_OWN_FORM) if getattr(self, name) != _default(name)]
            if given:
                raise ConfigError("this has no meaning without `verify`", place=given[0], hint="`verify` names the scheme")
            return
        if self.tenant is None:
            raise ConfigError("a signed hook comes without a key, so it needs a tenant", place="verify", hint='tenant = "…"')
        if self.secret is None:
            raise ConfigError("a signed hook needs a secret", place="verify", hint='secret = { env = "…" } or { file = "…" }')
        allowed = _OWN_FORM if self.verify == "hmac" else ("header",) if self.verify == "okta" else ()
        for name in _OWN_FORM:
            if name not in allowed and getattr(self, name) != _default(name):
                raise ConfigError(f"`{self.verify}` knows its own form", place=name, hint="Leave it out, or use `hmac`")
        if self.verify == "hmac":
            self._check_form()
        self.verifier()

    def _check_form(self) -> None:
        if self.header is None:
            raise ConfigError("`hmac` needs the header of the signature", place="verify", hint='header = "X-Signature"')
        if self.signed.count("{body}") != 1:
            raise ConfigError("what is signed must have the body in it, once", place="signed", hint='As in "{timestamp}.{body}"')
        for place, name in (("{timestamp}", "timestamp_header"), ("{id}", "id_header")):
            if place in self.signed and getattr(self, name) is None:
                raise ConfigError(f"`signed` has {place}, and no `{name}` says where it stands", place="signed")

    def verifier(self) -> Verifier | None:
        """The scheme with its secrets; None for a source that is sent to with a key. Raises ConfigError."""
        if self.verify is None:
            return None
        secrets = []
        for name in ("secret", "previous_secret"):
            text = getattr(self, name)
            if text is not None:
                try:
                    secrets.append(hooks.read_secret(text, is_standard=self.verify == "standard"))
                except ConfigError as error:
                    raise ConfigError(error.message, place=name, hint=error.hint) from error
        if self.verify == "okta":
            return TokenVerifier(secrets, (self.header or "authorization").lower())
        return HmacVerifier(_NAMED.get(self.verify) or self._form(), secrets, self.tolerance.seconds)

    def _form(self) -> HmacForm:
        timestamp = self.timestamp_header.lower() if self.timestamp_header else None
        own_id = self.id_header.lower() if self.id_header else None
        header = (self.header or "").lower()
        return HmacForm(header, self.prefix, self.algorithm, self.encoding, self.signed, timestamp, own_id)


def _default(name: str) -> object:
    return HttpSourceSettings.__struct_defaults__[
        HttpSourceSettings.__struct_fields__.index(name) - len(HttpSourceSettings.__struct_fields__)
    ]


def _doors(parts: DoorParts, plan: SourcePlan) -> Iterable[Route]:
    path, settings = f"/v1/in/{plan.name}", plan.settings
    verifier = settings.verifier() if isinstance(settings, HttpSourceSettings) else None
    if verifier is None:
        yield Route(path, SourceDoor(parts, plan))
    else:
        methods = frozenset({"POST"}) | (READ if isinstance(verifier, TokenVerifier) else frozenset())
        yield Route(path, HookDoor(parts, plan, verifier), methods)


def _way(plan: SourcePlan) -> str:
    settings = plan.settings
    scheme = settings.verify if isinstance(settings, HttpSourceSettings) else None
    return f"POST /v1/in/{plan.name}" + (f", signed ({scheme})" if scheme else "")


KIND = SourceKind(HttpSourceSettings, _way, _doors)
