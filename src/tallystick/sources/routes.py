"""Which door a request goes to: a table of exact paths and of prefixes, made once from the configuration.

Each route says which methods its door takes, which go on to the api process, and how a refusal is told. Protocols have their own
form for that: a client of theirs would not understand a problem document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from tallystick.http.problem import CONTENT_TYPE, Problem
from tallystick.sources.asgi import Door, Receive, Reply, Scope
from tallystick.sources.doors import DoorParts, EventsDoor, UnknownSourceDoor
from tallystick.sources.kind import load_kind
from tallystick.sources.plan import SourcePlan

Refuse = Callable[[Problem, Scope, str], Reply]
"""From a problem, the request's scope and its id to the answer; the problem's own headers are added by the front."""


def as_problem_document(problem: Problem, scope: Scope, request_id: str) -> Reply:
    """RFC 9457, which is how everything refuses that has no form of its own."""
    return Reply(problem.status, problem.body(request_id), CONTENT_TYPE)


@dataclass(frozen=True, slots=True)
class Route:
    """One door. ``passed``: methods that go on to the api process. ``is_prefix``: for every path that begins so."""

    path: str
    door: Door
    methods: frozenset[str] = frozenset({"POST"})
    passed: frozenset[str] = frozenset()
    refuse: Refuse = as_problem_document
    is_prefix: bool = False

    @property
    def allowed(self) -> str:
        """The value of an Allow header."""
        return ", ".join(sorted(self.methods | self.passed))


READ = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Routes:
    """Exact paths first, then the longest prefix."""

    exact: Mapping[str, Route]
    prefixes: tuple[Route, ...] = field(default=())

    @classmethod
    def of(cls, routes: Iterable[Route]) -> Routes:
        """The table of ``routes``, in any order."""
        found = list(routes)
        prefixes = sorted((route for route in found if route.is_prefix), key=lambda route: -len(route.path))
        return cls({route.path: route for route in found if not route.is_prefix}, tuple(prefixes))

    def find(self, path: str) -> Route | None:
        """The route of that path; None: it belongs to the api process."""
        route = self.exact.get(path)
        if route is None:
            for route in self.prefixes:
                if path.startswith(route.path):
                    return route
            return None
        return route


def build_routes(parts: DoorParts, plans: Mapping[str, SourcePlan]) -> Routes:
    """All doors of the intake process."""

    async def live(scope: Scope, receive: Receive) -> Reply:
        return Reply(200, b'{"live":true}')

    async def ready(scope: Scope, receive: Receive) -> Reply:
        reasons = parts.not_ready()
        return Reply(503 if reasons else 200, msgspec.json.encode({"ready": not reasons, "reasons": reasons}))

    routes = [
        Route("/v1/events", EventsDoor(parts), passed=READ),
        Route("/v1/in/", UnknownSourceDoor(parts), is_prefix=True),
        Route("/healthz/live", live, READ),
        Route("/healthz/ready", ready, READ),
    ]
    for plan in plans.values():
        if plan.settings is not None:
            routes += load_kind(plan.type).doors(parts, plan)
    return Routes.of(routes)
