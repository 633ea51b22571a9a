"""
The contract of trafficsim: what a user writes, what operator and runner say to each other.

Resource types, units, phases, profile and place arithmetic, the control protocol, the statistics format and every
name that reaches an API. Pure values and functions: it imports neither operator nor runner, reads no clock and no
environment.
"""

__version__ = "0.1.0"
