"""`tallystick check`: is the configuration good, and where may an event end.

Everything that a start would refuse is refused here, without opening a socket or a file for writing. The ways are listed so that no
end goes unnamed: an event ends delivered, filtered by a named filter, dead-lettered or quarantined; never "dropped".
"""

from __future__ import annotations

import asyncio
from typing import Any

from tallystick.alerts.library import load_rules
from tallystick.config import Config
from tallystick.destinations import build_destinations, read_settings
from tallystick.errors import TallystickError
from tallystick.pipeline.backup import check_backup
from tallystick.pipeline.reviews import check_reviews
from tallystick.plugin import AnswerKind, Destination
from tallystick.query.evaluate import compile_query
from tallystick.reports.framework import load_frameworks
from tallystick.sources.kind import MappedSettings, load_kind
from tallystick.sources.plan import EVENTS, INNER, SourcePlan, build_plans
from tallystick.sources.retention import ClassRules


def check_config(config: Config) -> list[dict[str, Any]]:
    """Every way from a source to a destination, with the places where an event may end. Raises ConfigError."""
    plans = build_plans(config, compile_query)
    ClassRules(config)
    load_rules(config)
    check_reviews(config)
    load_frameworks(config)
    check_backup(config)
    wheres = {name: settings.where for name, (_, settings) in read_settings(config).items()}
    return [_way(config, plan, wheres) for name, plan in plans.items() if name != INNER]


def _way(config: Config, plan: SourcePlan, wheres: dict[str, str | None]) -> dict[str, Any]:
    own = config.sources.get(plan.name, {}).get("transforms", ())
    transforms = [*config.pipeline.transforms, *own]
    steps = ["POST /v1/events" if plan.name == EVENTS else load_kind(plan.type).way(plan)]
    if isinstance(plan.settings, MappedSettings):
        steps.append(f"mapping {plan.settings.mapping_name(config.base_dir)}")
    steps += [f"transform {name}" for name in transforms]
    steps.append("journal, tree, archive, search")
    ends = ["quarantined with a reason"]
    if plan.on_invalid == "reject":
        ends = ["refused with every bad line named, or quarantined with a reason where the sender asks for it"]
    ends += [
        f"filtered by {name}"
        for name in transforms
        if config.transforms.get(name, {}).get("type") in ("filter", "sample", "python")
    ]
    for name, where in wheres.items():
        ends.append(
            f"{name}: delivered, or dead-lettered with a reason" + (f", or filtered by its where ({where})" if where else "")
        )
    if not wheres:
        ends.append("kept in the archive; no destination is configured")
    return {"source": plan.name, "steps": steps, "ends": ends}


def probe_destinations(config: Config) -> dict[str, bool | str]:
    """Ask each destination whether it would take an event: True, or why not."""
    return asyncio.run(_probe_all({name: built for name, (built, _) in build_destinations(config).items()}))


async def _probe_all(destinations: dict[str, Destination]) -> dict[str, bool | str]:
    answers: dict[str, bool | str] = {}
    for name, destination in destinations.items():
        try:
            answer = await destination.probe()
            answers[name] = True if answer.kind is AnswerKind.DELIVERED else f"{answer.kind.value}: {answer.reason}"
        except (OSError, TallystickError) as error:
            answers[name] = f"retry: {error}"
        finally:
            await destination.close()
    return answers
