"""
One fixed GET for Locust, over and over.

FastHttpUser, because Locust's documentation names it for the most requests out of a core: four to five times
HttpUser's. No name, no catch_response, no headers: the least it can do for a request. The path and the pause come from
load.json in the current directory. Without a pause there is no wait_time, so a user's next task begins at once.
"""

import json
from pathlib import Path

from locust import FastHttpUser, between, task

LOAD = json.loads(Path("load.json").read_text())
READ = LOAD["path"]


class Reader(FastHttpUser):
    """A user that reads."""

    if LOAD["think_s"][1]:
        wait_time = between(*LOAD["think_s"])

    @task
    def read(self) -> None:
        """Read once."""
        self.client.get(READ)
