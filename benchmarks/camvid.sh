#!/usr/bin/env bash
# Token pass on real photographs: from a Hugging Face folder of a DINOv2 backbone and CamVid to tables like those of docs/results/camvid.md.
#   bash benchmarks/camvid.sh DATA BACKBONE OUT [--quick] [--probe | --frozen] [--seeds 0,1,2] [--jobs 1] [--torch]
#       [--size 336x448] [--steps 400] [--rounds 3]
# An interrupted run goes on where it was.
# DATA: images/ and labels/ with train/ and val/, as docs/training.md has it. BACKBONE: python -m dovit.benchmarks.camvid_backbone
# makes the one of docs/results/camvid.md. --quick: a few steps of everything, to see that it works.
# --probe: instead of all that, what leaves the backbone as it is: a linear probe, adapted and then trained; two cores do it in two hours.
# --frozen: the paper's tables around a backbone that stays as it is, with a linear decoder on four layers, of images of 252×336 pixels.
# --jobs: so many runs at once, for a GPU with memory to spare. --torch: checkpoints are evaluated by torch, on a GPU if there is one,
# instead of as bundles on the CPU.
# --size: height and width of the images. --steps: so many in each round, behind the dense model's first 800. --rounds: so many of DoViT,
# and of its dense control.
# Needs dovit's extra training: pip install '.[training]' -c constraints.txt, which brings matplotlib for the plots too.
# CamVid is CC BY-NC 4.0: neither its images nor weights trained on them may be published with this project.
set -euo pipefail
case " $* " in *" --help "* | *" -h "*)
    sed -n '2,/^[^#]/s/^# //p' "$0"
    exit
    ;;
esac
wrong() { # sentence
    echo "$1" >&2
    exit 2
}
[ $# -ge 3 ] || wrong "give the data, the backbone and a folder for the runs; --help says more"
data=$(realpath "$1") backbone=$(realpath "$2") out=$3
shift 3
first=800 again= longest=1600 rounds=8 dovit_rounds=3 seeds="0 1 2" limit=() validation=() fit=() parallel=1 torch= probe= frozen= size= alone=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) first=6 again=4 longest=4 rounds=2 dovit_rounds=2 seeds=0 limit=(--limit 4) validation=(--val-limit 4) fit=(--limit 8 --steps 4 --joint-steps 2) ;;
        --seeds)
            [[ ${2:-} =~ ^[0-9]+(,[0-9]+)*$ ]] || wrong "--seeds ${2:-}: give numbers separated by commas, as 0,1,2"
            seeds=${2//,/ }
            shift
            ;;
        --jobs)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || wrong "--jobs ${2:-}: give a number of runs, as 2"
            parallel=$2
            shift
            ;;
        --size)
            [[ ${2:-} =~ ^[1-9][0-9]*x[1-9][0-9]*$ ]] || wrong "--size ${2:-}: give height and width, as 252x336"
            size=$2
            shift
            ;;
        --steps | --rounds)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || wrong "$1 ${2:-}: give a number, as 3"
            [ "$1" = --steps ] && again=$2 || dovit_rounds=$2 alone=$1
            shift
            ;;
        --torch) torch=1 ;;
        --probe) probe=1 ;;
        --frozen) frozen=1 ;;
        *) wrong "unknown option $1: --help lists those there are" ;;
    esac
    shift
done
[ -z "$probe" ] || [ -z "$frozen" ] || wrong "give --probe or --frozen, not both"
[ -z "$alone" ] || [ -z "$probe$frozen" ] || wrong "$alone: with --probe and --frozen there is one round: leave it out"
mkdir -p "$out"
cd "$out"

# 768 tokens an image, or 432; in bf16 where the machine multiplies in it, which is dovit-train's default
if [ -n "$frozen" ]; then usual_size=252x336 usual_steps=250; else usual_size=336x448 usual_steps=400; fi
size=${size:-$usual_size} again=${again:-$usual_steps} fixed=() decoder=()
prediction=(--head-lr-mult 10) # DynamicViT reaches 50.2 mIoU with it, and 36.2 with 100, as everything else has
labelled=(--freeze-backbone --lr 0.0003 --head-lr-mult 1) # around a frozen backbone, after it was adapted
[ -z "$frozen" ] || decoder=(--decoder-layers 3,6,9,12) fixed=(--freeze-backbone) prediction=() dovit_rounds=1
[ -z "$frozen" ] || labelled=("${fixed[@]}")
common=(--data "$data" --image-size $size --batch 4 --optimizer adamw --lr 0.00003 --head-lr-mult 100
    --scale-range 0.75,1.5 --label-stride 2 --log-every 20 --save-every 100)
