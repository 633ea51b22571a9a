"""
What sizes, watches and judges a simulation: `reconcile` over a fleet of runners, in a cluster or on this machine.

May import trafficsim_api, never the runner: the two meet over HTTP.
"""
