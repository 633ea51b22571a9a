"""
Random histories of rollouts under a clock that is only moved.

The machine, the split and the dealer run against light runners, with every fault in every phase, and the invariants are
checked at each look. `python -m trafficsim_operator.testing.histories` runs them at length. A history follows from its
seed alone.
"""
