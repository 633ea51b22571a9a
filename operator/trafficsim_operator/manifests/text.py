"""Objects as YAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

__all__ = ["as_yaml", "documents", "read_documents"]


class _Plain(yaml.SafeDumper):
    """Writes every value out, since a manifest has no anchors, and a text of several lines as it is."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def as_yaml(value: object, **options: Any) -> str:
    """Return *value* as YAML, in the order it is in; *options* are those of `yaml.dump`."""
    return str(yaml.dump(value, Dumper=_Plain, **{"sort_keys": False, "width": 120, "allow_unicode": True} | options))


def documents(objects: Iterable[object]) -> str:
    """Return *objects* as documents of one file."""
    return "---\n".join(map(as_yaml, objects))


def read_documents(text: str) -> list[dict[str, Any]]:
    """Return the objects in *text*, which we or helm wrote."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where it is built in
    return [found for found in yaml.load_all(text, Loader=loader) if found]
