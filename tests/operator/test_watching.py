"""How kopf is begun."""

import asyncio
import getpass

import kopf
import pytest

from trafficsim_operator.main import _watching
from trafficsim_operator.settings import Settings


@pytest.mark.parametrize("namespaces", [(), ("shop",)], ids=["the whole cluster", "a namespace"])
async def test_a_user_without_a_name_may_run_it(monkeypatch, namespaces):
    """A pod's user is a number, which no list of users in the image knows."""

    def nobody():
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", nobody)
    tasks = await _watching(kopf.OperatorRegistry(), Settings(namespaces=namespaces))
    assert tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
