"""
A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager.

    with ControlPlane() as control_plane:
        subprocess.run(["kubectl", "--kubeconfig", control_plane.kubeconfig, "get", "namespaces"])

It is ready in some 5 s, needs no privileges, and goes away with the process that started it. There is no scheduler and
no node: see `ProcessKubelet`. `python -m trafficsim_operator.testing.controlplane` runs one by hand; `--build-only`
only makes sure that its programs are there.
"""

import argparse
import http.client
import json
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from trafficsim_operator.testing import binaries, kubeconfig
from trafficsim_operator.testing.certificates import Authority
from trafficsim_operator.testing.ports import free_ports
from trafficsim_operator.testing.processes import Guard, start
from trafficsim_operator.testing.unavailable import Unavailable

_ADDRESS: Final = "127.0.0.1"
_START_LIMIT: Final = 60.0  # seconds; 5 are usual
_STOP_LIMIT: Final = 10.0  # seconds until a program that ignores SIGTERM is killed
_END: Final = frozenset({signal.SIGINT, signal.SIGTERM})
_ATTEMPTS: Final = 3  # another process may take a port between our look and the bind


class ControlPlane:
    """One API server with what makes Deployments, ReplicaSets, service accounts and garbage collection work."""

    def __init__(self, directory: Path | None = None) -> None:
        """Keep state and logs in *directory*, or in a temporary one that goes at `stop`."""
        self._given = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: Guard | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{_ADDRESS}:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig file of a cluster administrator."""
        return self.directory / "admin.kubeconfig"

    @property
    def kubectl(self) -> Path:
        """The kubectl of the server's version."""
        return self._binaries.kubectl

    @property
    def logs(self) -> Path:
        """The directory with one log file per program."""
        return self.directory / "logs"

    def start(self) -> None:
        """Start everything and return when the API answers and the default service account exists."""
        self._binaries = binaries.find()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start_once()
                return
            except Unavailable:
                self.stop()
                if attempt == _ATTEMPTS:
                    raise

    def stop(self) -> None:
        """Stop the programs, the API server first, and remove what was temporary."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self._end(name, signal.SIGTERM if name == "etcd" else signal.SIGKILL)  # nothing in them is worth saving
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def restart_apiserver(self, down: Callable[[], None] = lambda: None) -> None:
        """Kill the API server, call *down* while it is away, and start it again on the same address."""
        self._end("kube-apiserver", signal.SIGKILL)
        down()
        self._start_apiserver()
        self._await("kube-apiserver", "/readyz")

    def stop_apiserver(self) -> None:
        """Take the API server away until `restart_apiserver`."""
        self._end("kube-apiserver", signal.SIGKILL)

    def user(self, name: str, groups: Sequence[str] = ()) -> Path:
        """Return the kubeconfig of a user with a client certificate; RBAC gives it nothing by itself."""
        certificate, key = self._authority.client(name, groups)
        credentials = {"client-certificate": str(certificate), "client-key": str(key)}
        return self._write_kubeconfig(f"user-{name.replace(':', '-')}", credentials)

    def service_account(self, namespace: str, name: str) -> Path:
        """Return the kubeconfig with a fresh token (1 h) of an existing service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        status, answer = self._call("POST", path, {"spec": {"expirationSeconds": 3600}})
        if status != 201:
            raise LookupError(f"no token for service account {namespace}/{name}: {status} {answer.get('message')}")
        return self._write_kubeconfig(f"account-{namespace}-{name}", {"token": answer["status"]["token"]})

    def _start_once(self) -> None:
        self.directory = self._given or Path(tempfile.mkdtemp(prefix="trafficsim-control-plane-"))
        self._guard = Guard(directories=[] if self._given else [self.directory])
        self.logs.mkdir(parents=True, exist_ok=True)
        self._port, self._etcd_port, self._peer_port, self._manager_port = free_ports(4)
        self._authority = Authority(self.directory / "certs")
        hosts = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        self._serving = self._authority.serve("kube-apiserver", hosts=hosts, addresses=[_ADDRESS, "10.96.0.1"])
        self._accounts = self._authority.key_pair("service-accounts")
        self._write_tokens()
        self._start_etcd()
        self._start_apiserver()
        self._await("kube-apiserver", "/readyz")
        self._start_controller_manager()
        self._await("kube-controller-manager", "/api/v1/namespaces/default/serviceaccounts/default")

    def _write_tokens(self) -> None:
        rows = []
        users = {"admin": ("admin", "system:masters"), "manager": ("system:kube-controller-manager", "")}
        self._tokens = {name: secrets.token_hex(16) for name in users}
        for name, (user, groups) in users.items():
            rows.append(f'{self._tokens[name]},{user},{name},"{groups}"\n')
            self._write_kubeconfig(name, {"token": self._tokens[name]})
        self._token_file = self.directory / "tokens.csv"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text("".join(rows))

    def _write_kubeconfig(self, name: str, credentials: dict[str, str]) -> Path:
        return kubeconfig.write(
            self.directory / f"{name}.kubeconfig",
            server=self.server,
            authority=self._authority.certificate,
            name=name,
            credentials=credentials,
        )

    def _start_etcd(self) -> None:
        client, peer = (f"http://{_ADDRESS}:{port}" for port in (self._etcd_port, self._peer_port))
        self._launch(
            "etcd",
            self._binaries.etcd,
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # a test cluster has no tomorrow
        )

    def _start_apiserver(self) -> None:
        certificate, key = self._serving
        public, private = self._accounts
        self._launch(
            "kube-apiserver",
            self._binaries.kube_apiserver,
            f"--etcd-servers=http://{_ADDRESS}:{self._etcd_port}",
            f"--bind-address={_ADDRESS}",
            f"--advertise-address={_ADDRESS}",
            "--endpoint-reconciler-type=none",  # the Service `kubernetes` may not point to a loopback address
            f"--secure-port={self._port}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self._authority.certificate}",
            f"--token-auth-file={self._token_file}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
        )

    def _start_controller_manager(self) -> None:
        self._launch(
            "kube-controller-manager",
            self._binaries.kube_controller_manager,
            f"--kubeconfig={self.directory / 'manager.kubeconfig'}",
            f"--bind-address={_ADDRESS}",
            f"--secure-port={self._manager_port}",
            f"--service-account-private-key-file={self._accounts[1]}",
            f"--root-ca-file={self._authority.certificate}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--kube-api-qps=200",  # the default of 20 makes tests wait, not the cluster work
            "--kube-api-burst=400",
        )

    def _launch(self, name: str, program: Path, *arguments: str) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = start([str(program), *arguments], log)

    def _end(self, name: str, number: signal.Signals) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await(self, name: str, path: str) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while time.monotonic() < deadline:
            for program, process in self._processes.items():
                if (code := process.poll()) is not None:
                    raise Unavailable(f"{program} ended with {code}: {_last_line(self.logs / f'{program}.log')}")
            try:
                if self._call("GET", path)[0] == 200:
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.05)
        raise Unavailable(f"{name} not ready after {_START_LIMIT:.0f} s: {_last_line(self.logs / f'{name}.log')}")

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        connection = http.client.HTTPSConnection(_ADDRESS, self._port, context=context, timeout=5)
        headers = {"Authorization": f"Bearer {self._tokens['admin']}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        try:
            answer = json.loads(content)
        except ValueError:  # /readyz says "ok"
            answer = {}
        return response.status, answer if isinstance(answer, dict) else {}


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "no log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a control plane until interrupted, or only build its programs."""
    parser = argparse.ArgumentParser(description="Run a Kubernetes control plane on loopback until interrupted.")
    parser.add_argument("--build-only", action="store_true", help="only build or find the programs")
    parser.add_argument("--directory", type=Path, help="keep state and logs here")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)  # else one of them ends us before `sigwait` sees it
    try:
        found = binaries.find()
        if options.build_only:
            print(f"etcd: {found.etcd}\nkube-apiserver: {found.kube_apiserver}\nkubectl: {found.kubectl}")
            return 0
        with ControlPlane(options.directory and options.directory.resolve()) as control_plane:
            print(f"export KUBECONFIG={control_plane.kubeconfig}", flush=True)
            signal.sigwait(_END)
    except Unavailable as error:
        print(f"unavailable: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