further=(--val none --ckpt dense/model.safetensors --steps $again --warmup 10)
xi=(--threshold 0.95)
student=("${further[@]}" "${xi[@]}")
gently=(--lr 0.00003 --head-lr-mult 5)
longer=(--lr 0.00004 --head-lr-mult 1 --steps $longest)
thresholds=0.8,0.9,0.95,0.97,0.98,0.99,0.995,1.0
[ -z "$frozen" ] || thresholds=0.8,0.9,0.95,0.98,1.0
probe_thresholds=0.75/0.8/0.85/0.85,0.8/0.85/0.9/0.92,0.9/0.92/0.94/0.95,0.9/0.95/0.98/0.98,0.95/0.97/0.98/0.98,1.0
adapted_thresholds=0.85,0.9,0.9/0.91/0.92/0.935,0.9/0.92/0.94/0.95,0.9/0.95/0.98/0.98,0.9/0.97/0.99/0.99,0.95,0.97,0.98,1.0

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
    if [ -n "$torch" ]; then
        evaluate "$name" --ckpt "$name/model.safetensors" --sweep $thresholds "$@"
        return
    fi
    [ -e "engines-$name/bundle.json" ] || dovit-export --ckpt "$name/model.safetensors" --out "engines-$name" --backend onnxruntime
    evaluate "$name" --engine "engines-$name" --sweep $thresholds "$@"
}

run() { # a function with its arguments, as soon as fewer than --jobs run; one that fails ends the script
    while [ "$(jobs -rp | wc -l)" -ge "$parallel" ]; do wait -n; done
    "$@" &
}

wait_for_all() { # runs; one that fails ends the script
    while [ -n "$(jobs -rp)" ]; do wait -n; done
}

dense() { # name, further arguments
    train "$1" "${further[@]}" --dense "${@:2}"
    evaluate "$1" --ckpt "$1/model.safetensors"
}

improves() { # whether the second run has at least 0.3 mIoU more than the first
    python -c "
import json, sys
before, after = (json.load(open(f'{run}.json'))['settings'][0]['mIoU'] for run in sys.argv[1:])
sys.exit(after - before < 0.3)" "$1" "$2"
}

settle() { # the dense model trained on at a lower learning rate, until validation no longer improves
    local before=dense round
    for round in $(seq "$rounds"); do
        dense "settled_$round" --ckpt "$before/model.safetensors" --seed "$round" "${gently[@]}"
        ln -sfn "settled_$round" settled
        cp "settled_$round.json" settled.json
        improves "$before" "settled_$round" || break
        before=settled_$round
    done
}

trained() { # a row of Table 1 or 3, as it was trained: name, further arguments
    train "$1" "${further[@]}" "${fixed[@]}" "${@:2}"
    evaluate "$1" --ckpt "$1/model.safetensors"
}

of_round() { # run, round, seed: what it is called, without a number in the first round
    [ "$2" -eq 1 ] && echo "$1-$3" || echo "$1$2-$3"
}

dovit() { # round, seed: after the first from where the round before ended, with the control as teacher
    local name from=() details=()
    name=$(of_round dovit "$1" "$2")
    if [ "$1" -eq 1 ]; then
        details=(--fixed-ratio)
    else
        from=(--ckpt "$(of_round dovit $(($1 - 1)) "$2")/model.safetensors" --teacher "control-$2/model.safetensors")
    fi
    train "$name" "${student[@]}" "${fixed[@]}" "${from[@]}" --seed $((10 * ($1 - 1) + $2))
    [ "$1" -lt "$dovit_rounds" ] || details=(--fixed-ratio --stopped --plot "$name.png" --per-image "images-$2.jsonl")
    sweep "$name" "${details[@]}"
}

control() { # round, seed: dense, as many steps as DoViT
    local from=()
    [ "$1" -eq 1 ] || from=(--ckpt "$(of_round control $(($1 - 1)) "$2")/model.safetensors")
    dense "$(of_round control "$1" "$2")" "${fixed[@]}" "${from[@]}" --seed $((10 * ($1 - 1) + $2))
}

heads() { # name, further arguments
    train "$1" "${student[@]}" --heads-only "${@:2}"
    sweep "$1"
}

papers_rows() { # seed
    run dovit 1 "$1"
    run control 1 "$1"
    run heads "heads-$1" --seed "$1"
    run trained "dynamicvit-$1" --seed "$1" --policy dynamicvit --ratio 0.7 "${prediction[@]}"
    # Table 3: the paper's parts one by one; both together are dovit-SEED
    run trained "nothing-$1" "${xi[@]}" --seed "$1" --no-merge --beta 0
    run trained "merging-$1" "${xi[@]}" --seed "$1" --beta 0
}

