"""What the tests of scaling share: one simulation whose runners a node of processes holds to their CPU."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from cluster.conftest import Kubectl
from cluster.operator_process import IMAGE, a_shop, an_operator
from cluster.operator_stand import client, install_kind
from cluster.rollout_stand import TESTS, Subject
from levels import unavailable
from trafficsim_operator.testing import ControlPlane, Image, ProcessKubelet, Unavailable

RUNNER: Final = Image(argv=(sys.executable, "-m", "trafficsim_runner"), env={"PYTHONPATH": str(TESTS / "scenarios")})
SMALL: Final[Mapping[str, Any]] = {"resources": {"limits": {"cpu": "200m", "memory": "512Mi"}}}
BUSY: Final = [{"name": "visitor", "scenario": "busy:Busy"}]
ANYWHERE: Final = [{"cidr": "127.0.0.0/8"}]


@asynccontextmanager
async def a_subject(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, directory: Path, *, users: int, runners: int
) -> AsyncIterator[Subject]:
    """Run operator, node and shop while inside; the policy allows so many *users* and *runners*."""
    install_kind(control_plane)
    async with AsyncExitStack() as stack:
        kubelet = ProcessKubelet(
            control_plane.kubeconfig,
            images={IMAGE: RUNNER},
            namespaces=[namespace],
            node=f"process-node-{namespace}",
            directory=directory / "node",
        )
        try:
            await stack.enter_async_context(kubelet)
        except Unavailable as error:
            unavailable("control-plane", error)
        policy = {"targets": ANYWHERE, "maxUsers": users, "maxRunners": runners}
        shop = await stack.enter_async_context(a_shop(directory))
        operator = await stack.enter_async_context(an_operator(control_plane, namespace, directory, policy=policy))
        await operator.start()
        yield Subject(
            api=await stack.enter_async_context(client(control_plane)),
            kubectl=kubectl,
            kubelet=kubelet,
            kubeconfig=control_plane.kubeconfig,
            operator=operator,
            http=await stack.enter_async_context(httpx.AsyncClient(trust_env=False)),
            shop=shop,
            name="shop",
            namespace=namespace,
            users=0,
        )
        for log in (operator.log, *(directory / "node" / "logs").iterdir()):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")
        assert [] == operator.errors()
