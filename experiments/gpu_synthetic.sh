#!/usr/bin/env bash
# Figure 3 at the paper's size on one GPU: vectors of 1024 numbers, 20,000 training and 1,000 test questions, a corpus of
# 200,000, all six settings, AMER and Single-Query.
#
#   bash experiments/gpu_synthetic.sh    runs for at most $LIMIT seconds; call it again until it prints "done"
#
# Data, trainings and test results are kept in outputs/gpu_synthetic; a training resumes from its last checkpoint. The
# figure, its numbers and the log go to $OUT, by default docs/results/gpu_synthetic.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-docs/results/gpu_synthetic}
LIMIT=${LIMIT:-570}
DIM=${DIM:-1024}
NUM_TRAIN=${NUM_TRAIN:-20000}
NUM_TEST=${NUM_TEST:-1000}
CORPUS=${CORPUS:-200000}
CONFIG=${CONFIG:-configs/paper/synthetic_gpu.yaml}
WORK=${WORK:-outputs/gpu_synthetic}

export PYTHONPATH=. PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
mkdir -p "$OUT" "$WORK"
exec > >(tee -a "$WORK/log.txt") 2>&1
SECONDS=0
timeout --signal INT --kill-after 20 "$LIMIT" "$PYTHON" -m experiments.synthetic --settings single multi ood --parallel 3 \
    --dim "$DIM" --num_train "$NUM_TRAIN" --num_test "$NUM_TEST" --corpus_size "$CORPUS" --config "$CONFIG" --output "$WORK"
status=$?
echo "== $SECONDS s in this piece"
cp "$WORK/log.txt" "$OUT/"
if [ "$status" -ne 0 ]; then
    echo "== not done (status $status): call it again"
    exit "$status"
fi
cp "$WORK"/{results.json,figure3.png,training.png} "$OUT/"
echo "== done: $OUT"
