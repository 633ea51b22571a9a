"""The pages of the repository: their examples are accepted, their links lead somewhere, their tables are the code's."""

import re
from pathlib import Path

import pytest
import yaml

from trafficsim_api.document import load
from trafficsim_api.layout import ERROR_KINDS
from trafficsim_api.names import FieldManager, Label
from trafficsim_api.phases import Phase
from trafficsim_api.reference import reference
from trafficsim_api.rollout import Rollout
from trafficsim_api.template import Resources
from trafficsim_operator.manifests.rbac import own_namespace_rules, simulation_rules
from trafficsim_operator.plan.tiers import TIERS
from trafficsim_operator.settings import ENVIRONMENT

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [ROOT / "charts" / "trafficsim" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
    if re.search(r"^kind: TrafficSimulation$", block, re.MULTILINE)
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_simulation_shown_is_accepted(text):
    """What a page shows can be copied and applied."""
    load(text.encode(), "the page")


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda file: file.name)
def test_every_example_is_accepted(file):
    """The files of examples/ as well."""
    load(file.read_bytes(), file.name)


def test_the_example_of_a_rollout_spells_every_setting_out():
    """None is left for the reader to look up."""
    spelled = yaml.safe_load((ROOT / "examples" / "rollout.yaml").read_text())["spec"]["rollout"]
    assert {field.alias for field in Rollout.model_fields.values()} == set(spelled)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    """A link without a scheme names a file of the repository."""
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
    assert [] == [link for link in links if not (page.parent / link).exists()]


def test_the_field_reference_is_as_the_models_are():
    """docs/resource.md is generated."""
    assert reference() == (ROOT / "docs" / "resource.md").read_text()


def test_the_tiers_are_listed_as_they_are():
    """Users, strategy and least runners of each, as the operator sizes."""
    text = (ROOT / "docs" / "resource.md").read_text()
    least = 1
    for tier in TIERS:
        users = f"{least}–{tier.most}" if tier.most else f"{least} and more"
        begin = "[at one instant](" if tier.barrier else "each when it is told |"
        assert f"| {tier.name} | {users} | `{tier.strategy}` | {tier.least_runners} | {begin}" in text
        least = (tier.most or 0) + 1


def test_the_size_of_a_runner_is_told_as_it_is():
    """What it has when the document asks for nothing."""
    said = f"{Resources().cpu // 1000} cores and {Resources().memory // 2**30} GiB"
    assert said in (ROOT / "docs" / "resource.md").read_text()


def test_every_kind_of_error_is_explained():
    """The page on the verdict lists the whole taxonomy."""
    text = (ROOT / "docs" / "verdict.md").read_text()
    assert [] == [kind for kind in ERROR_KINDS if f"`{kind}`" not in text]


def test_the_architecture_names_every_label_and_field_manager():
    """The table of names is complete."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert [] == [name for name in (*Label, *FieldManager) if name not in text]
    assert [] == [phase for phase in Phase if phase not in text]


def test_every_module_of_the_file_table_exists():
    """The concept table of ARCHITECTURE.md names files that are there."""
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Where what stands")[2].partition("\n## ")[0]
    names = re.findall(r"`([a-z_/]+(?:\.py|/))`", text)
    packages = [
        ROOT / part for part in ("crds/trafficsim_api", "operator/trafficsim_operator", "runner/trafficsim_runner")
    ]
    assert [] == [name for name in names if not any((base / name).exists() for base in (ROOT, *packages))]


def test_the_operators_rights_are_listed_as_they_are():
    """Whoever installs it reads there what it may do."""
    rows = [
        f"| `{resource}{'.' + group if group else ''}`{named} | {', '.join(rule['verbs'])} |"
        for rule in (*simulation_rules(), *own_namespace_rules())
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for named in ["".join(f" named `{name}`" for name in rule.get("resourceNames", ()))]
    ]
    text = (ROOT / "docs" / "operator.md").read_text()
    assert [] == [row for row in rows if row not in text]


def test_the_operators_environment_is_listed():
    """Every variable that the operator reads is explained."""
    text = (ROOT / "docs" / "operator.md").read_text()
    assert [] == [name for name in ENVIRONMENT if f"`{name}`" not in text]
