"""
Every fault at every call, in virtual time: the whole operator over the fakes of API server, cluster and runners.

A scenario is played once without a fault; then for each call of the operator, to the API server or to a runner, and for
each kind of fault again from that call on. It must come to the same end. `python -m trafficsim_operator.testing.faults`
runs them all.
"""
