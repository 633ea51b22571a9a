"""The generated CRD: up to date, structural, small, and nothing in it that the models do not say."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from trafficsim_api import crd

# The checkout's: what is imported may be installed elsewhere.
COMMITTED = Path(__file__).parents[2] / "crds" / crd.FILE.name


def nodes(schema, path=""):
    """Yield every schema node under *schema* with its path."""
    yield path, schema
    for name, node in schema.get("properties", {}).items():
        yield from nodes(node, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


SCHEMA = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
NODES = list(nodes(SCHEMA))


def test_the_file_is_what_the_models_give():
    """A generated file is never edited: `python -m trafficsim_api.crd` writes it."""
    assert crd.text() == COMMITTED.read_text(encoding="utf-8"), "run `python -m trafficsim_api.crd`"
    assert crd.crd() == yaml.safe_load(crd.text())


def test_check_says_when_the_file_is_old(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(crd, "FILE", tmp_path / "crd.yaml")
    assert 1 == crd.main(["--check"])
    assert "crd.yaml is out of date" in capsys.readouterr().err
    assert (0, 0) == (crd.main([]), crd.main(["--check"]))


def test_it_is_small():
    """Below 256 KiB, so that any client can apply it."""
    assert len(crd.text()) < 256 * 1024


@pytest.mark.parametrize("word", ["$ref", "anyOf", "oneOf", "allOf", "title", "const", "exclusiveMinimum", "$defs"])
def test_it_is_structural(word):
    """None of what the API server refuses or ignores is left over."""
    assert [] == [path for path, node in NODES if word in node]


def test_every_node_has_a_type_or_is_open():
    for path, node in NODES:
        assert "type" in node or node.keys() & {
            "x-kubernetes-int-or-string",
            "x-kubernetes-preserve-unknown-fields",
        }, path
        assert node.get("type") != "number", f"{path}: no floats"
        assert node.get("additionalProperties") is not False, path


def test_only_users_and_suspend_have_defaults():
    """Other defaults live in the models, and are told in the description."""
    assert {".spec.users": 10, ".spec.suspend": False} == {p: n["default"] for p, n in NODES if "default" in n}
    assert "Default: 10s." in dict(NODES)[".spec.warmUp"]["description"]


def test_lists_and_text_of_the_spec_are_bounded():
    """CEL's cost is estimated from the bounds; without one a rule may be refused."""
    for path, node in NODES:
        if not path.startswith(".spec"):
            continue
        assert node.get("type") != "array" or "maxItems" in node, path
        assert node.get("type") != "string" or "maxLength" in node or "enum" in node, path
        assert "additionalProperties" not in node or "maxProperties" in node, path


def test_every_rule_stands_somewhere():
    """Each model with rules is in the schema, so no rule is lost to a renamed class."""
    written = {rule["rule"] for _, node in NODES for rule in node.get("x-kubernetes-validations", ())}
    assert {rule for rules in crd.RULES.values() for rule, _ in rules} == written


def test_rules_call_no_pattern_but_the_threshold_one():
    """Regular expressions stand in `pattern`; in CEL they cost too much of the budget."""
    matching = [rule for rules in crd.RULES.values() for rule, _ in rules if ".matches(" in rule]
    assert 1 == len(matching)


def test_patterns_mean_the_same_to_every_engine():
    """Only what Go, Rust and Python read alike: ASCII classes, no look-around, no back-references."""
    for path, node in NODES:
        pattern = node.get("pattern", "")
        assert re.compile(pattern)
        assert not re.search(r"\(\?[=!<]|\\[dwbWDB0-9]", pattern), path


def test_columns():
    assert ["NAME", "PHASE", "USERS", "RPS", "P95", "ERR%", "TIER", "RUNNERS", "VERSION", "VERDICT", "AGE"][1:] == [
        c for c, _, _ in crd.COLUMNS
    ]
    paths = dict(NODES)
    for _, _, path in crd.COLUMNS[:-1]:
        assert path in paths, path


def test_wide_columns_follow_a_rollout():
    """Shown with `-o wide` only, after the others."""
    assert ["STEP", "WEIGHT", "STABLE", "CANDIDATE"] == [c for c, _, _ in crd.WIDE_COLUMNS]
    paths = dict(NODES)
    for _, _, path in crd.WIDE_COLUMNS:
        assert path in paths, path
    columns = crd.crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert ["STEP", "WEIGHT", "STABLE", "CANDIDATE"] == [c["name"] for c in columns if c.get("priority") == 1]
    assert [c for c, _, _ in crd.COLUMNS] == [c["name"] for c in columns if "priority" not in c]


def test_scale():
    scale = crd.crd()["spec"]["versions"][0]["subresources"]["scale"]
    assert {"specReplicasPath": ".spec.users", "statusReplicasPath": ".status.users.active"} == scale


def test_fields_of_this_machine_are_absent():
    """`caFrom.path` means a file beside the user; in a cluster it would be accepted and ignored."""
    assert ".spec.target.tls.caFrom.configMap" in dict(NODES)
    assert ".spec.target.tls.caFrom.path" not in dict(NODES)


def test_unions_have_no_schema():
    """A field of two object types is a mistake that the generator names."""

    class Wrong(BaseModel):
        field: int | bool

    with pytest.raises(ValueError, match="a union has no structural schema"):
        crd._Structural(Wrong, defaults=False).schema()
