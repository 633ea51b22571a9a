"""
Who reaches whom under the chart's NetworkPolicies, as the node's network enforces them.

Pods with a web server stand in for operator, runners and everybody else: with the labels that the chart gives the
operator and the operator gives runners, on the ports that both have. Without policies each of them reaches each port.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from e2e import pods
from e2e.story_stand import SHOP_PORT, Place, a_namespace, eventually
from levels import unavailable
from trafficsim_api.protocol import PORT
from trafficsim_operator.chart.rendered import template
from trafficsim_operator.fleet import Owner
from trafficsim_operator.manifests import deployment
from trafficsim_operator.testing import Unavailable, helm
from trafficsim_operator.testing.node import Cluster
from trafficsim_operator.testing.node.place import DOMAIN

pytestmark = [pytest.mark.node, pytest.mark.timeout(200, func_only=True)]  # the first start may build the programs

OPERATOR_PORT: Final = 8080
ENFORCED_S: Final = 60.0
PAGE: Final = "served"
# Each serves its page on both ports, whichever of them it would have.
SERVING: Final = (
    f"echo {PAGE} > /files/index.html && httpd -p {PORT} -h /files && exec httpd -f -p {SHOP_PORT} -h /files"
)
# The API server is asked by its name, without TLS: it says that it wants it.
ANSWERS: Final = (PAGE, "server returned error: HTTP/1.0 400 Bad Request")
REFUSED: Final = "Connection refused"
REFUSALS: Final = (REFUSED, "bad address")

OPERATOR, ITS_OTHER_PORT = "the operator", "another port of the operator"
RUNNER, ANOTHER_PORT = "a runner", "another port of a runner"
SHOP, API = "the shop", "the API server, by its name"
EVERYTHING: Final = frozenset({OPERATOR, ITS_OTHER_PORT, RUNNER, ANOTHER_PORT, SHOP, API})
ANYWHERE_ELSE: Final = frozenset({SHOP, API})

Reached = dict[str, frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Town:
    """Pods by name, in their namespaces, and what each may ask for."""

    places: Mapping[str, Place]  # by the pods' names
    urls: Mapping[str, str]

    @property
    def node(self) -> Cluster:
        return self.places["operator"].node

    def namespace(self, name: str) -> str:
        return self.places[name].namespace

    def reached(self) -> Reached:
        """Return what each pod reaches, with every answer that is neither that nor a refusal: rules may be changing."""
        with ThreadPoolExecutor(max_workers=len(self.places)) as pool:
            return dict(zip(self.places, pool.map(self._reached_by, self.places), strict=True))

    def _reached_by(self, name: str) -> frozenset[str]:
        said = answers(self.places[name], name, list(self.urls.values()))
        return frozenset(
            what if any(words in answer for words in ANSWERS) else f"{what}: {answer!r}"
            for what, answer in zip(self.urls, said, strict=True)
            if not any(words in answer for words in REFUSALS)
        )


def answers(place: Place, name: str, urls: Sequence[str]) -> list[str]:
    """
    Return what a pod is told last at each of *urls*, or why nobody tells it anything.

    What is refused is said at once here; a limit of its own (-T) ends this wget with SIGSEGV.
    """
    asking = "; ".join(f'echo "$(wget -q -O - {url} 2>&1 | tail -n 1)"' for url in urls)
    return list(place.kubectl("exec", name, "--", "sh", "-c", asking).splitlines())


def a_runner_is_labelled() -> dict[str, str]:
    """Return a runner's labels, as the operator makes them."""
    owner = Owner(namespace="shop", name="shop", uid="6f1d0f5e-0000-4000-8000-000000000001")
    made: dict[str, Any] = deployment(owner, "0a1b2c3d", {"image": "trafficsim/runner:1.0"}, 1)
    return dict(made["spec"]["template"]["metadata"]["labels"])


def chart(*values: str, namespace: str) -> list[dict[str, Any]]:
    """Return the objects of the chart in *namespace*; each of *values* is a name and JSON."""
    options = [word for value in values for word in ("--set-json", value)]
    try:
        return template(helm.find(), *options, namespace=namespace)
    except Unavailable as error:
        unavailable("node", error)


