"""
The contract of the API server, as far as the operator relies on it, as tests: a module with a `kube_stand` fixture
takes them in by `class TestX(KubeContract)`. The fake is held to it, and so is the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from component.fleet_contract import REVISION, a_template
from trafficsim_api.names import FieldManager
from trafficsim_operator.fleet import Owner
from trafficsim_operator.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    PODS,
    REPLICA_SETS,
    SIMULATIONS,
    Changed,
    Gone,
    KubeApi,
    Object,
    Resource,
    Unacceptable,
)
from trafficsim_operator.manifests import deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeStand:
    """The client to be tested, a namespace of its own, and how long something may take that others do."""

    api: KubeApi
    namespace: str
    patience_s: float = 30.0

    async def until(self, look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
        """Look until *holds* of what is seen, and return that."""
        seen = None
        try:
            async with asyncio.timeout(self.patience_s):
                while True:
                    seen = await look()
                    if holds(seen):
                        return seen
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {self.patience_s} s; last seen: {seen}") from None

    async def a_simulation(self) -> Object:
        """Create a simulation."""
        flow = [{"action": "list", "request": {"get": "/"}}]
        spec = {"target": {"url": "http://127.0.0.1:9"}, "archetypes": [{"name": "visitor", "flow": flow}]}
        body = {"metadata": {"namespace": self.namespace, "name": "shop"}, "spec": spec}
        return await self.api.create(SIMULATIONS, body)

    async def a_deployment(self, replicas: int = 0) -> tuple[Object, Object]:
        """Apply the Deployment of a simulation's runners; return what was applied and what it is then."""
        simulation = await self.a_simulation()
        owner = Owner(namespace=self.namespace, name="shop", uid=simulation["metadata"]["uid"])
        body = deployment(owner, REVISION, {"image": "nowhere/runner:1"} | a_template(), replicas)
        return body, await self.api.apply(DEPLOYMENTS, body, FieldManager.OBJECTS)

    def a_map(self, name: str = "things", **data: str) -> Object:
        """Build a ConfigMap."""
        return {"metadata": {"name": name, "namespace": self.namespace, "labels": {"app": "test"}}, "data": data}


