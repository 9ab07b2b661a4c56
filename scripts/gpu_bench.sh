#!/usr/bin/env bash
# Every benchmark on one GPU, in less than ten minutes: a decoder of the size of Llama-3.2-1B with random weights, m = 5,
# questions of 40 tokens (22 of them the prompt), batches of 128 and 512; 25 million documents of 1536 in GPU memory.
# It needs torch, transformers, peft, accelerate, scipy and lazy-loader, and no network.
#
#   bash scripts/gpu_bench.sh        writes JSON and log.txt to $OUT, or to docs/results/gpu
#
# At batch 512 the reference's activations do not fit: it is measured at 128 and compared by questions a second. It
# encodes 32 questions, one at a time, against our 4096. Any size below can be set from outside, say to try it on a CPU.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-docs/results/gpu}
DEVICE=${DEVICE:-cuda}
MODEL=${MODEL:-llama-1b}
DTYPE=${DTYPE:-bfloat16}
DIM=${DIM:-1536}
BATCHES=${BATCHES:-128 512}
REFERENCE_BATCH=${REFERENCE_BATCH:-128}
QUESTIONS=${QUESTIONS:-4096}
REFERENCE_QUESTIONS=${REFERENCE_QUESTIONS:-32}
CANDIDATES=${CANDIDATES:-10000 100000}
ROWS=${ROWS:-25000000}
SEARCHED=${SEARCHED:-531}

export PYTHONPATH=. PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
mkdir -p "$OUT"
exec > >(tee "$OUT/log.txt") 2>&1
failed=()

# part NAME SECONDS SCRIPT [ARGUMENT ...]: run one benchmark, and go on whatever comes of it.
part() {
    local name=$1 seconds=$2 script=$3
    shift 3
    echo "== $name (at most $seconds s)"
    SECONDS=0
    timeout "$seconds" "$PYTHON" "benchmarks/$script" --device "$DEVICE" --output "$OUT/$name.json" "$@" || failed+=("$name")
    echo "== $name: $SECONDS s"
}

decoder=(--model "$MODEL" --dtype "$DTYPE" --dim "$DIM" --length 40 --prefix 22 --num_query_vectors 5
    --autocast --reference_repeats 3)
# shellcheck disable=SC2086  # the lists of sizes are to be split
{
    part training 170 training.py "${decoder[@]}" --batches $BATCHES --reference_batch "$REFERENCE_BATCH" \
        --variants plain checkpointing
    part encoding 100 encoding.py "${decoder[@]}" --questions "$QUESTIONS" --batches $BATCHES \
        --reference_questions "$REFERENCE_QUESTIONS"
    part matching 40 matching.py --batches 8 $BATCHES
    part loss 40 loss.py --batch "$REFERENCE_BATCH" --dim "$DIM" --candidates $CANDIDATES
    part search 110 search.py --rows "$ROWS" --dim "$DIM" --queries "$SEARCHED" --vectors 5
    part compiled 120 training.py "${decoder[@]}" --batches "$REFERENCE_BATCH" --inputs prompted \
        --variants plain compiled
}

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
