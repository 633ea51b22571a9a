"""Whether an installation works: the kind is served, a replica is ready, and one works."""

import httpx
import pytest

from trafficsim_operator.installed import problem
from trafficsim_operator.testing.fake_apiserver import FakeApiServer, FakeKubeApi

pytestmark = pytest.mark.looptime

URL = "http://trafficsim-operator.load.svc:8080"


class Unknown(FakeKubeApi):
    """An API server without the kind."""

    async def served(self, resource):
        return False


def an_operator(**pages):
    """Return a client of an operator whose *pages* answer one status after another, the last one for good."""
    statuses = {f"/{page}": list(answers) for page, answers in pages.items()}

    async def answer(request):
        left = statuses[request.url.path]
        status = left.pop(0) if len(left) > 1 else left[0]
        if status == 0:
            raise httpx.ConnectError("connection refused")
        return httpx.Response(status, text="no operator holds the Lease\n" if status >= 500 else "{}")

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def api(kind=FakeKubeApi):
    return kind(FakeApiServer(now_ms=lambda: 0))


@pytest.mark.parametrize(
    ("pages", "told"),
    [
        pytest.param({"readyz": [200], "simulations": [200]}, "", id="it works"),
        pytest.param({"readyz": [0, 503, 200], "simulations": [503, 502, 200]}, "", id="it was just started"),
        pytest.param({"readyz": [0], "simulations": [200]}, f"{URL}/readyz: connection refused", id="nobody is there"),
        pytest.param(
            {"readyz": [200], "simulations": [503]},
            f"{URL}/simulations: 503 no operator holds the Lease",
            id="none works",
        ),
    ],
)
async def test_what_does_not_work_is_told(pages, told):
    """A replica may take its time; what it said last is told when that is over."""
    async with an_operator(**pages) as http:
        assert told == await problem(api(), http, f"{URL}/", patience_s=10)


async def test_it_gives_up_when_its_patience_is_over(looptime):
    async with an_operator(readyz=[503]) as http:
        assert await problem(api(), http, URL, patience_s=10)
    assert 10 == looptime


async def test_without_the_kind_nobody_is_asked():
    async with an_operator() as http:
        assert "install the CustomResourceDefinition" in await problem(api(Unknown), http, URL)