def holders(item: Object, field: str = "f:replicas") -> set[str]:
    """Return who holds a field of the spec."""
    entries = item["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries if field in (entry["fieldsV1"].get("f:spec") or {})}


def version(item: Object) -> str:
    return str(item["metadata"]["resourceVersion"])


class KubeContract:
    """What the operator relies on."""

    async def test_what_is_applied_is_got_and_listed_and_deleted(self, kube_stand: KubeStand) -> None:
        api, namespace = kube_stand.api, kube_stand.namespace
        assert await api.get(CONFIG_MAPS, namespace, "things") is None
        made = await api.apply(CONFIG_MAPS, kube_stand.a_map(a="1"), "trafficsim")
        assert made == await api.get(CONFIG_MAPS, namespace, "things")
        assert ["things"] == [i["metadata"]["name"] for i in await api.list(CONFIG_MAPS, namespace, {"app": "test"})]
        assert () == await api.list(CONFIG_MAPS, namespace, {"app": "other"})
        await api.delete(CONFIG_MAPS, namespace, "things", "not-its-uid")
        assert await api.get(CONFIG_MAPS, namespace, "things") is not None
        await api.delete(CONFIG_MAPS, namespace, "things", made["metadata"]["uid"])
        await api.delete(CONFIG_MAPS, namespace, "things", made["metadata"]["uid"])
        assert await api.get(CONFIG_MAPS, namespace, "things") is None

    async def test_applying_takes_what_others_hold_and_leaves_the_rest(self, kube_stand: KubeStand) -> None:
        """Server-side apply with force: our fields are ours again, other people's stay."""
        api, namespace = kube_stand.api, kube_stand.namespace
        await api.apply(CONFIG_MAPS, kube_stand.a_map(a="1"), "trafficsim")
        await api.merge(CONFIG_MAPS, namespace, "things", {"data": {"a": "2", "b": "3"}}, "somebody")
        await api.apply(CONFIG_MAPS, kube_stand.a_map(a="1"), "trafficsim")
        found = await api.get(CONFIG_MAPS, namespace, "things")
        assert {"a": "1", "b": "3"} == (found or {})["data"]

    async def test_what_is_applied_no_longer_goes(self, kube_stand: KubeStand) -> None:
        """A field that its only owner leaves out; null in a merge patch takes away whosever it is."""
        api, namespace = kube_stand.api, kube_stand.namespace
        await api.apply(CONFIG_MAPS, kube_stand.a_map(a="1", b="2"), "trafficsim")
        found = await api.apply(CONFIG_MAPS, kube_stand.a_map(a="1"), "trafficsim")
        assert {"a": "1"} == found["data"]
        found = await api.merge(CONFIG_MAPS, namespace, "things", {"data": {"a": None, "c": "3"}}, "somebody")
        assert {"c": "3"} == found["data"]
        with pytest.raises(Gone):
            await api.merge(CONFIG_MAPS, namespace, "nothing", {"data": {"a": "1"}}, "somebody")

    async def test_versions_rise_with_what_changes(self, kube_stand: KubeStand) -> None:
        """Applying the same again is no change."""
        first = await kube_stand.api.apply(CONFIG_MAPS, kube_stand.a_map(a="1"), "trafficsim")
        again = await kube_stand.api.apply(CONFIG_MAPS, kube_stand.a_map(a="1"), "trafficsim")
        later = await kube_stand.api.apply(CONFIG_MAPS, kube_stand.a_map(a="2"), "trafficsim")
        assert version(first) == version(again) != version(later)

    async def test_a_write_is_held_to_the_uid_and_version_it_names(self, kube_stand: KubeStand) -> None:
        """A version that is not the newest: 409; another object by now: 422, its UID can't be changed; none: 409."""
        api, body = kube_stand.api, kube_stand.a_map(a="1")
        made = await api.apply(CONFIG_MAPS, body, "trafficsim")
        await api.apply(CONFIG_MAPS, kube_stand.a_map(a="2"), "trafficsim")
        other = {"uid": "7b0c3c1e-0000-4000-8000-000000000002"}
        for precondition, refusal in (({"resourceVersion": version(made)}, Changed), (other, Unacceptable)):
            with pytest.raises(refusal):
                await api.apply(CONFIG_MAPS, body | {"metadata": body["metadata"] | precondition}, "trafficsim")
        fresh = kube_stand.a_map("fresh", a="1")
        with pytest.raises(Changed):
            await api.apply(CONFIG_MAPS, fresh | {"metadata": fresh["metadata"] | other}, "trafficsim")
        now = await api.get(CONFIG_MAPS, kube_stand.namespace, "things") or {}
        kept = {key: now["metadata"][key] for key in ("uid", "resourceVersion")}
        found = await api.apply(CONFIG_MAPS, body | {"metadata": body["metadata"] | kept}, "trafficsim")
        assert {"a": "1"} == found["data"]

    async def test_lists_are_read_to_their_end(self, kube_stand: KubeStand, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trafficsim_operator.kube._PAGE", 3)
        for number in range(8):
            await kube_stand.api.create(CONFIG_MAPS, kube_stand.a_map(f"things-{number}"))
        assert 8 == len(await kube_stand.api.list(CONFIG_MAPS, kube_stand.namespace, {"app": "test"}))

    async def test_errors_are_told_by_kind(self, kube_stand: KubeStand) -> None:
        api = kube_stand.api
        await api.create(CONFIG_MAPS, kube_stand.a_map())
        with pytest.raises(Changed, match="already exists"):
            await api.create(CONFIG_MAPS, kube_stand.a_map())
        nowhere = kube_stand.a_map() | {"metadata": {"name": "things", "namespace": "nowhere"}}
        with pytest.raises(Gone, match="nowhere"):
            await api.create(CONFIG_MAPS, nowhere)
        with pytest.raises(Gone, match="nowhere"):
            await api.apply(CONFIG_MAPS, nowhere, "trafficsim")
        with pytest.raises(Unacceptable, match="Invalid value"):
            await api.create(CONFIG_MAPS, kube_stand.a_map("Not A Name"))

    async def test_kinds_are_found_by_discovery(self, kube_stand: KubeStand) -> None:
        assert await kube_stand.api.served(SIMULATIONS)
        assert await kube_stand.api.served(CONFIG_MAPS)
        unknown = Resource(group="trafficsim.io", version="v9", plural="nothings", kind="Nothing")
        assert not await kube_stand.api.served(unknown)

    async def test_an_event_needs_to_say_by_whom(self, kube_stand: KubeStand) -> None:
        made = await kube_stand.a_simulation()
        about = {"namespace": kube_stand.namespace, "name": "shop", "kind": "TrafficSimulation",
                 "apiVersion": made["apiVersion"], "uid": made["metadata"]["uid"]}  # fmt: skip
        event = {
            "metadata": {"namespace": kube_stand.namespace, "name": "shop.1"},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "trafficsim.io/operator", "action": "Phase", "reason": "Phase", "type": "Normal",
            "note": "one", "regarding": about,
        }  # fmt: skip
        with pytest.raises(Unacceptable):
            await kube_stand.api.create(EVENTS, event | {"reportingInstance": ""})
        await kube_stand.api.create(EVENTS, event | {"reportingInstance": "one"})
        assert 1 == len(await kube_stand.api.list(EVENTS, kube_stand.namespace))

    # Status.

    async def test_status_and_spec_are_written_apart(self, kube_stand: KubeStand) -> None:
        """A status raises no generation, and whoever writes the rest does not touch it."""
        api, namespace = kube_stand.api, kube_stand.namespace
        made = await kube_stand.a_simulation()
        assert "status" not in made
        where = {"name": "shop", "namespace": namespace}
        body = {"metadata": where, "status": {"phase": "Running", "users": {"active": 7}, "message": "x"}}
        first = await api.apply(SIMULATIONS, body, FieldManager.STATUS, subresource="status")
        assert (1, made["spec"]) == (first["metadata"]["generation"], first["spec"])
        body = {"metadata": where, "status": {"phase": "Draining", "users": {"target": 3}}}
        second = await api.apply(SIMULATIONS, body, FieldManager.STATUS, subresource="status")
        assert {"phase": "Draining", "users": {"target": 3}} == second["status"]
        edited = await api.merge(SIMULATIONS, namespace, "shop", {"spec": {"users": 20}, "status": None}, "kubectl")
        assert (2, second["status"]) == (edited["metadata"]["generation"], edited["status"])
        labelled = await api.merge(SIMULATIONS, namespace, "shop", {"metadata": {"labels": {"a": "b"}}}, "kubectl")
        assert 2 == labelled["metadata"]["generation"]
        last = await api.apply(
            SIMULATIONS, {"metadata": where, "status": {"phase": "Failed"}}, FieldManager.STATUS, subresource="status"
        )
        assert {"phase": "Failed"} == last["status"]

    async def test_a_status_is_held_to_what_was_read(self, kube_stand: KubeStand) -> None:
        """An older version, also of the object before: 409; no object: 404. A UID alone would hold nothing."""
        api, namespace = kube_stand.api, kube_stand.namespace
        made = await kube_stand.a_simulation()
        where = {"name": "shop", "namespace": namespace, "uid": made["metadata"]["uid"]}
        body: Object = {"metadata": where | {"resourceVersion": version(made)}, "status": {"phase": "Running"}}
        await api.apply(SIMULATIONS, body, FieldManager.STATUS, subresource="status")
        with pytest.raises(Changed):
            await api.apply(
                SIMULATIONS, body | {"status": {"phase": "Failed"}}, FieldManager.STATUS, subresource="status"
            )
        await api.delete(SIMULATIONS, namespace, "shop", where["uid"])
        with pytest.raises((Gone, Changed)):
            await api.apply(SIMULATIONS, body, FieldManager.STATUS, subresource="status")
        await kube_stand.a_simulation()
        with pytest.raises(Changed):
            await api.apply(SIMULATIONS, body, FieldManager.STATUS, subresource="status")
        found = await api.apply(
            SIMULATIONS, {"metadata": where, "status": {"phase": "Failed"}}, FieldManager.STATUS, subresource="status"
        )
        assert where["uid"] != found["metadata"]["uid"]

    # Deployments.

    async def test_replicas_have_an_owner_of_their_own(self, kube_stand: KubeStand) -> None:
        """Scaling changes nothing else; the manager of the whole that leaves them out would set them to 1."""
        api = kube_stand.api
        body, made = await kube_stand.a_deployment(replicas=0)
        assert {FieldManager.OBJECTS} == holders(made)
        meta = {key: made["metadata"][key] for key in ("name", "namespace", "uid")}
        scaled = await api.apply(DEPLOYMENTS, {"metadata": meta, "spec": {"replicas": 2}}, FieldManager.SCALE)
        assert ({FieldManager.SCALE}, 2, 2) == (
            holders(scaled), scaled["spec"]["replicas"], scaled["metadata"]["generation"],
        )  # fmt: skip
        assert made["spec"]["template"] == scaled["spec"]["template"]
        whole = await api.apply(DEPLOYMENTS, body | {"spec": body["spec"] | {"replicas": 0}}, FieldManager.OBJECTS)
        assert ({FieldManager.OBJECTS}, 0) == (holders(whole), whole["spec"]["replicas"])
        without = {key: value for key, value in body["spec"].items() if key != "replicas"}
        assert 1 == (await api.apply(DEPLOYMENTS, body | {"spec": without}, FieldManager.OBJECTS))["spec"]["replicas"]

    async def test_who_changes_replicas_holds_them(self, kube_stand: KubeStand) -> None:
        _, made = await kube_stand.a_deployment(replicas=0)
        name = made["metadata"]["name"]
        patch = {"spec": {"replicas": 1}}
        found = await kube_stand.api.merge(DEPLOYMENTS, kube_stand.namespace, name, patch, "kubectl-scale")
        assert {"kubectl-scale"} == holders(found)

    async def test_replacing_takes_away_what_others_added(self, kube_stand: KubeStand) -> None:
        """Held to the UID in it; what a Deployment selects can't be changed."""
        api, namespace = kube_stand.api, kube_stand.namespace
        body, made = await kube_stand.a_deployment(replicas=0)
        name = made["metadata"]["name"]
        await api.merge(DEPLOYMENTS, namespace, name, {"spec": {"minReadySeconds": 60}}, "kubectl-edit")
        meta = {
            key: value for key, value in made["metadata"].items() if key not in ("managedFields", "resourceVersion")
        }
        found = await api.replace(DEPLOYMENTS, {"metadata": meta, "spec": body["spec"]}, FieldManager.OBJECTS)
        assert "minReadySeconds" not in found["spec"]
        other = meta | {"uid": "7b0c3c1e-0000-4000-8000-000000000002"}
        with pytest.raises(Changed):
            await api.replace(DEPLOYMENTS, {"metadata": other, "spec": body["spec"]}, FieldManager.OBJECTS)
        labels = {"matchLabels": {"app": "theirs"}}
        with pytest.raises(Unacceptable):
            await api.replace(
                DEPLOYMENTS, {"metadata": meta, "spec": body["spec"] | {"selector": labels}}, FieldManager.OBJECTS
            )

    async def test_what_a_deployment_owns_comes_and_goes_with_it(self, kube_stand: KubeStand) -> None:
        """Deployment → ReplicaSet → pods by owner references and labels; in the background all of it goes again."""
        api, namespace = kube_stand.api, kube_stand.namespace
        _, made = await kube_stand.a_deployment(replicas=2)
        labels = {"trafficsim.io/revision": REVISION}
        pods = await kube_stand.until(lambda: api.list(PODS, namespace, labels), lambda found: len(found) == 2)
        [replica_set] = await api.list(REPLICA_SETS, namespace, labels)
        assert [made["metadata"]["uid"]] == [owner["uid"] for owner in replica_set["metadata"]["ownerReferences"]]
        assert {replica_set["metadata"]["uid"]} == {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods}
        await api.delete(DEPLOYMENTS, namespace, made["metadata"]["name"], made["metadata"]["uid"])
        await kube_stand.until(lambda: api.list(PODS, namespace, labels), lambda found: not found)
        await kube_stand.until(lambda: api.list(REPLICA_SETS, namespace, labels), lambda found: not found)

    async def test_what_a_simulation_owns_goes_with_it(self, kube_stand: KubeStand) -> None:
        api, namespace = kube_stand.api, kube_stand.namespace
        _, made = await kube_stand.a_deployment(replicas=1)
        owner = made["metadata"]["ownerReferences"][0]["uid"]
        await api.delete(SIMULATIONS, namespace, "shop", owner)
        labels = {"trafficsim.io/revision": REVISION}

        async def left() -> list[str]:
            found = [await api.list(kind, namespace, labels) for kind in (DEPLOYMENTS, REPLICA_SETS, PODS)]
            return [item["metadata"]["name"] for part in found for item in part]

        await kube_stand.until(left, lambda names: not names)
