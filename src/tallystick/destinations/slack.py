"""Destination `slack`: a message in a channel for each cut, through an incoming webhook, at least once.

A notification for people, meant with a `where` that lets few events through. One cut is one message, so `batch` says how many
events share one: `max_events = 1` is a message for each. Slack takes about one message a second; `interval` keeps to it.
Nothing that an event says can mention anybody or make a link: `&`, `<` and `>` are escaped, and link detection is off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, field

from tallystick.config import DestinationSettings, Duration
from tallystick.destinations.answers import NO_ANSWER, AnswerTable, Row
from tallystick.destinations.notice import Manners, Notice, one_line, read_notice
from tallystick.destinations.over_http import HttpDestination, HttpSettings
from tallystick.errors import ConfigError
from tallystick.plugin import Answer, AnswerKind, BatchDefaults, Cut

EVENTS_SHOWN = 20
"""Events that a message spells out; of more it gives the number."""
TEXT_MAX = 30_000
"""Characters of a message; past 40,000 Slack cuts it without a word."""
_PROBE = b"{}"
_to_json = msgspec.json.Encoder().encode


class SlackSettings(HttpSettings, frozen=True, kw_only=True):
    """`type = "slack"`"""

    url: Annotated[str, Meta(description="The incoming webhook, https://hooks.slack.com/services/…: it is the secret.")]
    interval: Annotated[Duration, Meta(description="Least time between two messages.")] = field(
        default_factory=lambda: Duration("1s")
    )
    repeat: Annotated[
        Duration, Meta(description="Alerts of a rule and group that was told so shortly before make no message; `0s`: each does.")
    ] = field(default_factory=lambda: Duration("0s"))

    def check(self) -> None:
        super().check()
        if self.encoding != "json":
            raise ConfigError("encoding: a message is made for people and has no other form")


TABLE = AnswerTable(
    Row([200], AnswerKind.DELIVERED, "200", "delivered"),
    Row(
        [400, 413],
        AnswerKind.SPLIT,
        "400 (invalid_payload), 413",
        "split the cut in halves; a single event is dead-lettered as refused",
        "refused",
    ),
    Row([429, 503], AnswerKind.THROTTLE, "429 (rate_limited), 503", "throttle, as long as Retry-After says"),
    Row([408, range(500, 600)], AnswerKind.RETRY, "408, 500 (rollup_error), other 5xx", "retry"),
    Row(
        [range(300, 500)],
        AnswerKind.PARK,
        "403 (action_prohibited), 404 (no_service, channel_not_found), 410 (channel_is_archived), other 3xx and 4xx",
        "park",
    ),
)


class SlackMessage:
    """One message: a line for each event, up to a number."""

    name = "slack"
    version = "1"
    content_type = "application/json"
    suffix = ".json"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        text = f"*{_escape(read_notice(lines[0]).tenant)}*"
        for number, line in enumerate(lines):
            said = _say(read_notice(line))
            if number == EVENTS_SHOWN or len(text) + len(said) > TEXT_MAX:
                text += f"\n… and {len(lines) - number} more events"
                break
            text += "\n" + said
        return _to_json({"text": text, "unfurl_links": False, "unfurl_media": False, "parse": "none", "link_names": False})


class SlackDestination(HttpDestination):
    """Messages in the channel of one incoming webhook."""

    settings: ClassVar[type[DestinationSettings]] = SlackSettings
    guarantee: ClassVar[str] = "at least once"
    window: ClassVar[int] = 1
    is_ordered: ClassVar[bool] = True
    batch: ClassVar[BatchDefaults] = BatchDefaults(max_events=20, max_bytes=256 << 10, max_age_s=2.0)
    answers: ClassVar[dict[str, str]] = TABLE.published | NO_ANSWER

    def __init__(self, name: str, settings: SlackSettings) -> None:
        super().__init__(name, settings, 1)
        self.encoder = SlackMessage()
        self._manners = Manners(settings.interval.seconds, settings.repeat.seconds)

    async def send(self, cut: Cut) -> Answer:
        if told := self._manners.told_by(cut.lines):
            return Answer(AnswerKind.DELIVERED, where=f"told by {told}")
        await self._manners.wait()
        name = f"{cut.handle}-{cut.name}"
        answer = await self._post(cut.body, name)
        self._manners.sent(cut.lines, f"slack {name}", is_delivered=answer.kind is AnswerKind.DELIVERED)
        return answer

    async def probe(self) -> Answer:
        """A message without text: that it is refused as such (400) shows that the webhook is there."""
        answer = await self._post(_PROBE, "probe")
        return Answer(AnswerKind.DELIVERED) if answer.kind is AnswerKind.SPLIT else answer

    async def _post(self, body: bytes, where: str) -> Answer:
        """``where`` has no URL: it is the secret."""
        reply = await self._request("", body, {"content-type": "application/json"})
        return reply if isinstance(reply, Answer) else TABLE.answer(reply, f"slack {where}")


def _say(event: Notice) -> str:
    """``03-04 05:06:07Z `user.login` by Ann Lee on CRM: denied (second factor missing) · id``."""
    text = f"{event.occurred_at[5:10]} {event.occurred_at[11:19]}Z `{_word(event.action)}` by {_word(event.actor.called)}"
    if event.targets:
        text += f" on {_word(event.targets[0].called)}"
    reason = f" ({_word(event.reason)})" if event.reason else ""
    return f"{text}: {event.outcome}{reason} · {_word(event.id)}"


def _word(text: str) -> str:
    """In one line, not long, and nothing in it that Slack reads as markup of its own."""
    return _escape(one_line(text)).replace("`", "'").replace("*", "∗").replace("~", "∼")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
