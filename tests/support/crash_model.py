"""Models of what is stored, run by Hypothesis against a disk that crashes before every durable step (`sim_disk`).

A model does one operation after the other on a real component. While it works, images are taken before its durable steps, as a
power cut would leave them there; each is then taken up as a start does, and what is found is held against what had been
promised by that moment. Recoveries are cut in the same way (``is_deep``). Now and then the model goes on with such an image,
a step fails with EIO or ENOSPC, or the disk lies. All chance is drawn from Hypothesis or from its seeds, so that a failure
is found again by the seed that the test names:

    TALLYSTICK_SEED=12345 pytest tests/fault/test_model_….py
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from support.sim_disk import SimDisk, any_thread
from tallystick.durable import set_observer

MEMORY = Path("/dev/shm")  # the simulated disk forgets by itself; a real one would only be slow
SEEDS = st.integers(0, 2**32 - 1)
CODES = st.sampled_from([errno.EIO, errno.ENOSPC])
SEED = int(os.environ.get("TALLYSTICK_SEED") or random.SystemRandom().randrange(2**31))


class ModelError(AssertionError):
    """A promise of storage was broken."""


class CrashModel(RuleBasedStateMachine):
    """Brings the disk and its crashes. ``share`` of all durable steps are cut, ``onward`` of the operations end in a cut."""

    share: ClassVar[float] = 0.3
    onward: ClassVar[float] = 0.1
    is_deep: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="tallystick-model-", dir=MEMORY if MEMORY.is_dir() else None))
        self._images = 0
        self._take(self.root / "start")
        self.data.mkdir(mode=0o700)

    # What a model has to say

    def open(self) -> None:
        """Take up ``self.data``, as a start does."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the component go. It may be in any state."""
        raise NotImplementedError

    def expected(self) -> Any:
        """What must be there, were the power cut now: a copy."""
        raise NotImplementedError

    def recover(self, directory: Path) -> Any:
        """Take up a directory as a start does, go on to rest, and say what is there."""
        raise NotImplementedError

    def judge(self, found: Any, expected: Any) -> None:
        """Raise ModelError when a promise is broken."""
        raise NotImplementedError

    def adopt(self, found: Any, expected: Any) -> None:
        """Go on from an image: what was found there is what is so from now on."""
        raise NotImplementedError

    # What every model does

    def start(self) -> None:
        """`open`, with the disk watching."""
        set_observer(self.disk)
        try:
            self.open()
        finally:
            set_observer(None)

    @contextmanager
    def cutting(self, number: int) -> Iterator[None]:
        """Cut the power, in copies, before durable steps of the block; sometimes go on with one of them."""
        coin = random.Random(number)
        images: list[tuple[Path, Any]] = []

        def before_step(_operation: str) -> None:
            if coin.random() < self.share:
                target = self._new_place()
                self.disk.image(target, coin)
                images.append((target, self.expected()))

        self.disk.before_step = before_step
        set_observer(self.disk)
        try:
            yield
        finally:
            set_observer(None)
            self.disk.before_step = lambda _: None
        is_ending = bool(images) and coin.random() < self.onward
        last = coin.choice(images)[0] if is_ending else None
        for target, expected in images:
            if target == last:
                kept = self._new_place()
                shutil.copytree(target, kept)
            found = self._check(target, expected, coin)
            shutil.rmtree(target)
            if target == last:
                self._go_on(kept, found, expected)

    @contextmanager
    def failing(self, step: int, code: int) -> Iterator[list[OSError]]:
        """The durable step number ``step`` of the block fails. What was raised of it is in the list."""
        raised: list[OSError] = []
        self.disk.fail_at = (step, code)
        set_observer(self.disk)
        try:
            yield raised
        except OSError as error:
            if "injected" not in str(error):
                raise
            raised.append(error)
        finally:
            set_observer(None)
            self.disk.fail_at = None

    def cut_now(self, number: int) -> None:
        """A power cut between two operations, and on with what it left."""
        coin = random.Random(number)
        target, copy = self._new_place(), self._new_place()
        self.disk.image(target, coin)
        shutil.copytree(target, copy)
        expected = self.expected()
        self._go_on(target, self._check(copy, expected, coin), expected)
        shutil.rmtree(copy)

    @contextmanager
    def lying(self, number: int) -> Iterator[Path]:
        """The disk forgets half of what it says it has synced in the block. The image that a power cut then leaves is made
        at the end of the block, at the path that it gets; afterwards the model begins on a new, empty disk."""
        coin = random.Random(number)
        image = self._new_place()
        self.disk.lie(0.5, coin)
        set_observer(self.disk)
        try:
            yield image
        finally:
            set_observer(None)
        self.disk.image(image, coin)

    def begin_anew(self) -> None:
        """On an empty disk."""
        self.close()
        self.disk.close()
        shutil.rmtree(self.data)
        self._take(self._new_place())
        self.data.mkdir(mode=0o700)

    def teardown(self) -> None:
        set_observer(None)
        self.close()
        self.disk.close()
        shutil.rmtree(self.root)

    def _take(self, directory: Path) -> None:
        self.data = directory
        self.disk = SimDisk(directory, any_thread)

    def _go_on(self, directory: Path, found: Any, expected: Any) -> None:
        self.close()
        self.disk.close()
        shutil.rmtree(self.data)
        self._take(directory)
        self.disk.knows_all()
        self.adopt(found, expected)
        self.start()

    def _check(self, target: Path, expected: Any, coin: random.Random) -> Any:
        images: list[Path] = []
        disk = SimDisk(target, any_thread)
        if self.is_deep:
            disk.knows_all()

            def before_step(_operation: str) -> None:
                if coin.random() < self.share / 2:
                    images.append(self._new_place())
                    disk.image(images[-1], coin)

            disk.before_step = before_step
            set_observer(disk)
        try:
            found = self.take_up(target)
        finally:
            set_observer(None)
            disk.close()
        self.judge(found, expected)
        for image in images:
            self.judge(self.take_up(image), expected)
            shutil.rmtree(image)
        return found

    def take_up(self, directory: Path) -> Any:
        try:
            return self.recover(directory)
        except Exception as error:
            raise ModelError(f"after a power cut: {error!r}") from error

    def _new_place(self) -> Path:
        self._images += 1
        return self.root / f"image-{self._images}"


def check_model(model: type[CrashModel], *, examples: int, steps: int, is_deep: bool = False) -> str:
    """Run a model; returns what to say of it. A failure names its seed."""
    made = type(model.__name__, (model,), {"is_deep": is_deep, "share": 1.0 if is_deep else model.share})
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    print(f"TALLYSTICK_SEED={SEED}")
    run_state_machine_as_test(seed(SEED)(made), settings=options)
    return f"{examples} runs of up to {steps} operations, seed {SEED}"


def check_goes_red(model: type[CrashModel], *, examples: int = 60, steps: int = 20) -> None:
    """The model must find the fault of a broken stand-in, which the caller has put in place."""
    made = type(model.__name__, (model,), {"share": 1.0})
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((ModelError, FlakyFailure)) as red:
        run_state_machine_as_test(seed(SEED)(made), settings=options)
    # A component with a thread of its own may not show the same fault twice; that it was found once is what is asked.
    if isinstance(red.value, FlakyFailure):
        assert red.value.subgroup(ModelError) is not None
