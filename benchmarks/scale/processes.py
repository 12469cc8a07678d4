"""Measure accuracy and time of networks trained by one process and by several together.

python -m benchmarks.scale.processes --data DATA --output benchmarks/results/processes.json

DATA holds fashion-mnist/. Each run is a `pudistill fit` on the CPU, with one thread per process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common.facts import RESULTS, add_data_option, facts
from pudistill.data.loading import load_dataset
from pudistill.data.writing import write_table
from pudistill.runs.inputs import with_noise
from pudistill.utils.files import write_atomic

NOISE, LEVEL, TRUSTED = "symmetric", 0.3, 0.05
FIT = ["-m", "pudistill", "fit", "train.npz", "--test-data", "test.npz", "--learner", "small_cnn"]
ENDS = {"event": "ends", "stage": "student epochs"}
METHOD = ["--method", "cross_entropy", "--no-compare"]


def write_data(source: str, n_pictures: int, folder: Path) -> None:
    """Write a noisy training set, and all test pictures."""
    pictures = load_dataset(source)
    rows = np.random.default_rng(0).permutation(len(pictures))[:n_pictures]
    write_table(
        with_noise(pictures.take(rows), NOISE, LEVEL, TRUSTED, seed=0), folder / "train.npz"
    )
    write_table(load_dataset(f"{source}/t10k-images-idx3-ubyte.gz"), folder / "test.npz")


def run(n_processes: int, seed: int, folder: Path) -> dict:
    """Fit once; return the test accuracy and the seconds of training alone."""
    output = folder / f"{n_processes}-{seed}"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(n_processes)]
    command = [sys.executable, *(launcher if n_processes > 1 else []), *FIT, *METHOD]
    subprocess.run(
        [*command, "--seed", str(seed), "--output", str(output)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    records = map(json.loads, (output / "log.jsonl").read_text().splitlines())
    (training,) = (record for record in records if ENDS.items() <= record.items())
    return {
        "processes": n_processes,
        "seed": seed,
        "accuracy": json.loads((output / "metrics.json").read_text())["test_accuracy"][METHOD[1]],
        "seconds": training["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data_option(parser)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "processes.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_data(str(options.data / "fashion-mnist"), options.pictures, Path(name))
        for seed in range(options.seeds):
            for n_processes in options.processes:
                rows.append(run(n_processes, seed, Path(name)))
                print(rows[-1], flush=True)
    print(pd.DataFrame(rows).groupby("processes")[["accuracy", "seconds"]].mean())
    result = {**facts(), "pictures": options.pictures, "rows": rows}
    write_atomic(options.output, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
