"""The console's reconcile: a destination is read back step by step, and the page adds up what the steps found.

Each step is a form that posts the next one, with the sums so far in it: they are shown to whoever sent them and to nobody else, and nothing is
decided by them. The script presses the button; without it the reader does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Request, Response, post
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter

from tallystick.api.caller import Caller
from tallystick.api.delivery import ReconcileRequest, reconcile_step
from tallystick.api.deps import ApiDeps, CallerDep, DepsDep
from tallystick.api.params import request_id_of
from tallystick.api.status import destination_rows
from tallystick.console.entrance import checked_form
from tallystick.console.pages import render
from tallystick.http.problem import Problem

_PARAMETER_MAX = 2_048
Name = Annotated[str, PathParameter(description="A destination.", max_length=128)]


@dataclass(frozen=True, slots=True)
class Sums:
    """What the steps so far looked at and found."""

    cuts: int = 0
    events: int = 0
    objects: int = 0
    findings: int = 0
    repaired: int = 0
    uncompared: int = 0

    @classmethod
    def of_form(cls, form: dict[str, str]) -> Sums:
        """As the step before wrote them; what is no number counts as none."""
        values = {name: form.get(name, "") for name in cls.__slots__}
        return cls(**{name: int(text) for name, text in values.items() if text.isascii() and text.isdigit() and len(text) < 16})

    def plus(self, page: dict[str, Any]) -> Sums:
        """With one more step."""
        findings = page.get("findings") or []
        return Sums(
            self.cuts + page.get("cuts", 0),
            self.events + page.get("events", 0),
            self.objects + page.get("objects", 0),
            self.findings + len(findings),
            self.repaired + sum(bool(one.get("is_repaired")) for one in findings),
            self.uncompared + page.get("uncompared", 0),
        )


@post("/delivery/{name:str}/reconcile", include_in_schema=False, opt={"is_form": True}, status_code=200)
async def reconcile(request: Request[Any, Any, Any], caller: CallerDep, deps: DepsDep, name: Name) -> Response[bytes]:
    """One step, and the sums with it."""
    form = await checked_form(request, is_tls=deps.config.server.tls is not None)
    after, tenant = form.get("after") or None, form.get("tenant") or None
    if len(after or "") > _PARAMETER_MAX or len(tenant or "") > 63:
        raise Problem(400, "form_invalid", "this form is not as the page made it; begin again")
    asked = ReconcileRequest(tenant=tenant, after=after, repair=form.get("repair") == "yes")
    done = await reconcile_step(deps, caller, name, asked, request_id_of(request))
    page = done.result if isinstance(done.result, dict) else {}
    sums = Sums.of_form(form).plus(page) if after else Sums().plus(page)
    return render(
        "reconcile.html",
        page="Delivery",
        caller=caller,
        server_name=deps.server_name,
        reasons=[],
        destination=name,
        asked=asked,
        step=page,
        sums=sums,
        delivered=await _delivered(deps, caller, name, tenant),
    )


async def _delivered(deps: ApiDeps, caller: Caller, name: str, tenant: str | None) -> int:
    """How many events there are to be compared; 0 when it is not known, as for one tenant of many."""
    if tenant is not None and caller.is_server_wide:
        return 0
    return int((await destination_rows(deps, caller))[name]["delivered"])


HANDLERS: list[BaseRouteHandler] = [reconcile]
