"""The sources that run by themselves in the intake's process, over all configurations that it meets.

With a new configuration a source goes on undisturbed when nothing of its own has changed; its next commit is made under the new
plan. One whose settings changed, or that is gone, is stopped first (it flushes and answers), then the new ones are started:
two of them could not listen at the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from tallystick.config import Config
from tallystick.errors import ConfigError
from tallystick.pipeline.process import bind_tcp
from tallystick.plugin import Source, SourceContext
from tallystick.sources.doors import DoorParts
from tallystick.sources.inlet import Inlet
from tallystick.sources.kind import load_kind
from tallystick.sources.plan import SourcePlan
from tallystick.sources.runner import SourceRunner


@dataclass(slots=True)
class _Running:
    runner: SourceRunner
    nature: tuple[Any, ...]
    stop: asyncio.Event
    task: asyncio.Task[None]


class OwnSources:
    """Runners by name of source. Used on the intake's event loop."""

    def __init__(self, parts: DoorParts) -> None:
        self._parts = parts
        self._running: dict[str, _Running] = {}
        self._taking = asyncio.Lock()

    def check(self, config: Config, plans: Mapping[str, SourcePlan]) -> None:
        """Raises ConfigError when a source would listen where nobody listened before and another program does."""
        now = {_address(running.nature[1]) for running in self._running.values()}
        for plan in plans.values():
            address = _address(plan.settings)
            if address and address not in now:
                try:
                    bind_tcp(address).close()
                except ConfigError as error:
                    raise ConfigError(f"sources.{plan.name}: {error.message.partition(': ')[2]}", place=config.path) from error

    async def take(self, config: Config, plans: Mapping[str, SourcePlan]) -> None:
        """Run what ``plans`` ask for, and nothing else."""
        async with self._taking:
            wanted = {plan.name: plan for plan in plans.values() if self._maker(config, plan) is not None}
            for name, running in self._running.items():
                if name in wanted and running.nature == _nature(config, wanted[name]):
                    running.runner.meet(wanted[name])
            gone = [name for name, running in self._running.items() if running.nature != _nature(config, wanted.get(name))]
            for name in gone:
                self._running[name].stop.set()
            for name in gone:
                await self._running.pop(name).task
            for name, plan in wanted.items():
                if name not in self._running:
                    self._running[name] = self._start(config, plan)

    async def stop(self) -> None:
        """Let each flush and answer; returns when the last has ended."""
        async with self._taking:
            for running in self._running.values():
                running.stop.set()
            await asyncio.gather(*(running.task for running in self._running.values()))

    def page(self) -> dict[str, dict[str, Any]]:
        """What each source took in and, where it runs by itself, how it is."""
        page = self._parts.service.tallies.page()
        for name, running in self._running.items():
            with contextlib.suppress(KeyError):  # one that is being stopped belongs to no plan any more
                page[name] |= running.runner.status()
        return page

    def _maker(self, config: Config, plan: SourcePlan) -> Callable[[], Source] | None:
        """How to make this source anew for a run; None when it is HTTP doors alone."""
        if plan.settings is None:
            return None
        kind = load_kind(plan.type)
        context = SourceContext(plan.name, config.base_dir, config.data_dir / "sources" / plan.name, config.limits)
        if kind.source is not None:
            return partial(kind.source, plan.settings, context)
        if kind.listener is not None and kind.listener(self._parts, plan, context) is not None:
            return cast("Callable[[], Source]", partial(kind.listener, self._parts, plan, context))
        return None

    def _start(self, config: Config, plan: SourcePlan) -> _Running:
        make = self._maker(config, plan)
        assert make is not None
        runner = SourceRunner(plan.name, make, partial(Inlet, self._parts.service, plan))
        stop = asyncio.Event()
        return _Running(runner, _nature(config, plan), stop, asyncio.create_task(runner.run(stop)))


def _nature(config: Config, plan: SourcePlan | None) -> tuple[Any, ...]:
    """What a running source cannot change while it runs."""
    if plan is None:
        return ()
    # What listens beside the HTTP listener has its plan from the start, so its transforms are part of its nature.
    bound = (config.transforms, config.pipeline) if load_kind(plan.type).listener is not None else ()
    return (plan.type, plan.settings, config.limits, *bound)


def _address(settings: Any) -> str:
    found = getattr(settings, "listen", None)
    return found if isinstance(found, str) else ""
