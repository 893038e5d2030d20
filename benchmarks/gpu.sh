#!/usr/bin/env bash
# Everything that needs a GPU: tests of the kernels and of the chain, the plugins in a captured graph and under compute-sanitizer, timings.
# Every part is a process of its own, takes at most nine minutes, and writes a JSON; parts that cannot run here give the reason.
#   bash benchmarks/gpu.sh FOLDER                    # all parts
#   bash benchmarks/gpu.sh FOLDER kernels segmented  # some of them; --help lists them
#   bash benchmarks/gpu.sh FOLDER --seconds 540      # a limit for all parts together
# Nothing of dovit has to be installed, and nothing is fetched where the packages that the machine lacks lie unpacked in
# DOVIT_GPU_SITE (default /tmp/gpu/site): TensorRT-RTX, cuda-core, cuda-bindings, pydantic, and TensorRT's headers.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
packages=${DOVIT_GPU_SITE:-/tmp/gpu/site}
if [ -d "$packages" ]; then
    case ":${PYTHONPATH:-}:" in *":$packages:"*) ;; *) export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}" ;; esac
    if [ -z "${TENSORRT_ROOT:-}" ]; then
        header=$(find "$packages" -name NvInferRuntime.h -print -quit)
        [ -z "$header" ] || export TENSORRT_ROOT="${header%/*}"
    fi
    export DOVIT_DOWNLOAD_HEADERS=OFF
fi
exec python3 benchmarks/gpu_parts.py "$@"
