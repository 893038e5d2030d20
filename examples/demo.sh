#!/usr/bin/env bash
# The whole way, from nothing to pictures: make a small checkpoint, export it, run it on an image.
# The weights are random, so the labels mean nothing; what it shows is which tokens stopped at which decision.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/demo
mkdir -p "$out"

python examples/make_checkpoint.py --out "$out/model.pth"
dovit-export --ckpt "$out/model.pth" --out engines/
dovit-run --engine engines/ assets/street.png --out "$out" --overlay --keep-maps

echo
echo "The pictures are in $out:"
find "$out" -name '*.png' | sort | sed 's/^/  /'
