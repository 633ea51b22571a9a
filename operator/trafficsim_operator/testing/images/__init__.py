"""
The images of the checkout, built for the tests as they are built for a cluster: from the Dockerfile at its top.

    images = build(("runner",))
    subprocess.run(["ctr", "-n", "k8s.io", "images", "import", images["runner"].archive])

`make image` is `python -m trafficsim_operator.testing.images`. What is built is kept in the cache as `docker-archive`
files, by a digest of what went in: where nothing has changed, nothing is done. Needs docker, podman or buildah; the
last is installed where it may be (root on Debian). Where the public base image cannot be pulled, one is made of Debian
packages. The images are run from their archives by runc, as a node would: `archive`, `container`.
"""

from trafficsim_operator.testing.images.building import TARGETS, Image, build

__all__ = ["TARGETS", "Image", "build"]
