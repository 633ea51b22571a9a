"""What the runner can see of its own health: its cgroup's CPU, throttling and memory, and its processes."""
