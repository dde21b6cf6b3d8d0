"""The table of doors, and what the front makes of it."""

from __future__ import annotations

import dataclasses

from tallystick.errors import OverloadedError
from tallystick.http.problem import Problem
from tallystick.sources.asgi import Receive, Reply, Scope
from tallystick.sources.routes import Route, Routes

from .conftest import Rig


async def door(scope: Scope, receive: Receive) -> Reply:
    return Reply(200, b"ok", b"text/plain")


def in_few_words(problem: Problem, scope: Scope, request_id: str) -> Reply:
    return Reply(problem.status, problem.code.encode(), b"text/plain")


def test_an_exact_path_comes_before_a_prefix_and_the_longest_prefix_first() -> None:
    """Whatever the order in which they were given; what no route fits belongs to the api process."""
    routes = [Route("/a/", door, is_prefix=True), Route("/a/b/", door, is_prefix=True), Route("/a/b", door)]
    table = Routes.of(routes)
    found = {path: table.find(path) for path in ("/a/x", "/a/b/c", "/a/b", "/b")}
    assert found == {"/a/x": routes[0], "/a/b/c": routes[1], "/a/b": routes[2], "/b": None}


async def test_a_door_answers_and_refuses_in_its_own_form(rig: Rig) -> None:
    """Success, refusal, pushback, a wrong method and a fault of ours all reach the client as its protocol knows them."""

    async def refuse(scope: Scope, receive: Receive) -> Reply:
        raise Problem(400, "bad", "x", headers={"x-more": "1"})

    async def push_back(scope: Scope, receive: Receive) -> Reply:
        raise OverloadedError("full", retry_after_s=3)

    async def fail(scope: Scope, receive: Receive) -> Reply:
        raise RuntimeError("inner detail")

    table = Routes.of(
        Route(f"/p/{name}", made, refuse=in_few_words)
        for name, made in (("ok", door), ("bad", refuse), ("slow", push_back), ("broken", fail))
    )
    front = dataclasses.replace(rig.front, routes=table)
    answers = {name: await rig.call(f"/p/{name}", app=front) for name in ("ok", "bad", "slow", "broken")}
    assert {name: (answer.status, answer.body) for name, answer in answers.items()} == {
        "ok": (200, b"ok"),
        "bad": (400, b"bad"),
        "slow": (503, b"overloaded"),
        "broken": (500, b"internal"),
    }
    assert {answer.headers["content-type"] for answer in answers.values()} == {"text/plain"}
    assert (answers["bad"].headers["x-more"], answers["slow"].headers["retry-after"]) == ("1", "3")
    wrong = await rig.call("/p/ok", app=front, method="PUT")
    assert (wrong.status, wrong.body, wrong.headers["allow"]) == (405, b"method_not_allowed", "POST")


async def test_only_who_has_a_key_learns_that_there_is_no_such_source(rig: Rig) -> None:
    """Below `/v1/in/` 401 comes before 404."""
    assert (await rig.call("/v1/in/nosuch", secret="ts_nobody_" + "x" * 43)).status == 401
    assert (await rig.call("/v1/in/nosuch")).status == 404
