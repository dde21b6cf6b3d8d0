"""What a verification found: steps done, problems with their place, excused absences, and what is not proven."""

from __future__ import annotations

from dataclasses import dataclass, field

OK, FAILED, INCOMPLETE = 0, 4, 5

TIERS = {
    "nothing": "no head was found: there is nothing to check against",
    "signer": "the signer alone vouches for this: it could have signed another history for somebody else, or show an old one",
    "remembered head": "nothing that was signed up to the remembered head is missing or changed; a later cut would go unseen",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One numbered step; ``detail`` says how far it got."""

    number: int
    title: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold. ``place`` is a file and offset, a chunk, or a tree and index."""

    step: int
    message: str
    place: str


@dataclass(slots=True)
class Report:
    """The result of ``verify``. ``status`` is the exit code: 0 all holds, 4 something does not, 5 consistent but not all proven."""

    steps: list[Step] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_proven: list[str] = field(default_factory=list)
    tier: str = "nothing"
    events: int = 0

    @property
    def status(self) -> int:
        if self.problems:
            return FAILED
        return INCOMPLETE if self.not_proven else OK

    def done(self, title: str, detail: str) -> None:
        """The next step has come to its end."""
        self.steps.append(Step(len(self.steps) + 1, title, detail))

    def fail(self, message: str, place: str) -> None:
        """The step under way found something that does not hold."""
        self.problems.append(Problem(len(self.steps) + 1, message, place))
