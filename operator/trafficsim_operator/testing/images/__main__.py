"""`make image`: build what has changed, and say of each image its size, how long it takes to start, and where it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trafficsim_operator.testing.images.archive import unpacked_size
from trafficsim_operator.testing.images.building import TARGETS, Image, build
from trafficsim_operator.testing.images.container import unpacked
from trafficsim_operator.testing.images.engine import Kind
from trafficsim_operator.testing.images.startup import start_s
from trafficsim_operator.testing.unavailable import Unavailable

_EXAMPLES = """\
examples:
  python -m trafficsim_operator.testing.images
  python -m trafficsim_operator.testing.images runner --base registry.example.com/python:3.11-slim-bookworm
  python -m trafficsim_operator.testing.images --engine buildah --ca /etc/ssl/certs/ca-certificates.crt

The archives are docker-archives: `docker load --input FILE`, `podman load --input FILE`, or on a node
`ctr -n k8s.io images import FILE`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and tell; return the exit code: 0, or 3 where images cannot be built."""
    parser = argparse.ArgumentParser(
        prog="python -m trafficsim_operator.testing.images", description="Build the images of this checkout.",
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: all)")
    parser.add_argument("--engine", choices=[*Kind], help="what builds (default: the first of them that works)")
    parser.add_argument("--base", default="", metavar="IMAGE", help="build on this image (default: the Dockerfile's)")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE",
        help="certificates the build trusts; in no image (default: PIP_CERT, else SSL_CERT_FILE)",
    )  # fmt: skip
    parser.add_argument("--no-start", action="store_true", help="don't measure how long they take to start")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no target {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    if options.ca is not None and not options.ca.is_file():
        parser.error(f"--ca {options.ca}: no such file")
    kind = None if options.engine is None else Kind(options.engine)
    try:
        images = build(options.targets or TARGETS, kind=kind, base=options.base, ca=options.ca)
    except Unavailable as error:
        print(f"unavailable: {error}", file=sys.stderr)
        return 3
    for image in images.values():
        print(_row(image, "" if options.no_start else _start(image)), flush=True)
    return 0


def _row(image: Image, start: str) -> str:
    megabytes = unpacked_size(image.archive) / 1e6
    return "\n".join(filter(None, (f"{image.name}  {megabytes:.0f} MB  {start}".rstrip(), f"    {image.archive}")))


def _start(image: Image) -> str:
    """Return how long *image* takes to start, measured once for each build; or why it is not known."""
    note = image.archive.with_suffix(".starts")
    if not note.exists():
        print(f"{image.target}: measuring its start", file=sys.stderr, flush=True)
        try:
            with unpacked(image.archive) as root:
                note.write_text(f"{start_s(root, image.target):.2f}")
        except Unavailable as error:
            return f"start not measured: {error}"
    return f"answers {note.read_text()} s after exec (median of 3, read-only root, runc)"


if __name__ == "__main__":
    sys.exit(main())
