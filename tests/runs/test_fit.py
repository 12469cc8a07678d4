"""What `fit_run` does beyond the classifier's own `fit`."""

import numpy as np
import pandas as pd

from pudistill.data.encoding import TableEncoder
from pudistill.runs.fit import fit_run
from pudistill.runs.settings import Settings


def test_a_mixed_table_is_encoded_once(tmp_path, monkeypatch):
    calls = []
    for name in ("fit_transform", "transform"):
        original = getattr(TableEncoder, name)
        monkeypatch.setattr(
            TableEncoder, name, lambda *args, f=original, n=name: calls.append(n) or f(*args)
        )
    y = np.arange(60) % 2
    frame = pd.DataFrame({"label": y, "u": np.where(y == 0, "red", "blue"), "v": y + 0.1 * (y - 1)})
    frame.loc[[7, 11], ["u", "v"]] = None
    frame.assign(trusted=np.arange(60) % 5 == 0).to_csv(tmp_path / "data.csv", index=False)
    settings = {"data": str(tmp_path / "data.csv"), "n_members": 2, "max_iter": 1, "n_jobs": 1}
    run = fit_run(Settings.read(settings | {"compare": False}), tmp_path / "run")
    assert calls == ["fit_transform"]
    assert run.read_json("metrics.json")["seconds"].keys() == {"training"}
