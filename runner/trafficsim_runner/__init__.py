"""
What produces the load: a supervisor and the workers whose virtual users it divides the places over.

May import trafficsim_api, never the operator: the two meet over HTTP.
"""
