"""Labels do not depend on where members are trained, nor on workers that are lost."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial

import numpy as np
import pytest
from joblib import delayed, parallel_config
from joblib.parallel import get_active_backend
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pudistill import TieredPUFilter
from pudistill.exceptions import InputError, RecoveredWarning
from pudistill.learners.cache import StageCache, cached, caching_in_worker
from pudistill.learners.parallel import in_order, rows_in_order
from pudistill.learners.parts import dealing
from pudistill.learners.tasks import Training, train
from pudistill.utils.cluster import running_on

pytestmark = pytest.mark.workers
LONGEST = 300.0  # seconds to start Ray or dask on a busy machine
PU_FILTER = TieredPUFilter(GaussianNB(), n_members=4, max_iter=2, threshold="auto", random_state=0)


@pytest.fixture(scope="module")
def blobs():
    """Samples that fill more than a megabyte, of which a tenth is trusted."""
    X, y = make_blobs(3000, n_features=50, centers=3, cluster_std=12, random_state=0)
    return X, y, np.arange(len(y)) % 10 == 0


@pytest.fixture(scope="module")
def without_workers(blobs):
    return clone(PU_FILTER).fit(*blobs)


def start_ray(stack):
    """Start Ray; try again, because its own limit of 15 seconds is too short on a busy machine."""
    for _ in range(3):
        with suppress(InputError):
            stack.enter_context(running_on("local-ray"))
            return
    stack.enter_context(running_on("local-ray"))


@pytest.fixture(scope="module")
def ray():
    """A Ray cluster on this machine, and the module `ray`."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'pudistill[ray]'")
    import ray

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr("pudistill.utils.ray_tasks.ANSWER_SECONDS", LONGEST)
        with pytest.MonkeyPatch.context() as at_start:  # Ray starts a worker for each core
            at_start.setattr(ray, "init", partial(ray.init, num_cpus=2))
            start_ray(stack)
        stack.enter_context(parallel_config("loky"))  # tests choose where they run
        yield ray


def assert_same(found, expected):
    np.testing.assert_array_equal(found.votes_, expected.votes_)
    np.testing.assert_array_equal(found.clean_labels_, expected.clean_labels_)


@pytest.mark.parametrize("n_jobs", [2, 4])  # of three classes: side by side, or one by one
def test_on_ray_labels_are_the_same_and_samples_are_sent_once(ray, blobs, without_workers, n_jobs):
    sent = []
    with running_on("auto"):
        object_store = get_active_backend()[0]._object_store
        object_store._put = lambda array: sent.append(array.shape) or ray.put(array)
        for _ in range(2):
            assert_same(clone(PU_FILTER).set_params(n_jobs=n_jobs).fit(*blobs), without_workers)
    assert sent == [blobs[0].shape] * len(sent)
    assert len(sent) <= 1


@pytest.fixture
def large_fit(monkeypatch):
    """A logistic regression that counts as large, of samples that are sent once."""
    monkeypatch.setattr("pudistill.learners.parts.WORTH_CLUSTER", 0)
    rng = np.random.default_rng(0)
    X, targets = rng.normal(size=(30_000, 64)).astype(np.float32), rng.dirichlet([1] * 3, 30_000)
    learner = make_pipeline(StandardScaler(), LogisticRegression())
    return Training(learner, X, targets, role="student", seed=0)


def test_nodes_that_share_the_steps_of_a_fit_find_the_same_bits(ray, large_fit):
    alone, sent = train(large_fit), []
    with running_on("auto"), dealing(2):
        object_store = get_active_backend()[0]._object_store
        object_store._put = lambda array: sent.append(array.shape) or ray.put(array)
        shared = train(large_fit)
    np.testing.assert_array_equal(shared[-1].coef_, alone[-1].coef_)
    assert sent == [(30_000, 64)]


@pytest.mark.slow
def test_nodes_find_nan_in_any_part(ray, large_fit):
    large_fit.X[15_000, 3] = np.nan
    with running_on("auto"), dealing(2), pytest.raises(InputError, match="cannot learn from NaN"):
        train(large_fit)


def test_a_part_that_was_lost_with_its_worker_is_held_by_another(ray, tmp_path):
    trap = tmp_path / "trap"
    trap.touch()

    class Part:  # local, because the nodes cannot import this module
        def __init__(self, number):
            self.number = number

        def square(self, trap):
            if self.number == 2 and trap.exists():
                trap.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return self.number**2

        def fail(self):
            raise InputError(f"part {self.number}")

    with running_on("auto"), get_active_backend()[0].holding([Part(n) for n in range(5)]) as each:
        assert list(each("square", trap)) == [0, 1, 4, 9, 16]
        assert list(each("square", trap)) == [0, 1, 4, 9, 16]
        with pytest.raises(InputError, match="part 0"):
            list(each("fail"))
    assert not trap.exists()


