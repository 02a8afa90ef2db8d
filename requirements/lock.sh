#!/bin/sh
# Writes requirements/locked/: for what is installed to serve, each package with its version and the
# hashes of its files, for every Python and system at once.
#
#     requirements/lock.sh [UV]
#
# In: the top-level names in requirements/*.txt, the versions in constraints.txt, and uv. PyTorch for
# CPUs has its own file, torch-cpu.txt, written by hand: it is a build that PyPI does not have.
set -eu
cd "$(dirname "$0")/.."
uv=${1:-uv}

compile() {
  name=$1
  shift
  "$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
    --no-emit-index-url --custom-compile-command 'make lock' \
    "requirements/$name.txt" --output-file "requirements/locked/$name.txt" "$@"
}

mkdir -p requirements/locked
for name in serve tracing heic onnxruntime loadtest; do
  compile "$name" --constraints requirements/constraints.txt
done
compile triton --no-deps

# What PyTorch for CPUs needs, without PyTorch and without CUDA.
cuda=$(mktemp)
trap 'rm -f "$cuda"' EXIT
printf '%s\n' cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
  nvidia-nvshmem-cu13 triton >"$cuda"
compile export --constraints requirements/constraints.txt --no-emit-package torch --excludes "$cuda"