@pytest.fixture(scope="module")
def town(node: Cluster) -> Iterator[Town]:
    """Operator and runners, each with another of its kind, those beside them, and those of other namespaces."""
    rendered = chart(namespace="anywhere")
    [operator] = [found["spec"]["template"] for found in rendered if found["kind"] == "Deployment"]
    [check] = [found for found in rendered if found["kind"] == "Pod"]
    runner, operator_labels = a_runner_is_labelled(), operator["metadata"]["labels"]
    with ExitStack() as stack:
        there, served, monitoring, elsewhere = (
            Place(node=node, namespace=stack.enter_context(a_namespace(node))) for _ in range(4)
        )
        people = {
            "operator": (there, operator_labels),
            "replica": (there, operator_labels),
            "helm-test": (there, check["metadata"]["labels"]),
            "bystander": (there, {}),
            "runner": (served, runner),
            "another-runner": (served, runner),
            "shop": (served, {"app": "shop"}),
            "prometheus": (monitoring, {}),
            "stranger": (elsewhere, operator_labels),  # labels are anybody's to choose in a namespace of their own
        }
        served.kubectl("apply", "-f", "-", stdin=pods.service("shop", SHOP_PORT))
        places = {name: place for name, (place, _) in people.items()}
        yield Town(places=places, urls=urls(started(people), served.namespace))


def started(people: Mapping[str, tuple[Place, Mapping[str, str]]]) -> dict[str, str]:
    """Return the addresses of the pods, which serve."""
    probe = {"httpGet": {"path": "/", "port": SHOP_PORT}, "periodSeconds": 1}
    for name, (place, labels) in people.items():
        spec = pods.pod(script=SERVING, readinessProbe=probe)
        meta = {"name": name, "labels": labels}
        place.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    addresses = {}
    for name, (place, _) in people.items():
        place.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        addresses[name] = place.kubectl("get", "pod", name, "-o", "json")["status"]["podIP"]
    return addresses


def urls(addresses: Mapping[str, str], served: str) -> dict[str, str]:
    """Return where what is asked for has its pages."""
    return {
        OPERATOR: f"http://{addresses['replica']}:{OPERATOR_PORT}/",
        ITS_OTHER_PORT: f"http://{addresses['replica']}:{PORT}/",
        RUNNER: f"http://{addresses['runner']}:{PORT}/",
        ANOTHER_PORT: f"http://{addresses['runner']}:{SHOP_PORT}/",
        # The dot at the end keeps the resolver from asking for longer names first.
        SHOP: f"http://shop.{served}.svc.{DOMAIN}.:{SHOP_PORT}/",
        API: f"http://kubernetes.default.svc.{DOMAIN}.:443/",
    }


