"""
Who runs which command of the pages: each is named once by its first words.

On the API server in the order of a story; on this machine; and, for what needs a node, the test there that does it.
"""

from __future__ import annotations

from typing import Final

PAGES: Final = ("install.md", "first-simulation.md", "gitops.md", "troubleshooting.md")

# tests/cluster/test_pages.py
WITH_HELM: Final = (
    "helm install trafficsim charts/trafficsim --namespace trafficsim --create-namespace",
    "helm upgrade",
    "kubectl delete tsim --all",
    "helm uninstall",
    "kubectl -n trafficsim delete secret/",
    "kubectl delete crd",
)
WITHOUT_HELM: Final = (
    "trafficsim install --image",
    "trafficsim install --image",  # as an upgrade
    "kubectl delete tsim --all",
    "kubectl -n trafficsim delete deployment,",
    "kubectl delete clusterrole,clusterrolebinding",
    "kubectl -n trafficsim delete secret/",
    "kubectl delete crd",
)
SINGLE_NAMESPACE: Final = ("trafficsim install --crd-only", "trafficsim install --role-only -n shop")
SINGLE_NAMESPACE_WITH_HELM: Final = ("helm install trafficsim charts/trafficsim -n shop --set rbac.scope=namespaced",)
ON_THE_API_SERVER: Final = {
    "install.md": (*WITH_HELM, *WITHOUT_HELM, *SINGLE_NAMESPACE, *SINGLE_NAMESPACE_WITH_HELM),
    "gitops.md": ("kubectl scale", "trafficsim stop", "kubectl wait", "trafficsim rerun", "kubectl get tsim shop"),
    "troubleshooting.md": (
        "kubectl get tsim shop -o wide",
        "trafficsim get shop",
        "kubectl get tsim shop -o jsonpath",
        "kubectl get events",
        "kubectl get pods",
        "kubectl describe pods",
        "kubectl get resourcequota",
        "kubectl -n trafficsim get deployment,pods,lease",
    ),
}

# tests/component/test_first_simulation.py
ON_THIS_MACHINE: Final = {
    "first-simulation.md": (
        ".venv/bin/python -m trafficsim_runner.demo",
        "trafficsim validate",
        "trafficsim plan",
        "trafficsim run",
    ),
}

# Page → first words → the test on a node.
ON_A_NODE: Final = {
    "install.md": {"helm test": "tests/e2e/test_said.py::test_helm_tests_its_release"},
    "troubleshooting.md": {
        "helm test": "tests/e2e/test_said.py::test_helm_tests_its_release",
        "kubectl logs -l": "tests/e2e/test_said.py::test_runners_say_what_they_do",
        "kubectl -n trafficsim logs": "tests/e2e/test_said.py::test_the_operator_says_what_it_does",
    },
}
