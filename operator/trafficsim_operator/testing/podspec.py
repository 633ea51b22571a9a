"""
What a pod's spec means for a process: program, environment, volume contents. Pure.

A process has no mount namespace of its own here, so a volume is not found at its mountPath. Instead that path is
replaced by the volume's real directory wherever it stands in the arguments and in environment values
(`--config=/etc/x/config.json`, `DATA=/data`); paths *inside* a mounted file are not. A program must therefore learn
its paths from arguments or environment, which container programs should anyway.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.apiserver import Object

Sources = Mapping[tuple[str, str], Object | None]  # (kind, name) -> ConfigMap or Secret, None if absent

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUFFIX: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


class CannotRun(Exception):
    """A pod that cannot run as it is: *reason* is what its container waits with, as a real kubelet would say it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a test says an image is: program and default arguments, environment, and a venv first on its PATH."""

    argv: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    venv: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What only the node knows about a pod."""

    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]  # stands for a limit that the container does not set
    directories: Mapping[str, Path] = field(default_factory=dict)  # by volume name
    services: Mapping[str, str] = field(default_factory=dict)  # KUBERNETES_SERVICE_HOST and the like


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A container as a process."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    working_directory: Path | None


def quantity(text: str | int | float) -> Decimal:
    """Return a Kubernetes quantity as a number: "100m" is 0.1, "1Gi" is 1073741824."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][-+]?\d+)?)([numkMGT]?|[KMGT]i)", str(text))
    if match is None:
        raise CannotRun("InvalidQuantity", f"{text!r} is not a quantity")
    return Decimal(match[1]) * _SUFFIX[match[2]]


def requested(pod: Object, resource: str) -> Decimal:
    """Return how much of *resource* the scheduler has to set aside for *pod*."""
    containers = pod["spec"]["containers"]
    return sum((quantity(c.get("resources", {}).get("requests", {}).get(resource, 0)) for c in containers), Decimal(0))


def field_value(pod: Object, path: str, facts: Facts) -> str:
    """Return what the downward API gives for *path*."""
    meta, spec = pod["metadata"], pod["spec"]
    plain = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path in plain:
        return str(plain[path])
    if path in ("metadata.labels", "metadata.annotations"):
        entries = meta.get(path.removeprefix("metadata."), {})
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(meta.get(match[1], {}).get(match[2], ""))
    raise CannotRun("CreateContainerConfigError", f"fieldPath {path} is not supported")


def resource_value(container: Object, reference: Object, facts: Facts) -> str:
    """
    Return a container's limit or request in units of the divisor, rounded up.

        limits.cpu 1500m with divisor 1 is 2, with divisor 1m is 1500
    """
    kind, _, resource = reference["resource"].partition(".")
    resources = container.get("resources", {})
    value = resources.get(kind, {}).get(resource)
    if value is None:
        value = facts.allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = quantity(reference.get("divisor") or 1) or Decimal(1)  # the server stores an absent divisor as "0"
    return str(int((quantity(value) / divisor).to_integral_value(ROUND_CEILING)))


def environment(pod: Object, container: Object, image: Image, sources: Sources, facts: Facts) -> dict[str, str]:
    """Return the whole environment of the process; nothing is inherited from the test."""
    path = _PATH if image.venv is None else f"{image.venv}/bin:{_PATH}"
    venv = {} if image.venv is None else {"VIRTUAL_ENV": str(image.venv)}
    env = {"PATH": path, "HOSTNAME": pod["metadata"]["name"], **facts.services, **venv, **image.env}
    for entry in container.get("envFrom", ()):
        kind = "ConfigMap" if "configMapRef" in entry else "Secret"
        reference = entry.get("configMapRef") or entry["secretRef"]
        for key, content in _data(_source(sources, kind, reference)).items():
            env[entry.get("prefix", "") + key] = content.decode()
    for entry in container.get("env", ()):
        value = _env_value(pod, container, entry, sources, facts, env)
        if value is not None:
            env[entry["name"]] = value
    translate = _translation(container, facts.directories)
    return {key: translate(value) for key, value in env.items()}


def program(pod: Object, container: Object, image: Image, sources: Sources, facts: Facts) -> Program:
    """Return the process of *container*: `command` replaces the image's program, `args` its default arguments."""
    env = environment(pod, container, image, sources, facts)
    command, args = container.get("command"), container.get("args")
    defaults = () if command else image.args
    words = [*(command or image.argv), *(defaults if args is None else args)]
    if not words:
        raise CannotRun("CreateContainerConfigError", f"image {container['image']} names no program, nor does the pod")
    translate = _translation(container, facts.directories)
    directory = container.get("workingDir")
    return Program(
        argv=tuple(translate(expand(word, env)) for word in words),
        env=env,
        working_directory=Path(translate(directory)) if directory else None,
    )


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) where *env* knows it; $$ escapes, unknown names stay, as Kubernetes has it."""

    def replacement(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^()\s]+)\)", replacement, text)


def needed(pod: Object, container: Object) -> set[tuple[str, str]]:
    """Return (kind, name) of every ConfigMap and Secret the pod's environment or volumes refer to."""
    places: list[Object] = list(container.get("envFrom", ()))
    places += [entry["valueFrom"] for entry in container.get("env", ()) if entry.get("valueFrom")]
    places += [part for volume in pod["spec"].get("volumes", ()) for part in _parts(volume)]
    return {
        (kind, place[key].get("name") or place[key]["secretName"])
        for place in places
        for key, kind in _KINDS.items()
        if key in place
    }


