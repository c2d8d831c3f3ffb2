#!/usr/bin/env bash
# Everything that this project wants to know of a CUDA GPU, in parts of at most nine minutes:
#
#   benchmarks/gpu/run.sh check    updates as CUDA graphs against the same ones run eagerly, over 200 updates
#   benchmarks/gpu/run.sh step     `policy-accel benchmark step` for the nets of docs/explanation/speed.md
#   benchmarks/gpu/run.sh ways     some of them in float32, TF32 and bf16, compiled or not, images channels first or last
#   benchmarks/gpu/run.sh train    Push-T trained on demonstrations (DATA=PATH for your own), and scored
#
# The machine needs Python with torch (CUDA), numpy, scipy and safetensors, and no installation of policy_accel. What else
# is imported is pure Python; `benchmarks/gpu/run.sh carry` copies it into benchmarks/gpu/carried from a machine where
# `make setup` has run, with the demonstrations as NPZ. Take the checkout with that folder. JSON goes to OUT (gpu_results).
set -euo pipefail
part=${1:-}
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
[ "$part" = carry ] && [ -z "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ] && python=$root/.venv/bin/python
case $part in
    carry | check | step | ways | train) ;;
    *) echo "run.sh: say carry, check, step, ways or train" >&2; exit 2 ;;
esac
# The package as an installation would lay it out.
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
mkdir "$packages/policy_accel"
ln -s "$root"/policy_accel/* "$root"/{configs,datasets,envs} "$packages/policy_accel/"
export PYTHONPATH="$packages:$root/benchmarks/gpu/carried${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
export CUBLAS_WORKSPACE_CONFIG=:4096:8  # sums in the same order each time
timeout --signal=INT 540 "$python" "$root/benchmarks/gpu/parts.py" "$part" --output "${OUT:-gpu_results}" ${DATA:+--data "$DATA"}
