"""
Real Kubernetes for tests, without a container engine.

`ControlPlane` runs etcd, kube-apiserver and kube-controller-manager on loopback; `ProcessKubelet` is its node: it
runs pods as processes. `node` is a whole node, with containers. Shipped so that anybody who builds on trafficsim can
test against the same. What a machine cannot give raises `Unavailable` with the reason. Imports nothing from the rest of
the operator.
"""

from trafficsim_operator.testing.apiserver import Api, ApiError
from trafficsim_operator.testing.controlplane import ControlPlane
from trafficsim_operator.testing.podspec import Image
from trafficsim_operator.testing.process_kubelet import ProcessKubelet
from trafficsim_operator.testing.unavailable import Unavailable

__all__ = ["Api", "ApiError", "ControlPlane", "Image", "ProcessKubelet", "Unavailable"]
