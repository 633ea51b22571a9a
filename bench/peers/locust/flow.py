"""
The flow of simulations/flow.yaml for Locust: the same requests, checks and shares of users.

FastHttpUser, as in fixed.py. `name` groups requests with a number in their path, as Locust's documentation asks for;
`catch_response` is its way to check an answer.
"""

from itertools import count

from locust import FastHttpUser, task
from locust.contrib.fasthttp import FastResponse

NUMBERS = count()
BULK = [{"name": "anna"}, {"name": "bert"}, {"name": "carla"}]


class Shopper(FastHttpUser):
    """A user with a number, who can log in."""

    abstract = True

    def on_start(self) -> None:
        """Take a number."""
        self.number = next(NUMBERS)

    def login(self) -> dict[str, str]:
        """Log in and return the headers that prove it."""
        with self.client.post(
            "/auth/login", json={"user": f"user-{self.number}"}, name="login", catch_response=True
        ) as answer:
            must(answer, 200)
            return {"authorization": f"Bearer {answer.json()['token']}"}


class Browser(Shopper):
    """Looks around, orders, cancels."""

    weight = 70

    @task
    def browse(self) -> None:
        """Go through the flow once."""
        headers = self.login()
        for _ in range(3):
            with self.client.get(f"/users?page={self.number}", name="list_users", catch_response=True) as answer:
                must(answer, 200)
            with self.client.get(
                f"/users/{self.number}", headers=headers, name="user_lookup", catch_response=True
            ) as answer:
                must(answer, 200)
                must_hold(answer, "city", "Oslo")
        with self.client.post(
            "/orders", json={"item": "umbrella", "count": 1}, name="order", catch_response=True
        ) as answer:
            must(answer, 201)
            order = answer.json()["id"]
        with self.client.delete(f"/orders/{order}", name="cancel_order", catch_response=True) as answer:
            must(answer, 204)


class Power(Shopper):
    """Changes much, imports in bulk."""

    weight = 20

    @task
    def change(self) -> None:
        """Go through the flow once."""
        headers = self.login()
        changes = {"city": "Oslo", "email": f"user-{self.number}@shop.example"}
        for _ in range(3):
            with self.client.put(
                f"/users/{self.number}", headers=headers, json=changes, name="update_user", catch_response=True
            ) as answer:
                must(answer, 200)
                must_hold(answer, "city", "Oslo")
        with self.client.post("/users/bulk", json=BULK, name="bulk_import", catch_response=True) as answer:
            must(answer, 201)
            must_hold(answer, "created", 3)


class Reporter(Shopper):
    """Asks for the long page."""

    weight = 10

    @task
    def report(self) -> None:
        """Read the report."""
        with self.client.get("/reports/daily-sales", name="report", catch_response=True) as answer:
            must(answer, 200)
            if "daily-sales" not in answer.text:
                answer.failure("another report")


def must(answer: FastResponse, status: int) -> None:
    """Count *answer* as failed unless it has *status*."""
    if answer.status_code != status:
        answer.failure(f"status {answer.status_code}")


def must_hold(answer: FastResponse, field: str, value: object) -> None:
    """Count *answer* as failed unless its JSON *field* is *value*."""
    if answer.json().get(field) != value:
        answer.failure(f"{field} is not {value}")
