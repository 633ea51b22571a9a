"""The operator: watches simulations, decides, acts on fleets of runners. May import the contract, never the runner."""
