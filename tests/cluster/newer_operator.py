"""The operator of a later version: it says so, and builds the pods of its runners otherwise."""

import sys
from importlib import import_module
from typing import Any

program: Any = import_module("trafficsim_operator.main")
manifest: Any = import_module("trafficsim_operator.manifests.deployment")

VERSION = "99.0.0"
_environment = manifest._environment


def newer(*arguments: Any) -> list[dict[str, Any]]:
    return [*_environment(*arguments), {"name": "TRAFFICSIM_NEWER", "value": VERSION}]


if __name__ == "__main__":
    program.__version__ = VERSION
    manifest._environment = newer
    sys.exit(program.main())
