"""YAML files of the launchers, as they are submitted, against their makers' schemas."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubeflow_trainer_api.models import (
    io_k8s_api_core_v1_persistent_volume_claim as claims,
)
from kubeflow_trainer_api.models import jobset_v1alpha2_job_set as jobsets

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
# Of each kind, the class that Kubeflow generates from its and Kubernetes' definitions.
KINDS = {
    ("v1", "PersistentVolumeClaim"): claims.IoK8sApiCoreV1PersistentVolumeClaim,
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): jobsets.JobsetV1alpha2JobSet,
}
# A number or text; the generated classes describe what they wrap it in.
EITHER = {
    "IoK8sApimachineryPkgApiResourceQuantity": ["number", "string"],
    "IoK8sApimachineryPkgUtilIntstrIntOrString": ["integer", "string"],
}
# Maps whose keys are the user's.
FREE = {"accelerators", "envs", "file_mounts", "limits", "nodeSelector", "requests"}

QUANTITIES = {"limits", "requests", "disk_size"}  # a number or text


def kubernetes(document: dict[str, Any]) -> dict[str, Any]:
    """The schema of a document, which knows every key that it may have."""
    kind = document.get("apiVersion"), document.get("kind")
    assert kind in KINDS, f"no schema of {kind} here"
    schema = KINDS[kind].model_json_schema()
    for name, defined in [("", schema), *schema["$defs"].items()]:
        if name in EITHER:
            schema["$defs"][name] = {"type": EITHER[name]}
        else:
            defined["additionalProperties"] = False
    return schema


def skypilot(task: dict[str, Any]) -> dict[str, Any]:
    """SkyPilot's schema, one for every task."""
    return json.loads((Path(__file__).parent / "skypilot.json").read_text())


def filled(task: dict[str, Any]) -> dict[str, Any]:
    """As `sky jobs launch` fills a task's variables in where its mounts name them."""
    given = task.get("envs", {}) | {"BUCKET": "name"}
    text = re.sub(
        r"\$\{?\b([a-zA-Z_]\w*)\b\}?",
        lambda found: given.get(found[1], found[0]),
        json.dumps(task["file_mounts"]),
    )
    return task | {"envs": given, "file_mounts": json.loads(text)}


def submitted() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every document under launch/, and its name."""
    for path in sorted(LAUNCH.rglob("*.y*ml")):
        documents = yaml.safe_load_all(path.read_text())
        if path.name == "skypilot.yaml":
            documents = map(filled, documents)
        for i, document in enumerate(documents):
            yield f"{path.name}-{i}", document


DOCUMENTS = dict(submitted())


def validator_of(name: str) -> jsonschema.Draft202012Validator:
    read = skypilot if name.startswith("skypilot") else kubernetes
    return jsonschema.Draft202012Validator(read(DOCUMENTS[name]))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path to everything in a document, outermost first."""
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield (*path, key)
            yield from places(value[key], (*path, key))


def changed(document: dict[str, Any], path: tuple, change: Any) -> dict[str, Any]:
    """A copy in which `change` was applied to what holds a path's last key."""
    document = copy.deepcopy(document)
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return document


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_is_what_its_maker_takes(name):
    found = validator_of(name).iter_errors(DOCUMENTS[name])
    assert [error.message for error in found] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_misspelt_key_passes(name):
    document, validator = DOCUMENTS[name], validator_of(name)

    def misspell(holder, key):
        holder[key + "x"] = holder.pop(key)

    tried = 0
    for path in places(document):
        if isinstance(path[-1], str) and not FREE & set(path[-2:-1]):
            tried += 1
            assert not validator.is_valid(changed(document, path, misspell)), path
    assert tried > 5


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_value_of_another_type_passes(name):
    document, validator = DOCUMENTS[name], validator_of(name)

    def swap(holder, key):
        holder[key] = 1 if isinstance(holder[key], str) else str(holder[key])

    def nest(holder, key):
        holder[key] = [[holder[key]]]

    for path in places(document):
        assert not validator.is_valid(changed(document, path, nest)), path
        inner: Any = document
        for key in path:
            inner = inner[key]
        if not isinstance(inner, dict | list) and not QUANTITIES & {*path}:
            assert not validator.is_valid(changed(document, path, swap)), path


def test_a_kind_without_a_schema_is_told():
    with pytest.raises(AssertionError, match="no schema of"):
        kubernetes({"apiVersion": "v1", "kind": "PersistentVolumeClaims"})
