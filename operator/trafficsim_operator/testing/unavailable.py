"""What a machine lacks, said in one sentence, and what it may not lack."""

import os
from collections.abc import Mapping


class Unavailable(Exception):
    """Say why this machine cannot give a test what it asks for; a test skips with the text."""


def required_levels(environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the levels named in TRAFFICSIM_REQUIRE ("control-plane,node"): what they lack is a failure, not a skip."""
    return frozenset(environ.get("TRAFFICSIM_REQUIRE", "").replace(",", " ").split())
