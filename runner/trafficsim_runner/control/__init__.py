"""The runner's HTTP API towards the operator: assignments in; acknowledgements, statistics, metrics and health out."""