adapt() { # name, dense run, further arguments: no labels, nothing of the dense model changed
    if [ ! -e "$1/model.safetensors" ]; then
        mkdir -p "$1"
        dovit-adapt --ckpt "$2/model.safetensors" --images "$data/images/train" --out "$1/model.safetensors" "${@:3}" "${fit[@]}"
    fi
    thresholds=$adapted_thresholds sweep "$1" --stopped
}

tuned() { # the adapted model, then trained with token pass and labels, for as many steps as `further`
    train "tuned-$1" "${further[@]}" --ckpt adapted_settled/model.safetensors "${longer[@]}" --threshold 0.9,0.92,0.94,0.95 \
        --alpha 0.05 --beta 0 --seed "$1"
    thresholds=$adapted_thresholds sweep "tuned-$1" --fixed-ratio --per-image "images-tuned-$1.jsonl"
}

around_a_frozen_backbone() { # seed
    local seed=$1
    adapted_thresholds=$probe_thresholds adapt "adapted-$seed" dense --limit 150 --steps 1000 --joint-steps 100 --seed "$seed"
    train "trained-$seed" "${further[@]}" "${labelled[@]}" --ckpt "adapted-$seed/model.safetensors" --seed "$seed" --alpha 0.05 --beta 0 \
        --threshold 0.8,0.85,0.9,0.92
    thresholds=$probe_thresholds sweep "trained-$seed"
}

takes_bf16() { # whether dovit-eval can compute in it here, with the provider that DOVIT_PROVIDER names if it is set
    dovit-run --list-backends --json | python -c "
import json, sys
sys.exit(not any(row['auto'] and 'bf16' in row['precisions'] for row in json.load(sys.stdin)['backends']))"
}

speed() { # of a DoViT, over the dense model, on the fastest provider of this CPU: only once nothing else runs
    [ ! -e speed.json ] || return 0
    local name=$1 precision=fp32
    takes_bf16 && precision=bf16
    [ -e "engines-$name/bundle.json" ] || dovit-export --ckpt "$name/model.safetensors" --out "engines-$name" --backend onnxruntime
    dovit-eval --data "$data" --split val --engine "engines-$name" --precision $precision --sweep $thresholds --fixed-ratio --dense \
        --plot speed.svg --out speed.json "${limit[@]}"
}

if [ -n "$probe" ]; then
    train dense --ckpt "$backbone" --arch segmenter-linear --dense --freeze-backbone --steps $first --warmup 30 \
        --val-every $((first / 4)) "${validation[@]}"
    evaluate dense --ckpt dense/model.safetensors
    for seed in $seeds; do run around_a_frozen_backbone "$seed"; done
    run dense control "${labelled[@]}"
    wait_for_all
    python -m dovit.benchmarks.camvid_tables . --json tables.json | tee tables.md
    exit
fi
train dense --ckpt "$backbone" --arch segmenter-linear "${decoder[@]}" "${fixed[@]}" --dense --steps $first --warmup 30 \
    --val-every $((first / 4)) "${validation[@]}"
evaluate dense --ckpt dense/model.safetensors
if [ -n "$frozen" ]; then
    for seed in $seeds; do
        papers_rows "$seed"
        run trained "cells-$seed" "${xi[@]}" --seed "$seed" --beta 0 --merge-cells 4
        run around_a_frozen_backbone "$seed"
    done
    run heads "plain-${seeds%% *}" --seed "${seeds%% *}" --no-head-norm
    wait_for_all
    python -m dovit.benchmarks.camvid_tables . --json tables.json | tee tables.md
    exit
fi
adapt adapted dense
settle
adapt adapted_settled settled
for seed in $seeds; do
    run tuned "$seed"
    # as many further steps as `tuned`, but dense, from where it begins and at its learning rate
    run dense "further-$seed" --ckpt settled/model.safetensors --seed "$seed" "${longer[@]}"
    papers_rows "$seed"
done
wait_for_all
for round in $(seq 2 "$dovit_rounds"); do
    for seed in $seeds; do
        run control "$round" "$seed"
        run dovit "$round" "$seed"
    done
    wait_for_all
done
speed "$(of_round dovit "$dovit_rounds" "${seeds%% *}")"
python -m dovit.benchmarks.camvid_tables . --json tables.json | tee tables.md
python -m dovit.benchmarks.camvid_figures . --seed "${seeds%% *}" --json blocks.json | tee blocks.md # and draws blocks.svg
