#!/bin/sh
# Measure the rows that need a GPU, in steps of under ten minutes:
#
#     PUDISTILL_DATA=../shared/data benchmarks/speed/gpu.sh [FOLDER]
#
# Each call measures rows that have no result in FOLDER/speed_gpu.json, for at most ten minutes. Call
# it again until it says that nothing is left. It keeps only the results, so the next call can run
# on another machine.
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-benchmarks/results}
mkdir -p "$folder"
timeout 590 "${PYTHON:-python}" -m benchmarks.speed --kinds gpu --missing \
    --output "$folder/speed_gpu.json"
echo "Nothing is left to measure."
