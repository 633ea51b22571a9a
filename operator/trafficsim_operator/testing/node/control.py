"""The control plane of a node: credentials; how etcd, API server, controller manager and scheduler are started."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import kubeconfig
from trafficsim_operator.testing.certificates import Authority
from trafficsim_operator.testing.node.place import ADDRESS, API_PORT, API_SERVICE, DOMAIN, NODE, PODS, SERVICES, Place

_LOOPBACK: Final = "127.0.0.1"
_ETCD: Final = f"http://{_LOOPBACK}:2379"
_PEER: Final = f"http://{_LOOPBACK}:2380"

# Kubeconfig → user and groups.
_USERS: Final[Mapping[str, tuple[str, str]]] = {
    "admin": ("admin", "system:masters"),
    "manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "proxy": ("system:kube-proxy", "system:node-proxier"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Files with what the API server shows, and with what it asks for."""

    authority: Path
    serving: tuple[Path, Path]  # certificate and key
    to_kubelet: tuple[Path, Path]
    accounts: tuple[Path, Path]  # public and private key of service account tokens
    tokens: Path


def credentials(place: Place) -> Credentials:
    """Make everybody's credentials and kubeconfigs."""
    authority = Authority(place.certificates)
    hosts = ["localhost", *(f"kubernetes{rest}" for rest in ("", ".default", ".default.svc", f".default.svc.{DOMAIN}"))]
    made = {name: secrets.token_hex(16) for name in _USERS}
    tokens = place.certificates / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text("".join(f'{made[name]},{user},{name},"{groups}"\n' for name, (user, groups) in _USERS.items()))
    for name, token in made.items():
        kubeconfig.write(
            place.kubeconfig(name),
            server=f"https://{ADDRESS}:{API_PORT}",
            authority=authority.certificate,
            name=name,
            credentials={"token": token},
        )
    return Credentials(
        authority=authority.certificate,
        serving=authority.serve("kube-apiserver", hosts=hosts, addresses=[_LOOPBACK, ADDRESS, API_SERVICE]),
        # Without it the kubelet answers logs and exec with Unauthorized.
        to_kubelet=authority.client("kube-apiserver-kubelet-client", ["system:masters"]),
        accounts=authority.key_pair("service-accounts"),
        tokens=tokens,
    )


def etcd(place: Place) -> list[str]:
    """Return etcd's arguments."""
    return [
        f"--data-dir={place.directory / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_PEER}",
        f"--initial-advertise-peer-urls={_PEER}",
        f"--initial-cluster=default={_PEER}",
        "--unsafe-no-fsync",  # a test cluster has no tomorrow
    ]


def apiserver(files: Credentials) -> list[str]:
    """Return the API server's arguments."""
    return [
        f"--etcd-servers={_ETCD}",
        "--bind-address=0.0.0.0",  # of the namespace: pods come by way of the Service
        f"--advertise-address={ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={files.serving[0]}",
        f"--tls-private-key-file={files.serving[1]}",
        f"--client-ca-file={files.authority}",
        f"--kubelet-client-certificate={files.to_kubelet[0]}",
        f"--kubelet-client-key={files.to_kubelet[1]}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--token-auth-file={files.tokens}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={files.accounts[0]}",
        f"--service-account-signing-key-file={files.accounts[1]}",
    ]


def manager(place: Place, files: Credentials) -> list[str]:
    """Return the controller manager's arguments."""
    return [
        f"--kubeconfig={place.kubeconfig('manager')}",
        f"--bind-address={_LOOPBACK}",
        f"--service-account-private-key-file={files.accounts[1]}",
        f"--root-ca-file={files.authority}",
        "--use-service-account-credentials=true",
        f"--cluster-cidr={PODS}",
        "--allocate-node-cidrs=false",
        f"--flex-volume-plugin-dir={place.kubelet / 'plugins-exec'}",  # else it makes one below /usr
        "--leader-elect=false",
        "--kube-api-qps=200",  # the default of 20 makes tests wait, not the cluster work
        "--kube-api-burst=400",
    ]


def scheduler(place: Place) -> list[str]:
    """Return the scheduler's arguments."""
    return [
        f"--kubeconfig={place.kubeconfig('scheduler')}",
        f"--bind-address={_LOOPBACK}",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
