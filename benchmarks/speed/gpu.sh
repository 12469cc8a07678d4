#!/bin/sh
# Measure the rows that need a GPU, in steps of under ten minutes:
#
#     PUDISTILL_DATA=../shared/data benchmarks/speed/gpu.sh [FOLDER]
#
# Each call measures rows that have no result in FOLDER/speed_gpu.json, for at most ten minutes. Call
# it again until it says that nothing is left. It keeps only the results, so the next call can run
# on another machine. Rows that show the most come first: they are meant to fit fifteen minutes of
# one H200.
#
# PUDISTILL_TEXT_MODEL names the folder of all-MiniLM-L6-v2 where the hub cannot be reached.
# PUDISTILL_PICTURES=300 tries the rows on a CPU, with so many pictures or texts and few epochs.
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-benchmarks/results}
mkdir -p "$folder"
timeout 590 "${PYTHON:-python}" -m benchmarks.speed --kinds gpu --missing \
    ${PUDISTILL_PICTURES:+--pictures "$PUDISTILL_PICTURES"} --output "$folder/speed_gpu.json"
echo "Nothing is left to measure."
