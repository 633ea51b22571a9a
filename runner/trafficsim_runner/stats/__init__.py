"""
The runner's accounts: each worker writes one slab of counters, the supervisor reads, adds and serves them.

Imports trafficsim_api only. `slab` is the writing side and stays free of numpy, so that workers do not load it.
"""
