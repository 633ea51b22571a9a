"""
Start, look at and end a whole Kubernetes node: `python -m trafficsim_operator.testing.node up|status|down`.

`build` only makes sure that its programs are there.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from trafficsim_operator.testing.node.cluster import Cluster
from trafficsim_operator.testing.node.place import Place
from trafficsim_operator.testing.node.programs import find, kubectl
from trafficsim_operator.testing.unavailable import Unavailable

_DOWN, _UNAVAILABLE = 1, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked for; exit code 1 says that there is no node that is up, 3 that there can't be one."""
    parser = argparse.ArgumentParser(prog="node", description="A whole Kubernetes node for tests.")
    parser.add_argument("verb", choices=["up", "status", "down", "build"])
    parser.add_argument("--name", default=Place().name, help="of several nodes on this machine (%(default)s)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupted)  # a start that is ended cleans up behind itself
    cluster = Cluster(Place(name=options.name))
    try:
        match options.verb:
            case "up":
                if not cluster.start():
                    print("it is up", file=sys.stderr)
                print(_entrance(cluster))
            case "down":
                cluster.stop()
            case "build":
                find()
            case _:
                return _status(cluster)
    except Unavailable as error:
        print(f"unavailable: {error}", file=sys.stderr)
        return _UNAVAILABLE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _status(cluster: Cluster) -> int:
    programs = cluster.status()
    for name, runs in programs.items():
        print(f"{name:24} {'runs' if runs else 'ended'}")
    if cluster.is_up():
        print(_entrance(cluster))
        return 0
    print("the node does not take pods" if programs else "no node")
    return _DOWN


def _entrance(cluster: Cluster) -> str:
    """Return how to reach the node, for a shell to evaluate."""
    return "\n".join(
        [
            f"export KUBECONFIG={cluster.kubeconfig}",
            f"# its addresses can be reached inside its network namespace: {' '.join(cluster.inside(['bash']))}",
            f"# its kubectl: {kubectl()}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
