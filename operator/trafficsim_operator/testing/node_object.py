"""The node object of a kubelet: registration, conditions, heartbeat."""

import asyncio
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from trafficsim_operator.testing.apiserver import STRATEGIC, UNREACHABLE, Api, ApiError, Object

_BEAT: Final = 2.0  # seconds; without a beat for 50 s the node controller calls the node Unknown
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Node:
    """What the API server knows about the machine that runs the pods."""

    def __init__(
        self, api: Api, name: str, *, address: str, capacity: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        self._api, self._name, self._address = api, name, address
        self._capacity = dict(capacity)
        self._ready = "True"
        defaults = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": "zone-a",
        }
        self.labels = defaults | dict(labels)

    async def register(self) -> None:
        """Create the node, or take over the one a killed predecessor left."""
        body: Object = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": self._name, "labels": self.labels}}
        try:
            await self._api.create("/api/v1/nodes", body)
        except ApiError as error:
            if error.status != 409:
                raise
            await self._api.patch(f"/api/v1/nodes/{self._name}", {"metadata": {"labels": self.labels}})
        await self._renew()
        await self._write_status()

    async def unregister(self) -> None:
        """Delete the node and its lease."""
        await self._api.delete(f"/api/v1/nodes/{self._name}", grace=0)
        await self._api.delete(f"{_LEASES}/{self._name}", grace=0)

    async def set_ready(self, ready: str) -> None:
        """Set the Ready condition to "True", "False" or "Unknown"."""
        self._ready = ready
        await self._write_status()

    async def beat(self, connected: asyncio.Event) -> None:
        """Renew the lease and the status for ever, as long as the API server can be reached."""
        while True:
            await asyncio.sleep(_BEAT)
            await connected.wait()
            with suppress(ApiError, *UNREACHABLE):
                await self._renew()
                await self._write_status()

    async def _renew(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": 40, "renewTime": now}
        try:
            await self._api.patch(f"{_LEASES}/{self._name}", {"spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            await self._api.create(_LEASES, {"metadata": {"name": self._name}, "spec": spec})

    async def _write_status(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        reasons = {"True": "KubeletReady", "False": "KubeletNotReady", "Unknown": "NodeStatusUnknown"}
        conditions = [
            {"type": kind, "status": status, "reason": reason, "lastHeartbeatTime": now}
            for kind, status, reason in (
                ("Ready", self._ready, reasons[self._ready]),
                ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID"),
            )
        ]
        status = {
            "capacity": self._capacity,
            "allocatable": self._capacity,
            "addresses": [
                {"type": "InternalIP", "address": self._address},
                {"type": "Hostname", "address": self._name},
            ],
            "conditions": conditions,
            "nodeInfo": _info(),
        }
        await self._api.patch(f"/api/v1/nodes/{self._name}/status", {"status": status}, kind=STRATEGIC)


def _info() -> Object:
    names = ("machineID", "systemUUID", "bootID", "kubeProxyVersion")
    return dict.fromkeys(names, "") | {
        "kernelVersion": os.uname().release,
        "osImage": "processes",
        "containerRuntimeVersion": "process://1",
        "kubeletVersion": "process-kubelet",
        "operatingSystem": "linux",
        "architecture": platform.machine(),
    }
