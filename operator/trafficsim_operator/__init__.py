"""The operator: watches simulations, decides, and acts on fleets of runners. It may import the contract, never the runner."""
