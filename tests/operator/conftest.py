"""What several tests of the operator need: a document in a file, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., str]:
    """Return what writes a small document of ten minutes, with the given *spec* in it, and says where it stands."""

    def to_file(**spec: Any) -> str:
        document = {
            "apiVersion": "trafficsim.io/v1alpha1",
            "kind": "TrafficSimulation",
            "metadata": {"name": "shop"},
            "spec": {
                "target": {"url": "http://127.0.0.1:8080"},
                "duration": "10m",
                "archetypes": [{"name": "browser", "flow": [{"request": {"get": "/"}}]}],
                **spec,
            },
        }
        (tmp_path / "shop.yaml").write_text(yaml.safe_dump(document))
        return str(tmp_path / "shop.yaml")

    return to_file
