#!/usr/bin/env bash
# The whole way, from nothing to pictures: make a small checkpoint, export it, run it on an image.
# The checkpoint is fitted in a minute to simple scenes: enough for labels that make sense and for easy tokens that stop.
set -euo pipefail
cd "$(dirname "$0")/.."

out=build/demo
mkdir -p "$out"

python examples/make_checkpoint.py --out "$out/model.pth"
dovit-export --ckpt "$out/model.pth" --out engines/
dovit-run --engine engines/ assets/street.png --out "$out" --overlay --keep-maps
python examples/picture.py assets/street.png "$out" --out "$out/demo.png"

echo
echo "The pictures are in $out:"
find "$out" -name '*.png' | sort | sed 's/^/  /'
