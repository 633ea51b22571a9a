"""What runs pods: the configurations of containerd, its network, kubelet and kube-proxy. Pure, but for `write`."""

import json
from pathlib import Path
from typing import Any, Final

from trafficsim_operator.testing.node.place import ADDRESS, DNS_SERVICE, DOMAIN, NODE, PODS, Place

PAUSE: Final = "localhost/pause:1"


def write(place: Place, plugins: Path, authority: Path) -> None:
    """Write all of them; *plugins* is the directory of the network plugins."""
    for directory in (place.containerd, place.kubelet, _networks(place)):
        directory.mkdir(parents=True, exist_ok=True)
    _configuration(place, "containerd", "toml").write_text(containerd(place, plugins))
    (_networks(place) / "10-pods.conflist").write_text(json.dumps(network(place), indent=1))
    # JSON is YAML.
    _configuration(place, "kubelet", "yaml").write_text(json.dumps(kubelet(place, authority), indent=1))
    _configuration(place, "kube-proxy", "yaml").write_text(json.dumps(proxy(place), indent=1))


def containerd_arguments(place: Place) -> list[str]:
    """Return containerd's arguments."""
    return [f"--config={_configuration(place, 'containerd', 'toml')}"]


def kubelet_arguments(place: Place) -> list[str]:
    """Return the kubelet's arguments."""
    return [
        f"--config={_configuration(place, 'kubelet', 'yaml')}",
        f"--kubeconfig={place.kubeconfig('kubelet')}",
        f"--hostname-override={NODE}",
        f"--node-ip={ADDRESS}",
        f"--root-dir={place.kubelet}",
        f"--cert-dir={place.kubelet / 'pki'}",
    ]


def proxy_arguments(place: Place) -> list[str]:
    """Return kube-proxy's arguments."""
    return [f"--config={_configuration(place, 'kube-proxy', 'yaml')}"]


def containerd(place: Place, plugins: Path) -> str:
    """Return containerd's configuration."""
    return f"""\
version = 2
root = "{place.containerd / "root"}"
state = "{place.containerd / "state"}"
# They want directories of the machine's, or devices, and nobody asks them.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]

[grpc]
  address = "{place.socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE runc may not lower oom_score_adj, and every sandbox dies with
  # "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true  # else they get names below /run/netns

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{_networks(place)}"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{place.containerd / "runc"}"
"""


def network(place: Place) -> dict[str, Any]:
    """
    Return the pods' network: a pair of interfaces for each, and addresses from a directory.

    Everything is routed. On a bridge, answers between two pods would pass the node's rules only with br_netfilter,
    whose loading sends what crosses the machine's own bridges through the machine's rules.
    """
    pair = {
        "type": "ptp",
        "ipMasq": False,  # there is nowhere to go to
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(place.directory / "addresses"),
        },
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [pair]}


def kubelet(place: Place, authority: Path) -> dict[str, Any]:
    """Return the kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{place.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,  # lowering it needs CAP_SYS_RESOURCE
        "makeIPTablesUtilChains": False,
        "clusterDomain": DOMAIN,
        "clusterDNS": [DNS_SERVICE],
        "resolvConf": "",
        "podCIDR": PODS,
        "maxPods": 200,
        "serializeImagePulls": False,
        "podLogsDir": str(place.directory / "pods"),
        "volumePluginDir": str(place.kubelet / "plugins-exec"),
        # What was imported cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "1s",
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }


def proxy(place: Place) -> dict[str, Any]:
    """Return kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "clientConnection": {"kubeconfig": str(place.kubeconfig("proxy"))},
        "hostnameOverride": NODE,
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0},  # the table's size is the machine's
        "nftables": {"minSyncPeriod": "100ms"},
    }


def _networks(place: Place) -> Path:
    return place.directory / "networks"


def _configuration(place: Place, program: str, suffix: str) -> Path:
    return place.directory / f"{program}.{suffix}"