@contextmanager
def applied(town: Town, policies: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Have *policies* there while inside; afterwards they are gone, and nobody is kept from anything."""
    document = {"apiVersion": "v1", "kind": "List", "items": policies}
    town.node.kubectl("apply", "-f", "-", stdin=document)
    try:
        yield
    finally:
        town.node.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=document)


def everybody_reaches_everything(town: Town) -> None:
    everything = dict.fromkeys(town.places, EVERYTHING)
    eventually(town.reached, lambda found: found == everything, ENFORCED_S, "everybody reaches everything")


def deny_all(namespace: str) -> dict[str, Any]:
    """Return a NetworkPolicy by which nothing comes to the pods of *namespace* or goes from them."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def protected(**others: frozenset[str]) -> Reached:
    """Return what each reaches in a namespace served whose metrics nobody reads, but for *others*."""
    return {
        "operator": frozenset({OPERATOR, RUNNER, API}),
        "replica": frozenset({OPERATOR, ITS_OTHER_PORT, RUNNER, API}),  # it is itself the operator that is asked for
        "helm-test": frozenset({OPERATOR}) | ANYWHERE_ELSE,
        "bystander": ANYWHERE_ELSE,
        "runner": frozenset({RUNNER, ANOTHER_PORT}) | ANYWHERE_ELSE,  # itself
        "another-runner": ANYWHERE_ELSE,
        "shop": ANYWHERE_ELSE,
        "prometheus": ANYWHERE_ELSE,
        "stranger": ANYWHERE_ELSE,
    } | others


def served_namespace(town: Town) -> tuple[str, ...]:
    return ('rbac.scope="namespaced"', f"rbac.namespaces={json.dumps([town.namespace('runner')])}")


def prometheus_reads(town: Town) -> str:
    labels = {"kubernetes.io/metadata.name": town.namespace("prometheus")}
    return f"networkPolicy.readers={json.dumps([{'namespaceSelector': {'matchLabels': labels}}])}"


def seen_with(town: Town, values: Sequence[str], expected: Reached, *others: Mapping[str, Any]) -> None:
    """See that all is reached without policies, and with those of the chart exactly what is *expected*."""
    everybody_reaches_everything(town)
    rendered = chart(*values, namespace=town.namespace("operator"))
    policies = [found for found in rendered if found["kind"] == "NetworkPolicy"]
    with applied(town, [*policies, *others]):
        eventually(town.reached, lambda found: found == expected, ENFORCED_S, "who reaches whom")


def test_nobody_else_reaches_operator_and_runners(town: Town) -> None:
    """Not from their own namespaces, nor with their labels from another; what both need is open, with names."""
    seen_with(town, served_namespace(town), protected())


def test_prometheus_reads_the_operators_metrics(town: Town) -> None:
    """Named as a reader; that alone opens no runner."""
    values = (*served_namespace(town), prometheus_reads(town))
    seen_with(town, values, protected(prometheus=frozenset({OPERATOR}) | ANYWHERE_ELSE))


def test_prometheus_reads_runners_metrics_too_with_the_pod_monitor(town: Town) -> None:
    """On their control port, which their metrics share."""
    values = (*served_namespace(town), prometheus_reads(town), "metrics.podMonitor.enabled=true")
    seen_with(town, values, protected(prometheus=frozenset({OPERATOR, RUNNER}) | ANYWHERE_ELSE))


def test_dns_has_the_port_of_its_pods(town: Town) -> None:
    """This network's rules count after a Service's address was replaced: port 53 alone leaves the operator without."""
    without_names = frozenset({OPERATOR, RUNNER})
    expected = protected(operator=without_names, replica=without_names | {ITS_OTHER_PORT})
    seen_with(town, (*served_namespace(town), "networkPolicy.dnsPorts=[53]"), expected)


def test_where_the_chart_knows_of_no_runners_they_are_open(town: Town) -> None:
    """An operator of the whole cluster: it is protected itself, and it reaches runners everywhere."""
    open_runners = frozenset({RUNNER, ANOTHER_PORT})
    everybody = {name: reached | open_runners for name, reached in protected().items()}
    expected = everybody | {name: protected()[name] for name in ("operator", "replica")}
    seen_with(town, (), expected)


# What is reached while the runners' namespace denies everything to and from its pods; a pod always reaches itself.
SHUT: Final = {
    "operator": frozenset({OPERATOR, API}),
    "replica": frozenset({OPERATOR, ITS_OTHER_PORT, API}),
    "helm-test": frozenset({OPERATOR, API}),
    "bystander": frozenset({API}),
    "runner": frozenset({RUNNER, ANOTHER_PORT}),
    "another-runner": frozenset[str](),
    "shop": frozenset[str](),
    "prometheus": frozenset({API}),
    "stranger": frozenset({API}),
}


def test_a_namespace_that_denies_everything_shuts_the_operator_out(town: Town) -> None:
    """The chart doesn't know of runners there, so nothing lets them be reached or reach anything."""
    seen_with(town, (), SHUT, deny_all(town.namespace("runner")))


def test_a_namespace_that_denies_everything_and_is_named_has_runners_that_work(town: Town) -> None:
    """The operator reaches them, and they what is outside; the shop in their namespace is its owner's to open."""
    named = f"networkPolicy.runnerNamespaces={json.dumps([town.namespace('runner')])}"
    opened = {name: SHUT[name] | {RUNNER} for name in ("operator", "replica")}
    opened |= {name: SHUT[name] | {API} for name in ("runner", "another-runner")}
    seen_with(town, (named,), SHUT | opened, deny_all(town.namespace("runner")))
