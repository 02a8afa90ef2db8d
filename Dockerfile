# The images of docker-compose.yml; docs/docker.md says what each layer costs.
#
#   gateway        the HTTP server
#   alone          the HTTP server with ONNX Runtime in its process, and the shipped models: no Triton
#   triton         Triton for CPUs, from the nvidia-pytriton wheel
#   triton-nvidia  NVIDIA's own Triton image, with this project's launcher and health check
#   export         checkpoints into the model repository (PyTorch)
#   loadtest       locust
#   models         the shipped model repository, for Kubernetes
#
# Packages come before code, so that a change of the code builds in seconds. They are installed in
# stages of their own, and only files whose hashes requirements/ knows; the images
# get neither pip's cache nor a compiler.

# The digest is that of all its platforms together. To build with another, or without a registry: PYTHON_IMAGE
# in the environment of `docker compose build`, or --build-arg.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.08-py3


FROM ${PYTHON_IMAGE} AS build
WORKDIR /opt/mixer-serving
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CACHE_DIR=/var/cache/pip


FROM build AS gateway-build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils >/dev/null
# `--build-arg TRACING=1` adds OpenTelemetry, HEIC=1 the reader of HEIC.
ARG TRACING=
ARG HEIC=
COPY requirements/locked/serve.txt requirements/locked/tracing.txt requirements/locked/heic.txt \
     requirements/locked/
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m venv --without-pip .venv \
    && pip --python .venv/bin/python install --quiet --require-hashes \
       -r requirements/locked/serve.txt ${TRACING:+-r requirements/locked/tracing.txt} \
       ${HEIC:+-r requirements/locked/heic.txt} \
    # Tests, type stubs and sources of compiled modules are of no use to a server.
    && find .venv \( -type d -name tests -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \
       -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -prune -exec rm -rf {} + \
    # Debugging symbols are half of uvloop and nearly all of what tritonclient brings.
    && find .venv -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +


FROM build AS triton-build
COPY requirements/locked/triton.txt requirements/locked/
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m venv --without-pip .venv-triton \
    && pip --python .venv-triton/bin/python install --quiet --require-hashes --no-deps \
       -r requirements/locked/triton.txt \
    # Of the wheel only the server is used, with the stub of this Python; the stubs of others, the
    # library of Python 3.13 that one of them needs, and onnxruntime's tools stay behind.
    && cd .venv-triton/lib/python3.11/site-packages \
    && find pytriton -mindepth 1 -maxdepth 1 ! -name tritonserver -exec rm -rf {} + \
    && find pytriton/tritonserver/python_backend_stubs -mindepth 1 -maxdepth 1 ! -name 3.11 \
       -exec rm -rf {} + \
    && rm -rf nvidia_pytriton.libs/libpython3-*.13.so* \
       onnxruntime/tools onnxruntime/transformers onnxruntime/quantization \
    # Of OpenVINO what computes ONNX graphs on CPUs.
       openvino/include openvino/tools \
       openvino/libs/cache.json openvino/libs/libopenvino_*_[gn]pu_plugin.so \
    && find . \( -type d -name tests -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \
       -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -prune -exec rm -rf {} +


FROM build AS export-build
# The CPU build of PyTorch, which PyPI does not have: there torch brings gigabytes of CUDA.
ARG TORCH_WHEELS=https://download.pytorch.org/whl/cpu/torch/
# For a mirror without TLS; pip reads it.
ARG PIP_TRUSTED_HOST
COPY requirements/torch-cpu.txt requirements/
COPY requirements/locked/export.txt requirements/locked/
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m venv --without-pip .venv \
    && pip --python .venv/bin/python install --quiet --require-hashes -r requirements/locked/export.txt \
    && pip --python .venv/bin/python install --quiet --require-hashes --no-deps \
       --find-links "${TORCH_WHEELS}" -r requirements/torch-cpu.txt \
    && find .venv \( -type d -name tests -o -name '*.pyi' -o -name '*.a' \) -prune -exec rm -rf {} + \
    && rm -rf .venv/lib/python3.11/site-packages/torch/include


FROM build AS loadtest-build
COPY requirements/locked/loadtest.txt requirements/locked/
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m venv --without-pip .venv \
    && pip --python .venv/bin/python install --quiet --require-hashes -r requirements/locked/loadtest.txt


FROM ${PYTHON_IMAGE} AS runtime
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Mixer Serving" \
      org.opencontainers.image.description="Image classifiers behind NVIDIA Triton and a FastAPI gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 mixer \
    && useradd --uid 10001 --gid mixer --no-create-home --home-dir /tmp --shell /usr/sbin/nologin mixer \
    && rm -f /var/log/faillog /var/log/lastlog \
    # Nothing is installed into a server: what the base has for that only brings holes to close.
    && python3 -m pip uninstall --quiet --yes --root-user-action ignore pip setuptools wheel
WORKDIR /opt/mixer-serving
ENV HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
USER mixer


FROM runtime AS triton
COPY --from=triton-build /opt/mixer-serving/.venv-triton .venv-triton
COPY deploy/triton/health.py ./
COPY contracts contracts
COPY server server
EXPOSE 8001 8002 8003
# gRPC, metrics and status listen on every network of the container: let only the gateway and
# Prometheus reach them.
CMD [".venv-triton/bin/python", "-m", "server.triton_alone", "--repository", "/models", "--address", "0.0.0.0", "--status-port", "8003"]
HEALTHCHECK --interval=5s --timeout=30s --start-period=60s --retries=3 \
    CMD ["python3", "-I", "-S", "health.py", "--end-after", "3"]


FROM ${TRITON_IMAGE} AS triton-nvidia
USER root
COPY deploy/__init__.py /opt/mixer-serving/deploy/
COPY deploy/triton /opt/mixer-serving/deploy/triton
# What both launchers share. It needs Python's own library alone: this image has none of this
# project's packages, and so no psutil, which server/local_triton/stubs.py would need.
COPY contracts/__init__.py contracts/probing.py contracts/repository.py /opt/mixer-serving/contracts/
COPY server/__init__.py /opt/mixer-serving/server/
COPY server/host/__init__.py server/host/crash_loop.py server/host/processes.py /opt/mixer-serving/server/host/
COPY server/local_triton/*.py /opt/mixer-serving/server/local_triton/
COPY server/observability/__init__.py server/observability/logs.py /opt/mixer-serving/server/observability/
RUN mkdir /engines && chown 1000:1000 /engines
WORKDIR /opt/mixer-serving
# The image's own triton-server.
USER 1000:1000
ENV HOME=/tmp ORT_DISABLE_TELEMETRY=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8001 8002 8003
CMD ["python3", "-m", "deploy.triton.nvidia", "--repository", "/models", "--status-port", "8003"]
HEALTHCHECK --interval=5s --timeout=30s --start-period=300s --retries=3 \
    CMD ["python3", "-I", "-S", "deploy/triton/health.py", "--end-after", "3"]


FROM runtime AS export
COPY --from=export-build /opt/mixer-serving/.venv .venv
# The volume of downloaded weights gets its rights from here, for whichever user writes there.
USER root
RUN mkdir --mode=1777 /cache
USER mixer
COPY contracts contracts
COPY export export
ENTRYPOINT [".venv/bin/python", "-m", "export", "--repository", "/models"]
CMD ["--help"]


# The shipped models, for a first installation on Kubernetes; yours is made like it.
FROM runtime AS models
COPY model_repository /model_repository


FROM runtime AS loadtest
COPY --from=loadtest-build /opt/mixer-serving/.venv .venv
COPY contracts contracts
COPY loadtest loadtest
ENV PYTHONPATH=/opt/mixer-serving
EXPOSE 8089
ENTRYPOINT [".venv/bin/locust", "-f", "loadtest/locustfile.py"]
CMD ["--host", "http://gateway:8000"]


# The smallest thing that answers: `docker run --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 IMAGE`.
FROM build AS alone-build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils >/dev/null
COPY requirements/locked/serve.txt requirements/locked/onnxruntime.txt requirements/locked/
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m venv --without-pip .venv \
    && pip --python .venv/bin/python install --quiet --require-hashes \
       -r requirements/locked/serve.txt -r requirements/locked/onnxruntime.txt \
    && cd .venv/lib/python3.11/site-packages \
    && rm -rf onnxruntime/tools onnxruntime/transformers onnxruntime/quantization \
    && find . \( -type d -name tests -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' \
       -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -prune -exec rm -rf {} + \
    && find . -name '*.so' ! -path '*.libs/*' -exec strip --strip-unneeded {} +


FROM runtime AS alone
COPY --from=alone-build /opt/mixer-serving/.venv .venv
COPY deploy/gateway/health.py deploy/gateway/check.py ./
COPY contracts contracts
COPY server server
COPY model_repository model_repository
ENV MIXER_HOST=0.0.0.0 MIXER_ENGINE=onnxruntime
EXPOSE 8000
ENTRYPOINT [".venv/bin/python", "-m", "server"]
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python3", "-I", "-S", "health.py"]


# The last one is what `docker build .` makes.
FROM runtime AS gateway
COPY --from=gateway-build /opt/mixer-serving/.venv .venv
COPY deploy/gateway/health.py deploy/gateway/check.py ./
COPY contracts contracts
COPY server server
ENV MIXER_HOST=0.0.0.0 MIXER_TRITON_URL=triton:8001
EXPOSE 8000
ENTRYPOINT [".venv/bin/python", "-m", "server"]
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python3", "-I", "-S", "health.py"]
