#!/usr/bin/env bash
# The whole way, from a trained checkpoint to pictures: export it, run it on an image.
# assets/README.md says how the checkpoint and the image were made.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/demo
mkdir -p "$out"

dovit-export --ckpt assets/streets-tiny.safetensors --out "$out/engines"
dovit-run --engine "$out/engines" assets/street.png --out "$out" --overwrite --overlay --keep-maps
python examples/picture.py assets/street.png "$out" --out "$out/demo.png"

echo
echo "The pictures are in $out:"
find "$out" -name '*.png' | sort | sed 's/^/  /'
