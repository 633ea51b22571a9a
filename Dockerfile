# Images of trafficsim, one target each: `operator`, `runner`, and `demo`, the shop to put load on. See docs/images.md.
#
#   docker build --target runner --build-arg VERSION=0.1.0 --tag trafficsim/runner:0.1.0 .
#
# BASE is any Debian image with Python 3.11 as python3. The digest is that of the tag's index for all architectures.
ARG BASE=docker.io/library/python:3.11.16-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

FROM ${BASE} AS base
# The public image has its standard library without byte code, and a read-only root can't keep any: it would be compiled
# anew at each start.
RUN ["python3", "-c", "import compileall, re, sysconfig; \
    compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=1, workers=0, \
    rx=re.compile('/(ensurepip|idlelib|lib2to3|tkinter|turtledemo|test|tests|site-packages|dist-packages)/'))"]

FROM base AS builder
# What Debian's Python leaves to packages of its own, the public image brings along.
RUN apt-get update -qq && apt-get install -qq --no-install-recommends gcc libc6-dev >/dev/null \
    && if ! python3 -c 'import ensurepip' 2>/dev/null; then \
    apt-get install -qq --no-install-recommends python3-dev python3-venv >/dev/null; fi
COPY image/pip /usr/local/bin/build-pip
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY image/build.lock /image/
RUN --mount=type=secret,id=ca python3 -m venv /opt/build \
    && build-pip install --quiet --require-hashes --requirement /image/build.lock

FROM builder AS operator-packages
COPY image/operator.lock /image/
RUN --mount=type=secret,id=ca python3 -m venv --without-pip /opt/trafficsim \
    && build-pip --python /opt/trafficsim/bin/python install \
    --quiet --require-hashes --only-binary :all: --no-compile --requirement /image/operator.lock

FROM builder AS runner-packages
COPY image/runner.lock /image/
RUN --mount=type=secret,id=ca python3 -m venv --without-pip /opt/trafficsim \
    && build-pip --python /opt/trafficsim/bin/python install \
    --quiet --require-hashes --only-binary :all: --no-compile --requirement /image/runner.lock

# One wheel for all, with the runner's hot modules compiled.
FROM builder AS wheel
WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY tools/build_hook.py tools/
COPY crds crds
COPY operator operator
COPY runner runner
RUN TRAFFICSIM_COMPILE=1 /opt/build/bin/python -m hatchling build --target wheel --directory /wheel

# Byte code is taken as it is: no source is looked at to see whether it fits.
FROM operator-packages AS operator-built
COPY --from=wheel /wheel /wheel
RUN build-pip --python /opt/trafficsim/bin/python install --quiet --no-index --no-deps --no-compile /wheel/*.whl \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/trafficsim/lib

FROM runner-packages AS runner-built
COPY --from=wheel /wheel /wheel
RUN build-pip --python /opt/trafficsim/bin/python install --quiet --no-index --no-deps --no-compile /wheel/*.whl \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/trafficsim/lib

FROM base AS final
ENV PATH=/opt/trafficsim/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
# A number, so that `runAsNonRoot` can be checked without a look into the image.
USER 65532:65532
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.vendor="The trafficsim authors"

FROM final AS operator
LABEL org.opencontainers.image.title="trafficsim operator" \
    org.opencontainers.image.description="Serves TrafficSimulations in a Kubernetes cluster"
COPY --from=operator-built /opt/trafficsim /opt/trafficsim
EXPOSE 8080
ENTRYPOINT ["/opt/trafficsim/bin/python", "-P", "-m", "trafficsim_operator"]

FROM final AS runner
LABEL org.opencontainers.image.title="trafficsim runner" \
    org.opencontainers.image.description="Runs virtual users as the trafficsim operator assigns them"
# Where scenarios in Python are looked for.
ENV PYTHONPATH=/opt/scenarios
COPY --from=runner-built /opt/trafficsim /opt/trafficsim
EXPOSE 9646
ENTRYPOINT ["/opt/trafficsim/bin/python", "-P", "-m", "trafficsim_runner"]

FROM runner AS demo
LABEL org.opencontainers.image.title="trafficsim demo shop" \
    org.opencontainers.image.description="A small shop to put load on"
EXPOSE 8080
ENTRYPOINT ["/opt/trafficsim/bin/python", "-P", "-m", "trafficsim_runner.demo"]
CMD ["--listen", "0.0.0.0:8080"]