def test_samples_that_were_changed_are_sent_again(ray):
    X = np.zeros(200_000)
    with running_on("auto"):
        assert list(in_order([delayed(np.sum)(X)] * 2, -1)) == [0, 0]
        X[:] = 1
        assert list(in_order([delayed(np.sum)(X)] * 2, -1)) == [len(X)] * 2


@pytest.mark.parametrize("processes", [False, True])
def test_on_dask_labels_are_the_same(blobs, without_workers, processes, monkeypatch):
    monkeypatch.setattr(
        "pudistill.utils.arrays.MIN_FILE_BYTES", 0
    )  # workers are sent copies of files
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    dask = pytest.importorskip("dask")
    workers = {"n_workers": 1, "threads_per_worker": 2, "processes": processes}
    with (
        dask.config.set({"distributed.comm.timeouts.connect": f"{LONGEST:.0f}s"}),
        distributed.LocalCluster(dashboard_address=None, **workers) as local,
        distributed.Client(local),
        parallel_config("dask", n_jobs=2),
    ):
        assert_same(clone(PU_FILTER).fit(*blobs), without_workers)
        found = list(rows_in_order([delayed(np.full)((50, 3), 7.0)] * 2, 2, (50, 3)))
    np.testing.assert_array_equal(found, np.full((2, 50, 3), 7.0))


