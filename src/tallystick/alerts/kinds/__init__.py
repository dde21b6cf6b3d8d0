"""The kinds of rules: one file each, each a `Judge` over the state of one tenant's groups. Pure: time is given."""

from tallystick.alerts.kinds.absence import Absence
from tallystick.alerts.kinds.distinct import Distinct
from tallystick.alerts.kinds.first_seen import FirstSeen
from tallystick.alerts.kinds.judge import Fired, Judge, Seen
from tallystick.alerts.kinds.match import Match
from tallystick.alerts.kinds.sequence import Sequence
from tallystick.alerts.kinds.threshold import Threshold
from tallystick.alerts.rule import Rule

JUDGES: dict[str, type[Judge]] = {
    "match": Match,
    "threshold": Threshold,
    "distinct": Distinct,
    "absence": Absence,
    "first_seen": FirstSeen,
    "sequence": Sequence,
}

__all__ = ["JUDGES", "Fired", "Judge", "Seen", "build_judge"]


def build_judge(rule: Rule) -> Judge:
    """The judge of the rule's kind."""
    return JUDGES[rule.kind](rule)
