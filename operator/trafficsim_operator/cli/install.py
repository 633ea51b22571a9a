"""`trafficsim install`: the operator's objects, printed or applied."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import click

from trafficsim_api import names
from trafficsim_api.crd import crd
from trafficsim_api.errors import Problem, SpecError, Unavailable
from trafficsim_operator.cli.faults import as_json, policy_in, read_bytes, tells_faults
from trafficsim_operator.cli.objects import Place, fault, run_at
from trafficsim_operator.kube import SIMULATIONS, KubeApi, Object, Resource
from trafficsim_operator.manifests.installation import NAMESPACE, Wanted, installation
from trafficsim_operator.manifests.present import LOOKED_AT, Present, in_the_way, kept, settled
from trafficsim_operator.manifests.text import documents

__all__ = ["install"]

MANAGER: Final = "trafficsim-install"
_NAMESPACE_NAME: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# A tag or a digest has to be there: what is installed must not change by itself.
_IMAGE: Final = r"[a-z0-9][^\s@]*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})"
_SERVED_WITHIN_S: Final = 30.0
_PLURALS: Final = {"NetworkPolicy": "networkpolicies"}


@click.command(
    epilog="""\b
Examples:
  trafficsim install | kubectl apply --server-side -f -
  trafficsim install --apply --image registry.example.com/trafficsim/operator:0.1.0 \\
    --runner-image registry.example.com/trafficsim/runner:0.1.0
  trafficsim install --crd-only --apply          # an administrator, once
  trafficsim install --role-only -n shop --apply # then anybody with rights in the namespace shop

