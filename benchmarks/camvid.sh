#!/usr/bin/env bash
# Token pass on real photographs: from a Hugging Face folder of a DINOv2 backbone and CamVid to every number about it in docs/results.md.
#   bash benchmarks/camvid.sh DATA BACKBONE OUT [--quick] [--seeds 0,1,2]     # an interrupted run goes on where it was
# DATA: images/ and labels/ with train/ and val/, as docs/training.md has it. --quick: a few steps of everything, to see that it works.
# CamVid is CC BY-NC 4.0: neither its images nor weights trained on them may be published with this project.
set -euo pipefail
[ $# -ge 3 ] || {
    echo "give the data, the backbone and a folder for the runs" >&2
    exit 2
}
data=$(realpath "$1") backbone=$(realpath "$2") out=$3
shift 3
first=400 again=300 heads=300 seeds="0 1 2" limit=()
while [ $# -gt 0 ]; do
    case $1 in
        --quick) first=6 again=4 heads=4 seeds=0 limit=(--limit 8) ;;
        --seeds)
            seeds=${2//,/ }
            shift
            ;;
        *)
            echo "unknown option $1" >&2
            exit 2
            ;;
    esac
    shift
done
mkdir -p "$out"
cd "$out"

# 768 tokens an image; bf16, which is slower than float32 on a CPU without instructions for it
common=(--data "$data" --image-size 336x448 --batch 4 --optimizer adamw --lr 0.0001 --head-lr-mult 10 --precision bf16
    --scale-range 0.75,1.5 --label-stride 2 --val none --log-every 20 --save-every 50)
student=(--ckpt dense/model.safetensors --threshold 0.95)
thresholds=0.8,0.9,0.95,0.97,0.98,0.99,0.995,1.0

train() { # name, further arguments
    local name=$1 start=$SECONDS
    shift
    [ -e "$name/model.safetensors" ] && return
    local resume=()
    [ -e "$name/last.pt" ] && resume=(--resume)
    [ ${#resume[@]} -gt 0 ] || rm -rf "$name"
    dovit-train --out "$name" "${resume[@]}" "${common[@]}" "$@"
    echo "$name: $((SECONDS - start)) s"
}

evaluate() { # name of the report, further arguments
    local name=$1
    shift
    [ -e "$name.json" ] || dovit-eval --data "$data" --split val --out "$name.json" "${limit[@]}" "$@"
}

sweep() { # name of a run with decision heads, further arguments
    local name=$1
    shift
    [ -e "engines-$name/bundle.json" ] || dovit-export --ckpt "$name/model.safetensors" --out "engines-$name" --backend onnxruntime
    evaluate "$name" --engine "engines-$name" --sweep $thresholds "$@"
}

train dense --ckpt "$backbone" --arch segmenter-linear --dense --steps $first --warmup 30
evaluate dense --ckpt dense/model.safetensors
for seed in $seeds; do
    # the control: as many further steps as DoViT gets, but dense
    train "control-$seed" --ckpt dense/model.safetensors --dense --steps $again --warmup 10 --seed "$seed"
    evaluate "control-$seed" --ckpt "control-$seed/model.safetensors"
    train "dovit-$seed" "${student[@]}" --steps $again --warmup 10 --seed "$seed"
    sweep "dovit-$seed" --fixed-ratio --plot "dovit-$seed.png" --per-image "images-$seed.jsonl"
    train "heads-$seed" "${student[@]}" --heads-only --steps $heads --lr 0.001 --head-lr-mult 1 --seed "$seed"
    sweep "heads-$seed"
    # Table 3: the paper's parts one by one; both together are dovit-SEED
    train "nothing-$seed" "${student[@]}" --steps $again --warmup 10 --seed "$seed" --no-merge --beta 0
    evaluate "nothing-$seed" --ckpt "nothing-$seed/model.safetensors"
    train "merging-$seed" "${student[@]}" --steps $again --warmup 10 --seed "$seed" --beta 0
    evaluate "merging-$seed" --ckpt "merging-$seed/model.safetensors"
    train "dynamicvit-$seed" "${student[@]}" --steps $again --warmup 10 --seed "$seed" --policy dynamicvit --ratio 0.7
    evaluate "dynamicvit-$seed" --ckpt "dynamicvit-$seed/model.safetensors"
done
