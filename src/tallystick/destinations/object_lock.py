"""S3 Object Lock for delivered objects: retention is set, read back, and only then an object counts as delivered.

obstore puts objects but knows no retention, so this part talks to S3 through botocore (extra `s3`), with the same endpoint and credentials. The bucket must have
been made with Object Lock. An object that is locked already, in the same mode and not for less, is left alone: a repeat changes nothing.

A crash between the put and the lock leaves an object without one; its cut is open, comes again, finds the object and locks it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from tallystick.config import Duration
from tallystick.config.base import Settings
from tallystick.errors import ConfigError, TallystickError

_SECOND = timedelta(seconds=1)
_PARKING = {
    "AccessDenied",
    "InvalidRequest",
    "NoSuchBucket",
    "NoSuchKey",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "MethodNotAllowed",
}
"""InvalidRequest: the bucket was made without Object Lock."""


class ObjectLockSettings(Settings, frozen=True, kw_only=True):
    """`object_lock = { … }`"""

    mode: Annotated[
        Literal["governance", "compliance"],
        Meta(description="`governance`: some users may lift it; `compliance`: nobody may, before its time."),
    ]
    period: Annotated[Duration, Meta(description="How long an object is locked, from its delivery on.")]

    def check(self) -> None:
        """Raises ConfigError."""
        if self.period.seconds < 1:
            raise ConfigError(
                "object_lock: a period of at least a second", hint='As in object_lock = { mode = "governance", period = "400d" }'
            )


class LockError(TallystickError):
    """An object could not be locked. ``is_parking``: somebody must do something first."""

    code = "object_lock"

    def __init__(self, message: str, *, is_parking: bool) -> None:
        super().__init__(message)
        self.is_parking = is_parking


class ObjectLock:
    """Locks objects below one `s3://bucket/prefix`."""

    def __init__(
        self, url: str, options: dict[str, str], settings: ObjectLockSettings, threads: ThreadPoolExecutor, timeout_s: float
    ) -> None:
        """Opens no connection. Raises ConfigError when the packages are missing."""
        parts = urlsplit(url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._mode = settings.mode.upper()
        self._period = timedelta(seconds=settings.period.seconds)
        self._threads = threads
        self._client = _make_client(options, timeout_s)

    async def lock(self, place: str) -> None:
        """Lock the object at ``place`` below the URL, and see that it is locked. Raises LockError."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._lock, place)

    def _lock(self, place: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{self._prefix}/{place}" if self._prefix else place
        try:
            if self._is_locked(key, datetime.now(UTC) + _SECOND):
                return
            until = datetime.now(UTC).replace(microsecond=0) + self._period + _SECOND
            retention = {"Mode": self._mode, "RetainUntilDate": until}
            self._client.put_object_retention(Bucket=self._bucket, Key=key, Retention=retention)
            if not self._is_locked(key, until):
                raise LockError(f"the store said that {key} is locked, and shows no such lock", is_parking=True)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            raise LockError(f"{key} could not be locked: {error}", is_parking=code in _PARKING) from error
        except BotoCoreError as error:
            raise LockError(f"{key} could not be locked: {error}", is_parking=False) from error

    def _is_locked(self, key: str, until: datetime) -> bool:
        """Whether the object shows a lock in our mode, or the stricter one, that lasts at least until then."""
        shown = self._client.head_object(Bucket=self._bucket, Key=key)
        found = shown.get("ObjectLockRetainUntilDate")
        return shown.get("ObjectLockMode") in (self._mode, "COMPLIANCE") and found is not None and found >= until


def _make_client(options: dict[str, str], timeout_s: float) -> Any:
    try:
        import botocore.session
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise ConfigError("object_lock needs the package botocore", hint="pip install 'tallystick[server,s3]'") from error

    given = {name.removeprefix("aws_"): value for name, value in options.items()}
    own = Config(
        connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1}, s3={"addressing_style": "auto"}
    )
    return botocore.session.get_session().create_client(
        "s3",
        region_name=given.get("region"),
        endpoint_url=given.get("endpoint"),
        aws_access_key_id=given.get("access_key_id"),
        aws_secret_access_key=given.get("secret_access_key"),
        aws_session_token=given.get("session_token") or given.get("token"),
        config=own,
    )