\b
Exit codes: 0 done, 3 an option or the cluster is at fault.
"""
)
@click.option(
    "-n", "--namespace", metavar="NAME", default=NAMESPACE, show_default=True, help="Where the operator runs."
)
@click.option("--role-only", is_flag=True, help="Serve that namespace alone; nothing is for the whole cluster.")
@click.option("--crd-only", is_flag=True, help="Only the CustomResourceDefinition.")
@click.option("--image", metavar="IMAGE", default="", help="The operator's image, with a tag or digest.")
@click.option("--runner-image", metavar="IMAGE", default="", help="The runners' image, with a tag or digest.")
@click.option(
    "--policy", metavar="FILE", help="The policy document; absent: the one that is there stays, else the shipped one."
)
@click.option("--apply", "applied", is_flag=True, help="Apply the objects server-side instead of printing them.")
@click.option("--kubeconfig", metavar="FILE", help="The kubeconfig to use.")
@click.option("--context", metavar="NAME", help="The kubeconfig's context to use.")
@click.option("--json", "as_json_", is_flag=True, help="One JSON document on stdout.")
@tells_faults
def install(
    crd_only: bool,
    applied: bool,
    as_json_: bool,
    kubeconfig: str | None,
    context: str | None,
    policy: str | None,
    **options: Any,
) -> int:
    """
    Print what an installation of the operator consists of, or apply it.

    Applied over one that is there, its policy and images stay as long as no option names others.
    """
    wanted = Wanted(policy=_policy_text(policy), **options)
    _check(wanted, crd_only)
    if applied:
        place = Place(namespace=wanted.namespace, kubeconfig=kubeconfig, context=context)
        return run_at(place, lambda api, _: _apply(api, wanted, crd_only, as_json_))
    objects = _objects(wanted, crd_only)
    if as_json_:
        click.echo(as_json({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    else:
        click.echo(documents(objects), nl=False)
    return 0


def _objects(wanted: Wanted, crd_only: bool) -> tuple[Object, ...]:
    return (crd(),) if crd_only else installation(wanted)


def _policy_text(file: str | None) -> str:
    """Return the document in *file* as it stands there, "" without one; raise SpecError naming the field at fault."""
    if file is None:
        return ""
    data = read_bytes(file)
    policy_in(data, "standard input" if file == "-" else file)
    return data.decode("utf-8-sig")


def _check(wanted: Wanted, crd_only: bool) -> None:
    """Raise SpecError with every option that is wrong."""
    problems = []
    if not re.fullmatch(_NAMESPACE_NAME, wanted.namespace):
        reason = f"a name of lower case letters, digits and - is needed, not {wanted.namespace!r}"
        problems.append(Problem(field="--namespace", reason=reason))
    for option, image in (("--image", wanted.image), ("--runner-image", wanted.runner_image)):
        if image and not re.fullmatch(_IMAGE, image):
            problems.append(Problem(field=option, reason=f"an image with a tag or digest is needed, not {image!r}"))
    if wanted.role_only and crd_only:
        problems.append(Problem(field="--crd-only", reason="the CRD is for the whole cluster, --role-only is not"))
    if problems:
        raise SpecError(*problems)


async def _apply(api: KubeApi, wanted: Wanted, crd_only: bool, as_json_: bool) -> int:
    """Apply what is *wanted*; refuse before anything is written where it would not come out well."""
    present = await _present(api, _objects(wanted, crd_only))
    await _refuse(api, wanted, present)
    staying, told = kept(present, wanted)
    done: list[dict[str, Any]] = []
    for found in _objects(settled(wanted, present), crd_only):
        if (found["kind"], found["metadata"]["name"]) in staying:
            continue
        resource = resource_of(found)
        meta = {"namespace": None} | found["metadata"]
        answer = await api.apply(resource, {**found, "metadata": meta}, MANAGER)
        place = {key: meta[key] for key in ("namespace", "name") if meta[key]}
        done.append({"kind": resource.kind, **place, "uid": answer["metadata"]["uid"]})
        if not as_json_:
            click.echo(f"{resource.kind.lower()} {'/'.join(place.values())} applied")
        if resource.kind == "CustomResourceDefinition":
            await _served(api)
    if as_json_:
        click.echo(as_json({"applied": done, "kept": told}))
        return 0
    for line in told:
        click.echo(f"kept: {line}")
    if not crd_only:
        click.echo(f"\nNext: kubectl -n {wanted.namespace} rollout status deployment/trafficsim-operator")
    return 0


async def _present(api: KubeApi, objects: tuple[Object, ...]) -> Present:
    """Return which of *objects* are in the cluster, as far as it matters what they are there."""
    there: dict[tuple[str, str], Object] = {}
    for found in objects:
        meta = found["metadata"]
        if found["kind"] in LOOKED_AT:
            answer = await api.get(resource_of(found), meta.get("namespace", ""), meta["name"])
            if answer is not None:
                there[found["kind"], meta["name"]] = answer
    return there


async def _refuse(api: KubeApi, wanted: Wanted, present: Present) -> None:
    """Raise SpecError when something that is there is another's, or the kind it needs can't come with it."""
    if reason := in_the_way(present, wanted.namespace):
        raise fault(reason)
    if wanted.role_only and not await api.served(SIMULATIONS):
        raise fault(
            f"the cluster knows no {names.PLURAL}.{names.GROUP}: an administrator installs the kind once with "
            "`trafficsim install --crd-only --apply`"
        )


async def _served(api: KubeApi) -> None:
    """Wait until the kind is served: an operator that does not find it ends and is started again, later."""
    try:
        async with asyncio.timeout(_SERVED_WITHIN_S):
            while not await api.served(SIMULATIONS):  # noqa: ASYNC110 - what is waited for happens elsewhere
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise Unavailable(f"the kind {names.KIND} was applied, but is not served yet: try again") from None


def resource_of(found: Object) -> Resource:
    """Return the kind of *found* as the API server's paths have it."""
    group, _, version = found["apiVersion"].rpartition("/")
    kind = found["kind"]
    return Resource(group=group, version=version, plural=_PLURALS.get(kind, f"{kind.lower()}s"), kind=kind)
