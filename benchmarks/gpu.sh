#!/bin/sh
# Measure what only a GPU can show, in steps of under ten minutes:
#
#     PUDISTILL_DATA=../shared/data benchmarks/gpu.sh [FOLDER]
#
# Each call measures rows that have no result in FOLDER/speed_gpu.json yet, until the ten minutes
# are over; call it again until it says that nothing is left. Results are all it keeps, so that the
# next call may be on another machine.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-benchmarks/results}
mkdir -p "$folder"
timeout 590 "${PYTHON:-python}" benchmarks/speed.py --kinds gpu --missing \
    --output "$folder/speed_gpu.json"
echo "Nothing is left to measure."
