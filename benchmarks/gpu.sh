#!/usr/bin/env bash
# All that only a GPU can show, in one run: builds the library where cmake is, else takes the one in build/release; runs the tests for a GPU,
# the plugins inside a captured graph, those once more under compute-sanitizer, and the timings. Needs python3 with numpy, onnx, onnxruntime,
# pydantic, pytest, rich, torch and typer; nothing has to be installed of dovit itself.
#   bash benchmarks/gpu.sh FOLDER                    # logs and JSON go there; exit status 1 where something failed
#   bash benchmarks/gpu.sh FOLDER tests kernels chain    # or some of these parts, where a machine is lent by the minute
set -uo pipefail
out=${1:?give a folder for the results}
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out"
out=$(cd "$out" && pwd)
parts=" ${*:2} "
[ $# -gt 1 ] || parts=" tests kernels chain "
failed=()

step() { # name, command…
    local name=$1
    shift
    echo "== $name"
    "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
    tail -n 3 "$out/$name.log"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/gpu.csv" || exit 1
if command -v cmake >/dev/null && command -v nvcc >/dev/null; then
    step build bash -c 'cmake --preset release && cmake --build --preset release'
fi
library=build/release/plugins/libdovit_plugins.so
[ -e "$library" ] || { echo "no $library: build it with cmake --preset release && cmake --build --preset release"; exit 1; }

# the package as an install would have it, but of links
site=build/gpu/site
rm -rf "$site" && mkdir -p "$site/dovit"
for part in benchmarks engines export plugins runtime training; do
    cp -rs "$PWD/$part" "$site/dovit/$part"
done
cp "$library" "$site/dovit/plugins/"
python3 - "$site/dovit/__init__.py" <<'PYTHON'
import string, sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
template = project["tool"]["scikit-build"]["generate"][0]["template"]
open(sys.argv[1], "w").write(string.Template(template).safe_substitute(version=project["project"]["version"]))
PYTHON
export PYTHONPATH="$PWD/$site:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"

if [[ $parts == *" tests "* ]]; then
    # what cannot be imported here fails by itself, and does not keep the others from running
    step tests python3 -m pytest -m gpu -q --continue-on-collection-errors -o addopts=--import-mode=importlib -p no:cacheprovider tests
    captured=build/release/tests/plugins/interface/plugins_captured
    if [ -e "$captured" ]; then
        step captured "$captured" "$library"
        for tool in memcheck racecheck initcheck synccheck; do
            step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "$captured" "$library"
        done
    fi
fi
if [[ $parts == *" kernels "* ]]; then
    step kernels python3 -m dovit.benchmarks.kernels --out "$out/kernels.json"
fi
if [[ $parts == *" chain "* ]]; then
    contest() { # name, arguments…
        step "chain-$1" python3 -m dovit.benchmarks.gpu_chain "${@:2}" --out "$out/chain-$1.json"
    }
    contest street --ckpt assets/streets-tiny.safetensors --image assets/street.png
    if python3 -c 'import tensorrt_rtx' 2>/dev/null; then
        step export-rtx python3 -c 'from dovit.export.cli import main; main()' --ckpt assets/streets-tiny.safetensors \
            --out build/gpu/engines --backend tensorrt-rtx --precision fp16
        contest rtx-street --backend tensorrt-rtx --engine build/gpu/engines --ckpt assets/streets-tiny.safetensors \
            --image assets/street.png
    fi
    for precision in fp16 bf16; do
        for model in vit-l vit-b; do
            contest "$model-1024-$precision" --model "$model" --size 1024x2048 --precision "$precision" --rounds 50 --images 10
            contest "$model-512-$precision" --model "$model" --size 512x512 --precision "$precision"
        done
    done
fi

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]} (see $out)"
    exit 1
fi
echo "all passed: $out"
