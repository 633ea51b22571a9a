"""
Users that do everything, a target that answers in every way, and the check that both kept the same account.

    async with a_run(everything(server.url, users=30, duration="6s"), directory=tmp_path) as run:
        ...
    check(run.account(), server.log)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from driven.run import Account, a_document
from targets.scripted import Log, Route

CLASSES = ("2xx", "3xx", "4xx", "5xx")

ROUTES = (
    Route(path="/healthz"),
    Route(path="/plain", delay_s=0.002),
    Route(path="/mixed", statuses=(200, 404, 500, 201, 503, 302)),
    Route(path="/checked", body='{"state":"open","n":3}'),
    Route(path="/chunked", framing="chunked", pieces=3, delay_s=0.005),
    Route(path="/closing", keep_alive=False),
    Route(path="/to-the-end", framing="close"),
    Route(path="/form", method="POST", statuses=(201,)),
    Route(path="/late", delay_s=1.5),
)
PATHS = {
    "plain": "/plain", "mixed": "/mixed", "checked": "/checked", "missed": "/checked?missed", "chunked": "/chunked",
    "closing": "/closing", "to_the_end": "/to-the-end", "form": "/form", "late": "/late",
}  # fmt: skip

VISITOR = {
    "name": "visitor",
    "weight": 9,
    "flow": [
        {"action": "plain", "request": {"get": "/plain"}},
        {"action": "mixed", "request": {"get": "/mixed"}},
        {"think": {"min": "1ms", "max": "30ms"}},
        {"action": "checked", "request": {"get": "/checked"}, "expect": {"status": 200, "json": {"state": "open"}}},
        {"action": "chunked", "request": {"get": "/chunked"}},
        {"action": "closing", "request": {"get": "/closing"}},
        {"action": "to_the_end", "request": {"get": "/to-the-end"}},
        {"action": "form", "request": {"post": "/form", "form": {"user": "{{user.id}}"}}, "expect": {"status": "201"}},
        {"think": {"constant": "20ms"}},
    ],
}
UNLUCKY = {
    "name": "unlucky",
    "weight": 1,
    "flow": [
        {"action": "wrong", "request": {"get": "/checked"}, "expect": {"json": {"n": 4}}},
        {"action": "late", "request": {"get": "/late"}},
        {"think": {"constant": "50ms"}},
    ],
}


def everything(url: str, **spec: Any) -> dict[str, Any]:
    """Return a document whose users ask for all of ROUTES; everybody is on after a second."""
    return a_document(
        url, archetypes=[VISITOR, UNLUCKY], target={"timeouts": {"connect": "1s", "request": "500ms"}},
        profile=[{"ramp": {"to": "100%", "over": "1s"}}], **spec,
    )  # fmt: skip


def by_class(counts: Counter[int]) -> dict[str, int]:
    return {name: sum(n for status, n in counts.items() if f"{status // 100}xx" == name) for name in CLASSES}


def statuses(log: Log, *paths: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for entry in log.counts:
        if entry.path in paths:
            found[entry.status] += entry.count
    return found


def check(account: Account, log: Log) -> None:
    """
    Every request of a drained run was received once, and counted under its action and class; nothing else was.

    What timed out was received as well; the target answered it 200 in vain.
    """
    received = log.received - log.count(path="/healthz")
    assert received == account.count("sent")
    assert received == account.count("done")
    for action in ("plain", "mixed", "chunked", "closing", "to_the_end", "form"):
        seen = statuses(log, PATHS[action])
        assert seen.total() == account.count("sent", action) == account.count("done", action), action
        assert by_class(seen) == {name: account.count(f"class_{name}", action) for name in CLASSES}, action
        broken = sum(n for status, n in seen.items() if status >= 500)
        assert broken == account.count("failed", action) == account.count("error_target_status_5xx", action), action
    mixed = statuses(log, "/mixed")
    assert sum(n for status, n in mixed.items() if status >= 400) == account.count("checks_failed", "mixed")
    assert mixed.total() == account.count("checks", "mixed")
    # One path, two actions with checks of its JSON: met by the one, missed by the other.
    assert statuses(log, "/checked")[200] == account.count("class_2xx", "checked") + account.count("class_2xx", "wrong")
    assert 2 * account.count("done", "checked") == account.count("checks", "checked")
    assert 0 == account.count("checks_failed", "checked")
    assert account.count("done", "wrong") == account.count("checks_failed", "wrong") > 0
    late = statuses(log, "/late").total()
    assert late == account.count("sent", "late") == account.count("error_network_request_timeout", "late") > 0
    assert late == log.abandoned
    assert 0 == account.count("class_2xx", "late")
    assert sum(account.count(f"error_{kind}") for kind in ("target_status_5xx", "network_request_timeout")) == (
        account.count("failed")
    )
    assert account.worker("connects") == account.worker("closes") <= log.opened_connections
