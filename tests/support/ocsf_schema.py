"""The published OCSF schemas, compiled once for each class and set of profiles (package `ocsf-json-schema`)."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema_rs
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema


@functools.cache
def _raw(version: str) -> dict[str, Any]:
    found: dict[str, Any] = get_ocsf_schema(version)
    return found


@functools.cache
def _schema(version: str) -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(_raw(version))


@functools.cache
def _published(version: str, class_uid: int) -> dict[str, Any]:
    """The class as OCSF publishes it."""
    found: dict[str, Any] = _raw(version)["classes"][_schema(version).lookup_class_name_from_uid(class_uid)]
    return found


@functools.cache
def _validator(version: str, class_uid: int, profiles: tuple[str, ...]) -> jsonschema_rs.Validator:
    schema = _schema(version)
    return jsonschema_rs.validator_for(schema.get_class_schema(schema.lookup_class_name_from_uid(class_uid), list(profiles)))


def faults(record: bytes) -> list[str]:
    """What is wrong with an event by the version, the class and the profiles that it claims; empty: nothing.

    The schema does not say that a type is class and activity together, nor that the texts beside numbers are theirs.
    """
    event: dict[str, Any] = json.loads(record)
    metadata = event["metadata"]
    validator = _validator(metadata["version"], event["class_uid"], tuple(metadata["profiles"]))
    found = [f"{'/'.join(map(str, error.instance_path))}: {error.message[:200]}" for error in validator.iter_errors(event)]
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        found.append("type_uid is not class_uid * 100 + activity_id")
    published = _published(metadata["version"], event["class_uid"])
    for number, text in (("activity_id", "activity_name"), ("category_uid", "category_name"), ("class_uid", "class_name")):
        caption = published["attributes"][number]["enum"][str(event[number])]["caption"]
        if caption != event[text] and event[number] != 99:
            found.append(f"{text} is not {caption!r}")
    return found
