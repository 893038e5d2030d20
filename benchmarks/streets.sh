#!/usr/bin/env bash
# Makes assets/streets-tiny.safetensors and every number about it in docs/results/streets.md, from nothing, on two CPU cores:
# the dense teacher, its control, DoViT from it, the sweep of ξ, the ablation of the paper's Table 3, and DynamicViT as in its Table 1.
#   bash benchmarks/streets.sh FOLDER     # an interrupted run goes on where it was
set -euo pipefail
case " $* " in *" --help "* | *" -h "*)
    sed -n '2,/^[^#]/s/^# //p' "$0"
    exit
    ;;
esac
out=${1:?give a folder for the runs}
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
cd "$out"

common=(--batch 8 --optimizer adamw --weight-decay 0.01 --clip 1 --label-stride 4
    --scale-range 0.75,1.5 --val none --log-every 20 --save-every 200)
data=streets:3400
held_out=streets:200 # scenes 1,000,000 … 1,000,199

train() { # name, further arguments
    local name=$1
    shift
    [ -e "$name/model.safetensors" ] && return
    local start=$SECONDS resume=()
    [ -e "$name/last.pt" ] && resume=(--resume)
    [ ${#resume[@]} -gt 0 ] || rm -rf "$name"
    dovit-train --data "$data" --out "$name" "${resume[@]}" "${common[@]}" "$@"
    echo "$name: $((SECONDS - start)) s"
}

measure() { # name, model, further arguments
    local name=$1 model=$2
    shift 2
    [ -e "$name.json" ] && return
    dovit-eval --ckpt "$model/model.safetensors" --data "$held_out" --out "$name.json" "$@"
}

again=(--lr 0.0007 --warmup 50 --steps 2400)
teacher=(--ckpt dense/model.safetensors --fp16-weights)
student=("${teacher[@]}" --threshold 0.9 --no-head-norm) # the model that is committed has such heads

train dense-first --new "$here/assets/streets-tiny.json" --dense --steps 4400 --lr 0.001 --warmup 300
train dense --ckpt dense-first/model.safetensors --dense "${again[@]}" # the teacher
measure dense dense
train dovit "${student[@]}" "${again[@]}"
dovit-export --ckpt dovit/model.safetensors --out engines
[ -e sweep.json ] || dovit-eval --engine engines --data "$held_out" --out sweep.json \
    --plot sweep.png --per-image images.jsonl --fixed-ratio \
    --sweep 0.7,0.8,0.85,0.88,0.9,0.92,0.94,0.96,0.97,0.98,0.985,0.99,1.0
# the control: the teacher with the same further steps as DoViT got, but dense
train dense-longer --ckpt dense/model.safetensors --dense "${again[@]}"
measure dense-longer dense-longer

short=(--lr 0.0007 --warmup 50 --steps 1000)
for seed in 0 1; do # Table 3
    train "nothing-$seed" "${student[@]}" "${short[@]}" --seed $seed --no-merge --beta 0
    train "merging-$seed" "${student[@]}" "${short[@]}" --seed $seed --beta 0
    train "both-$seed" "${student[@]}" "${short[@]}" --seed $seed
    for row in nothing merging both; do
        measure "$row-$seed" "$row-$seed"
    done
done
for ratio in 0.6 0.85 0.9; do # Table 1, and about the MACs of DoViT
    train "dynamicvit-$ratio" "${teacher[@]}" "${short[@]}" --policy dynamicvit --ratio $ratio
    measure "dynamicvit-$ratio" "dynamicvit-$ratio"
done
