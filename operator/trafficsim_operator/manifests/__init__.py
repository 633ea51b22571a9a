"""The objects that a simulation is made of, as pure functions from values to dicts."""

from trafficsim_operator.manifests.config_maps import keys_map, saved_map, totals_map
from trafficsim_operator.manifests.deployment import deployment, owner_reference

__all__ = ["deployment", "keys_map", "owner_reference", "saved_map", "totals_map"]
