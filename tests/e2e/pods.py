"""What the tests run on a node: a container image with one static program, and pods that `restricted` admits."""

from pathlib import Path
from typing import Any, Final

from trafficsim_operator.testing import Unavailable, packages
from trafficsim_operator.testing.node import Link, archive

IMAGE: Final = "localhost/busybox:1"
_COMMANDS: Final = ("cat", "hostname", "httpd", "nslookup", "sh", "sleep", "tail", "wget")
RESTRICTED: Final = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def busybox() -> bytes:
    """Return the archive of an image with a shell, a web server, and what asks them and the DNS."""
    program = packages.programs({"busybox": "busybox-static"})["busybox"]
    if b"/ld-linux" in program.read_bytes():
        raise Unavailable(f"{program} is not static (Debian: apt-get install busybox-static)")
    files: dict[str, Path | Link] = {"bin/busybox": program}
    files |= {f"bin/{command}": Link("busybox") for command in _COMMANDS}
    return archive(IMAGE, files, entrypoint=["/bin/sh", "-c"], environment={"PATH": "/bin"})


def pod(*, image: str = IMAGE, script: str | None = None, memory: str = "32Mi", **settings: Any) -> dict[str, Any]:
    """Return the spec of a pod with one container that runs *script*; *settings* are the container's."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"memory": memory}},
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        **({} if script is None else {"args": [script]}),
        **settings,
    }
    return {
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "files", "emptyDir": {}}],
    }


def deployment(name: str, replicas: int, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a Deployment of pods with *spec*."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(name: str, port: int) -> dict[str, Any]:
    """Return the Service of a Deployment's pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }


def web(port: int) -> dict[str, Any]:
    """Return the spec of pods that answer with their name, once they say that they do."""
    script = f"hostname > /files/index.html && echo serving && exec httpd -f -p {port} -h /files"
    probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1}
    return pod(script=script, readinessProbe=probe)
