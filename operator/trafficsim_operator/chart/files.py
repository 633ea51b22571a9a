"""The files of the chart that are written from Python, as text by their place in the repository."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from trafficsim_api.crd import AsWritten, crd
from trafficsim_api.model import Model
from trafficsim_api.protocol import PORT
from trafficsim_operator.chart.values import Values
from trafficsim_operator.manifests.rbac import own_namespace_rules, simulation_rules
from trafficsim_operator.manifests.text import as_yaml

__all__ = ["CHART", "ROOT", "schema", "written"]

ROOT: Final = Path(__file__).parents[3]
CHART: Final = Path("charts/trafficsim")

_BY: Final = "Written by `python -m trafficsim_operator.chart`"
_WIDTH: Final = 120
_BEGIN: Final = f"<!-- {_BY} from chart/values.py; edit that. -->\n"
_END: Final = "<!-- end of what is written -->\n"
# Its own name, as the chart gives it: also that of the Lease.
_NAME: Final = '{{ include "trafficsim.name" . }}'

Schema = dict[str, Any]


def written(readme: str) -> Mapping[Path, str]:
    """Return each written file's text; *readme* is the chart's README as it stands, of which the table is written."""
    return {
        CHART / "values.yaml": values_file(),
        CHART / "values.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        CHART / "templates/_written.tpl": named_templates(),
        CHART / "files/crd.yaml": kept_crd(),
        CHART / "README.md": page(readme),
    }


def values_file() -> str:
    """Return values.yaml: every value with its default, and what it means above it."""
    head = f"# {_BY} from chart/values.py; edit that.\n# What each means is also in the table of README.md.\n"
    return head + "".join(_lines(Values(), 0))


def schema() -> Schema:
    """Return the JSON schema of the values: every $ref inlined, so that an error names the value and no definition."""
    raw = Values.model_json_schema(by_alias=True, schema_generator=AsWritten)
    found = _plain(raw, raw["$defs"])
    # Helm hands these down to a chart that is another's dependency.
    found["properties"]["global"] = {"type": "object"}
    target = found["properties"]["policy"]["properties"]["default"]["properties"]["targets"]["items"]
    target["oneOf"] = [{"required": [name]} for name in ("service", "host", "cidr")]
    return {"$schema": "http://json-schema.org/draft-07/schema#", **found}


def named_templates() -> str:
    """Return what the templates take from the code: the rights of manifests/rbac.py, and the runners' port."""
    texts = {
        "simulationRules": as_yaml(simulation_rules()),
        "ownRules": as_yaml(own_namespace_rules(_NAME)),
        "controlPort": str(PORT),
    }
    head = f"{{{{- /* {_BY} from manifests/rbac.py and the protocol; edit those. */}}}}\n"
    return head + "\n".join(
        f'{{{{- define "trafficsim.{name}" -}}}}\n{text.rstrip()}\n{{{{- end }}}}\n' for name, text in texts.items()
    )


def kept_crd() -> str:
    """Return the CRD as the release installs it: an uninstall keeps it, for with it every simulation would go."""
    found = crd()
    found["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    return f"# {_BY} from the models of crds/trafficsim_api; edit those.\n{as_yaml(found)}"


def page(text: str) -> str:
    """Return the README *text* with the table of values between its marks."""
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the marks of the table of values are missing in the chart's README.md")
    rows = ["| value | default | meaning |", "|---|---|---|", *_rows(Values(), "")]
    return f"{head}{begin}\n" + "\n".join(rows) + f"\n\n{end}{tail}"


def _lines(model: Model, depth: int) -> Iterator[str]:
    """Yield the lines of values.yaml for *model*, *depth* levels below the top."""
    indent = "  " * depth
    for name, meaning, value in _fields(model):
        if depth == 0:
            yield "\n"
        for line in textwrap.wrap(meaning, _WIDTH - 2 - len(indent), break_on_hyphens=False, break_long_words=False):
            yield f"{indent}# {line}\n"
        if isinstance(value, Model):
            yield f"{indent}{name}:\n"
            yield from _lines(value, depth + 1)
        else:
            yield f"{indent}# {name}:\n" if value is None else f"{indent}{name}: {_flow(value)}\n"


def _rows(model: Model, place: str) -> Iterator[str]:
    """Yield the rows of the table for *model*, which stands at *place*."""
    for name, meaning, value in _fields(model):
        if isinstance(value, Model):
            yield from _rows(value, f"{place}{name}.")
        else:
            cells = f"`{place}{name}`", "" if value in ("", None) else f"`{_flow(value)}`", meaning
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _fields(model: Model) -> Iterator[tuple[str, str, Any]]:
    """Yield of each field of *model* its name, what it means, and its value: a model, or as it is written."""
    plain = model.model_dump(mode="json", by_alias=True)
    for field, info in type(model).model_fields.items():
        value = getattr(model, field)
        name = info.alias or field
        meaning = info.description or (type(value).__doc__ if isinstance(value, Model) else "") or ""
        yield name, " ".join(meaning.split()), value if isinstance(value, Model) else _written(value, plain[name])


def _written(value: object, plain: object) -> object:
    """Return *plain*, the JSON of *value*, without the defaults of the models in a list."""
    if isinstance(value, tuple) and any(isinstance(item, Model) for item in value):
        return [item.model_dump(mode="json", by_alias=True, exclude_defaults=True) for item in value]
    return plain


def _flow(value: object) -> str:
    """Return *value* as YAML in one line."""
    return '""' if value == "" else as_yaml(value, width=10_000, default_flow_style=True).removesuffix("...\n").strip()


def _plain(node: Any, definitions: Mapping[str, Schema]) -> Any:
    """Return *node* without $ref, titles, defaults and the null that stands for an absent field."""
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: value for key, value in node.items() if key not in ("$ref", "$defs", "anyOf", "title", "default")}
    for form in node.get("anyOf", ()):
        if form.get("type") != "null":
            found = {**form, **found}
    if reference := found.pop("$ref", None) or node.get("$ref"):
        found = {**definitions[reference.rpartition("/")[2]], **found}
        return _plain(found, definitions)
    if "properties" in found:
        found["properties"] = {name: _plain(value, definitions) for name, value in found["properties"].items()}
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    return {key: value if key == "properties" else _plain(value, definitions) for key, value in found.items()}
