"""Kubeconfig files of a test cluster."""

import json
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, *, server: str, authority: Path, name: str, credentials: Mapping[str, str]) -> Path:
    """Write to *path* how *name* reaches *server*, and return it; only we may read it."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "trafficsim-test", "cluster": {"server": server, "certificate-authority": str(authority)}}
        ],
        "users": [{"name": name, "user": dict(credentials)}],
        "contexts": [{"name": "trafficsim-test", "context": {"cluster": "trafficsim-test", "user": name}}],
        "current-context": "trafficsim-test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))  # JSON is YAML
    return path
