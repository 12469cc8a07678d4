"""A run that is killed again and again ends as one that was left alone."""

import random
import subprocess
import sys
import time

import pandas as pd
import pytest

N_KILLS = 20


def pudistill(folder, *args):
    return subprocess.Popen(
        [sys.executable, "-m", "pudistill", *args],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, err = process.communicate()
    assert process.returncode == 0, err


def result(run):
    """Everything that a run says, but for how long it took."""
    files = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    history = pd.read_csv(run / "history.csv").drop(columns="seconds")
    return files | {"labels": (run / "labels.csv").read_bytes(), "history": history.to_csv()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["default", "paper"])
def test_kills_at_random_moments_change_nothing(tmp_path, method):
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    rng = random.Random(seed)
    finish(
        pudistill(tmp_path, "corrupt", "digits", "--noise", "symmetric", "--output", "noisy.csv")
    )
    fit = ["fit", "noisy.csv", "--learner", "mlp", "--method", method]
    start = time.monotonic()
    finish(pudistill(tmp_path, *fit, "--output", "alone"))
    seconds = time.monotonic() - start

    process, n_kills = pudistill(tmp_path, *fit, "--output", "killed"), 0
    while n_kills < N_KILLS:
        try:
            process.wait(rng.uniform(0.05, 0.4) * seconds)
            break  # it was faster than the next kill
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            n_kills += 1
        begun = (tmp_path / "killed" / "run.json").exists()
        again = ["resume", "killed"] if begun else [*fit, "--output", "killed"]
        process = pudistill(tmp_path, *again)
    finish(process)
    print(f"{n_kills} kills in a run of {seconds:.0f} s")
    assert n_kills >= 5
    assert result(tmp_path / "killed") == result(tmp_path / "alone")