def test_the_command_line_runs_on_ray(ray, tmp_path, capsys):
    from pudistill.cli.commands import app

    data = str(tmp_path / "iris.csv")
    app(["corrupt", "iris", "--level", "0.3", "--output", data], standalone_mode=False)
    fit = ["fit", data, "--n-members", "2", "--max-iter", "1", "--no-compare", "--output"]
    with parallel_config("sequential"):  # the run to compare with needs no workers
        app([*fit, str(tmp_path / "here")], standalone_mode=False)
    app([*fit, str(tmp_path / "there"), "--cluster", "local-ray"], standalone_mode=False)
    for name in ("labels.csv", "config.toml"):  # they do not depend on where the run computes
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.mark.slow
def test_a_sweep_on_ray_gives_the_same_curve(ray, tmp_path):
    from pudistill.cli.commands import app

    sweep = ["sweep", "iris", "--test-fraction", "0.3", "--trusted", "0.2"]
    sweep += ["--noises", "symmetric", "--levels", "0.3,0.5", "--methods"]
    sweep += ["given_labels,true_labels", "--output"]
    with parallel_config("sequential"):
        app([*sweep, str(tmp_path / "here")], standalone_mode=False)
    app([*sweep, str(tmp_path / "there"), "--cluster", "local-ray"], standalone_mode=False)
    here, there = (tmp_path / name / "curve.csv" for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()


def test_every_command_that_takes_long_runs_on_a_cluster(monkeypatch, tmp_path):
    from pudistill.cli.commands import app

    def where(address, gpus):
        raise InputError(f"{address} with {gpus} GPUs")

    monkeypatch.setattr("pudistill.utils.cluster.running_on", where)
    for args in (["fit", "iris"], ["sweep", "iris"], ["reproduce", "table5"]):
        options = ["--output", str(tmp_path / "run"), "--cluster", "auto", "--gpus-per-member", "2"]
        with pytest.raises(InputError, match=r"^auto with 2.0 GPUs$"):
            app([*args, *options], standalone_mode=False)


def test_the_error_names_a_path_that_a_node_cannot_read(ray, tmp_path):
    path = tmp_path / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", float, (200_000,))
    X[100_000:] = 1
    with running_on("auto"):
        assert list(in_order([delayed(np.sum)(X[50_000:])] * 2, -1)) == [100_000] * 2
        path.unlink()
        with pytest.raises(InputError, match=rf"The node .* cannot read {path}"):
            list(in_order([delayed(np.sum)(X)] * 2, -1))


def test_the_error_names_nodes_that_cannot_run_tasks(ray, monkeypatch):
    def refused(gpus, *, match):
        with pytest.raises(InputError, match=match), running_on("auto", gpus):
            pass

    refused(0.25, match=r"asks for 0.25 GPUs, .* is 0: ")
    monkeypatch.setattr("pudistill.utils.ray_tasks.__version__", "9.9")
    refused(0.0, match=r"The node .* has pudistill .*, but this machine has 9.9")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9", "nowhere"])
def test_the_error_names_a_cluster_that_cannot_be_reached(address):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'pudistill[ray]'")
    unreachable = f"The Ray cluster {address} cannot be reached"
    with pytest.raises(InputError, match=unreachable), running_on(address):
        pass


def test_the_error_names_a_server_that_is_not_a_cluster(monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'pudistill[ray]'")
    monkeypatch.setattr("pudistill.utils.cluster.ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        unreachable = (
            f"The Ray cluster {address} cannot be reached .the server there gave no answer"
        )
        with pytest.raises(InputError, match=unreachable), running_on(address):
            pass


def test_the_error_names_ray_if_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="needs ray, which is not installed"), running_on("auto"):
        pass


class Fragile(GaussianNB):
    """Kills its worker if the file `trap` exists, after removing it."""

    def __init__(self, trap=None):
        super().__init__()
        self.trap = trap

    def fit(self, X, y, sample_weight=None):
        try:
            self.trap.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        except FileNotFoundError:
            return super().fit(X, y, sample_weight)


@pytest.mark.slow
def test_tasks_lost_with_a_worker_are_run_again(blobs, tmp_path):
    trap = tmp_path / "trap"
    pu_filter = clone(PU_FILTER).set_params(estimator=Fragile(trap))
    undisturbed = clone(pu_filter).fit(*blobs)
    trap.touch()
    with pytest.warns(RecoveredWarning, match="A worker was killed"):
        assert_same(pu_filter.set_params(n_jobs=2).fit(*blobs), undisturbed)
    assert not trap.exists()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_kills_every_worker_ends_with_one_sentence(monkeypatch):
    monkeypatch.setattr(
        "pudistill.learners.parallel.MAX_KILLED_IN_A_ROW", 1
    )  # starting workers takes seconds
    with pytest.warns(RecoveredWarning), pytest.raises(InputError, match="memory is short"):
        list(in_order([delayed(die)()] * 2, 2))


SHARED_LIMIT = """
import threading
import scipy.linalg
from threadpoolctl import threadpool_info
from pudistill.utils.threads import one_thread

def limits():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

before, inside, leave = limits(), threading.Barrier(2), threading.Event()

def work():
    with one_thread():
        inside.wait()
        leave.wait()

thread = threading.Thread(target=work)
thread.start()
inside.wait()
with one_thread():
    pass
assert limits() == [1] * len(before), limits()
leave.set()
thread.join()
assert limits() == before
"""


def test_threads_share_one_limit_until_the_last_one_ends():
    # In a process of its own: a library that other tests have loaded can keep a limit of its own.
    subprocess.run([sys.executable, "-c", SHARED_LIMIT], check=True)


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_node_that_cannot_read_the_run_folder_sends_its_stages_back(tmp_path, is_sent):
    from pudistill.runs.measures import Accuracy

    def stage(x: int) -> Accuracy:
        return Accuracy(np.array(x))

    cache = StageCache(tmp_path / "run" / "units")
    sent = pickle.loads(pickle.dumps(cache)).cache(stage)  # a task that is itself a cached stage
    with caching_in_worker(cache) as files:
        assert (sent if is_sent else cached(stage))(1).accuracy == 1
    assert not list(tmp_path.iterdir())
    (tmp_path / "run").mkdir()
    cache.store(files)
    assert cache.cache(stage).lookup(1).accuracy == 1
    assert cache.cache(stage).lookup(2) is None


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [3, 6])  # of three classes: side by side, or one by one
def test_no_member_is_lost_with_a_node(blobs, tmp_path, n_jobs):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'pudistill[ray]'")
    from ray.cluster_utils import Cluster

    pu_filter = clone(PU_FILTER).set_params(estimator=GaussianNB(), n_jobs=n_jobs)
    undisturbed = clone(pu_filter).fit(*blobs)
    ray.shutdown()  # disconnect from the cluster of the other tests
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    doomed = [cluster.add_node(num_cpus=1) for _ in range(2)][-1]
    is_busy, node = tmp_path / "is_busy", doomed.node_id

    class Doomed(GaussianNB):  # local, because the nodes cannot import this module
        def fit(self, X, y, sample_weight=None):
            if ray.get_runtime_context().get_node_id() == node:
                is_busy.touch()
                time.sleep(600)
            return super().fit(X, y, sample_weight)

    def kill():
        while not is_busy.exists():
            time.sleep(0.1)
        cluster.remove_node(doomed, allow_graceful=False)

    try:
        cluster.wait_for_nodes()
        threading.Thread(target=kill, daemon=True).start()
        with (
            running_on(cluster.address),
            pytest.warns(RecoveredWarning, match="lost with a worker of the cluster"),
        ):
            disturbed = clone(pu_filter).set_params(estimator=Doomed()).fit(*blobs)
        assert_same(disturbed, undisturbed)
    finally:
        cluster.shutdown()
