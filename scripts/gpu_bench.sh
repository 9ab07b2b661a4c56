#!/usr/bin/env bash
# Runs every benchmark on one GPU in less than eight minutes. The decoder has random weights and the size of
# Llama-3.2-1B. Settings: m = 5, questions of 40 tokens (22 of them the prompt), batches of 128 and 512, and 25 million
# documents of 1536 values in GPU memory. It needs `pip install amer` and no network. It measures FAISS if FAISS was
# built for GPUs, and flash attention if it is installed; otherwise it prints that it skips them.
#
#   bash scripts/gpu_bench.sh        writes JSON and log.txt to $OUT (default: docs/results/gpu)
#
# At batch 512 the reference's activations do not fit into memory. The script therefore measures the reference at 128
# and compares questions per second. The reference encodes 32 questions, one at a time; AMER encodes 4096. Environment
# variables override all sizes below, for example to try the script on a CPU.
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
FAISS_ROWS=${FAISS_ROWS:-1000000}
REPEATS=${REPEATS:-3}
SLACK=${SLACK:-1}  # factor on the time limits below, for machines slower than a GPU

export PYTHONPATH=. PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
mkdir -p "$OUT"
exec > >(tee "$OUT/log.txt") 2>&1
failed=()

# part NAME SECONDS SCRIPT [ARGUMENT ...]: run one benchmark, and continue even if it fails.
part() {
    local name=$1 seconds=$2 script=$3
    shift 3
    echo "== $name (at most $seconds s)"
    SECONDS=0
    timeout "$((seconds * SLACK))" "$PYTHON" "benchmarks/$script" --device "$DEVICE" --repeats "$REPEATS" --output "$OUT/$name.json" \
        "$@" || failed+=("$name")
    echo "== $name: $SECONDS s"
}

# has PYTHON_CONDITION: whether the condition holds on this machine.
has() { "$PYTHON" -c "import sys; sys.exit(not ($1))" 2>/dev/null; }

decoder=(--model "$MODEL" --dim "$DIM" --length 40 --prefix 22 --num_query_vectors 5 --reference_repeats "$REPEATS")
half=(--dtype "$DTYPE" --autocast)
read -ra batches <<<"$BATCHES"
read -ra candidates <<<"$CANDIDATES"
few=(--inputs prompted --questions "$QUESTIONS" --batches "${batches[-1]}" --reference_questions "$REFERENCE_QUESTIONS")

part training 110 training.py "${decoder[@]}" "${half[@]}" --batches "${batches[@]}" --reference_batch "$REFERENCE_BATCH" \
    --variants plain checkpointing
part encoding 70 encoding.py "${decoder[@]}" "${half[@]}" --questions "$QUESTIONS" --batches "${batches[@]}" \
    --reference_questions "$REFERENCE_QUESTIONS"
part float32 40 encoding.py "${decoder[@]}" "${few[@]}"
part eager 40 encoding.py "${decoder[@]}" "${half[@]}" "${few[@]}" --attention eager
if has "__import__('flash_attn')"; then
    part flash 40 encoding.py "${decoder[@]}" "${half[@]}" "${few[@]}" --attention flash_attention_2
else
    echo "== flash: skipped, flash-attn is not installed"
fi
part matching 20 matching.py --batches 8 "${batches[@]}"
part loss 25 loss.py --batch "$REFERENCE_BATCH" --dim "$DIM" --candidates "${candidates[@]}"
part search 80 search.py --rows "$ROWS" --dim "$DIM" --queries "$SEARCHED" --vectors 5
if has "__import__('faiss').get_num_gpus()"; then
    part faiss 30 search.py --rows "$FAISS_ROWS" --dim "$DIM" --queries "$SEARCHED" --vectors 5 --faiss
else
    echo "== faiss: skipped, FAISS is not installed here with GPUs"
fi
part compiled 60 training.py "${decoder[@]}" "${half[@]}" --batches "$REFERENCE_BATCH" --inputs prompted \
    --variants plain compiled

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