def volume_files(
    pod: Object, container: Object, volume: Object, sources: Sources, facts: Facts, tokens: Mapping[str, str]
) -> dict[str, bytes] | None:
    """Return the files of a volume by relative path, or None for an emptyDir; *tokens* by audience."""
    if "emptyDir" in volume:
        return None
    files: dict[str, bytes] = {}
    for part in _parts(volume):
        if "configMap" in part or "secret" in part:
            files |= _picked(part, sources)
        elif "downwardAPI" in part:
            for item in part["downwardAPI"].get("items", ()):
                files[item["path"]] = _downward(pod, container, item, facts).encode()
        elif "serviceAccountToken" in part:
            token = part["serviceAccountToken"]
            files[token["path"]] = tokens.get(token.get("audience", ""), "").encode()
        else:
            kinds = ", ".join(sorted(set(part) - {"name"})) or "nothing"
            raise CannotRun("ContainerCreating", f"volume {volume['name']}: {kinds} is not supported")
    return files


def token_audiences(pod: Object) -> set[str]:
    """Return the audiences of the service account tokens that the pod's volumes hold ("" the server's own)."""
    parts = (part for volume in pod["spec"].get("volumes", ()) for part in _parts(volume))
    return {part["serviceAccountToken"].get("audience", "") for part in parts if "serviceAccountToken" in part}


_KINDS: Final = {
    "configMap": "ConfigMap", "configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap",
    "secret": "Secret", "secretRef": "Secret", "secretKeyRef": "Secret",
}  # fmt: skip


def _parts(volume: Object) -> Sequence[Object]:
    """Return the volume as a sequence of sources: a projected one has several, everything else is one."""
    return tuple(volume["projected"].get("sources") or ()) if "projected" in volume else (volume,)


def _source(sources: Sources, kind: str, reference: Object) -> Object:
    name = reference.get("name") or reference["secretName"]
    found = sources.get((kind, name))
    if found is None and not reference.get("optional"):
        raise CannotRun("CreateContainerConfigError", f'{kind.lower()} "{name}" not found')
    return found or {}


def _data(source: Object) -> dict[str, bytes]:
    secret = source.get("kind") == "Secret"
    plain = {k: base64.b64decode(v) if secret else v.encode() for k, v in (source.get("data") or {}).items()}
    return plain | {k: base64.b64decode(v) for k, v in (source.get("binaryData") or {}).items()}


def _picked(part: Object, sources: Sources) -> dict[str, bytes]:
    key = "configMap" if "configMap" in part else "secret"
    data = _data(_source(sources, _KINDS[key], part[key]))
    items: Iterable[Object] = part[key].get("items") or ({"key": name, "path": name} for name in data)
    missing = [item["key"] for item in items if item["key"] not in data] if part[key].get("items") else []
    if missing and not part[key].get("optional"):
        raise CannotRun("ContainerCreating", f"references non-existent config key: {missing[0]}")
    return {item["path"]: data[item["key"]] for item in items if item["key"] in data}


def _downward(pod: Object, container: Object, item: Object, facts: Facts) -> str:
    if "fieldRef" in item:
        return field_value(pod, item["fieldRef"]["fieldPath"], facts)
    return resource_value(container, item["resourceFieldRef"], facts)


def _env_value(
    pod: Object, container: Object, entry: Object, sources: Sources, facts: Facts, env: Mapping[str, str]
) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(entry.get("value", ""), env)
    if "fieldRef" in origin or "resourceFieldRef" in origin:
        return _downward(pod, container, origin, facts)
    kind = "ConfigMap" if "configMapKeyRef" in origin else "Secret"
    reference = origin.get("configMapKeyRef") or origin["secretKeyRef"]
    value = _data(_source(sources, kind, reference)).get(reference["key"])
    if value is None and not reference.get("optional"):
        message = f"couldn't find key {reference['key']} in {kind} {reference['name']}"
        raise CannotRun("CreateContainerConfigError", message)
    return None if value is None else value.decode()


def _translation(container: Object, directories: Mapping[str, Path]) -> Callable[[str], str]:
    """Return what replaces mount paths, the longest first, where they stand as whole leading parts of a path."""
    real: dict[str, str] = {}
    for mount in container.get("volumeMounts", ()):
        if (directory := directories.get(mount["name"])) is not None:
            real[mount["mountPath"].rstrip("/")] = str(directory / mount.get("subPath", ""))
    if not real:
        return lambda text: text
    paths = "|".join(re.escape(path) for path in sorted(real, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w/.-])({paths})(?![\w.-])")
    return lambda text: pattern.sub(lambda match: real[match[1]], text)
