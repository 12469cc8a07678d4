"""Networks and transforms of the user's own."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from pudistill import PUDistillClassifier, TorchClassifier
from pudistill.exceptions import DivergedError, InputError, OwnModuleError
from pudistill.learners.cache import StageCache
from pudistill.learners.networks.own import build_own
from tests.helpers.pictures import digit_pictures

QUICK = {"epochs": 2, "batch_size": 32, "device": "cpu", "random_state": 0}


class Net(nn.Module):
    """Has a convolution and a linear layer; takes pictures of any size."""

    def __init__(self, in_shape, n_classes):
        super().__init__()
        self.first = nn.Conv2d(in_shape[0], 8, 3, padding=1)
        self.last = nn.Linear(8, n_classes)

    def forward(self, x):
        return self.last(self.first(x).relu().amax(dim=(2, 3)))


def with_classes_only(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def like_torchvision(*, weights=None, **kwargs):
    return with_classes_only(**kwargs)


class SevenClasses(Net):
    def __init__(self, in_shape, n_classes):
        super().__init__(in_shape, 7)


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class PairInTraining(Net):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)


class Large(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.last = nn.Linear(3 * 32 * 32, n_classes)

    def forward(self, x):
        return self.last(x.flatten(1))


class WithoutParameters(Net):
    def __init__(self, in_shape, n_classes):
        super().__init__(in_shape, n_classes)
        self.requires_grad_(False)


class NeverFinite(Net):
    def forward(self, x):
        return super().forward(x) * torch.nan


def needs_more(in_shape, n_classes, width):
    return Net(in_shape, n_classes)


def no_network(in_shape, n_classes):
    return 3


def broken(in_shape, n_classes):
    raise KeyError("width")


@pytest.fixture(scope="module")
def few():
    return digit_pictures(150)


@pytest.mark.parametrize("own", [Net, with_classes_only, like_torchvision, Net((1, 8, 8), 10)])
def test_a_class_a_function_and_a_network_can_be_trained(few, own):
    network = TorchClassifier(own, **QUICK).fit(*few)
    assert network.predict_proba(few[0]).shape == (150, 10)
    again = TorchClassifier.from_state(*network.to_state(), module=own)
    np.testing.assert_array_equal(again.predict_proba(few[0]), network.predict_proba(few[0]))


def test_training_starts_from_the_weights_of_a_network_and_leaves_it_alone(few):
    own = Net((1, 8, 8), 10)
    before = own.last.weight.detach().clone()
    started = TorchClassifier(own, **QUICK).make_job(*few)
    assert torch.equal(started.module.last.weight, before)
    TorchClassifier(own, **QUICK).fit(*few)
    assert torch.equal(own.last.weight, before)


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        (SevenClasses, r"shape \(2, 7\).* here \(2, 10\)"),
        (Pair, "returns a tuple"),
        (PairInTraining, "returns a tuple"),
        (Large, r"shape \(2, 1, 8, 8\).*--image-size"),
        (WithoutParameters, "no parameters that can be trained"),
        (needs_more, r"'width'.*Net\(in_shape, n_classes\)"),
        (no_network, "returned int"),
        (broken, "failed for in_shape"),
    ],
)
def test_what_is_wrong_with_a_network_is_one_sentence(few, own, problem):
    with pytest.raises(InputError, match=problem):
        TorchClassifier(own, **QUICK).fit(*few)


def out_of_memory(in_shape, n_classes):
    class OutOfMemory(Net):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return OutOfMemory(in_shape, n_classes)


def test_a_lack_of_memory_is_no_fault_of_the_pictures(few):
    with pytest.raises(InputError, match=r"out of memory\.\): lower batch_size, or use a smaller"):
        TorchClassifier(out_of_memory, **QUICK).fit(*few)


@pytest.mark.filterwarnings("ignore:A network is trained once more")
def test_a_network_that_diverges_is_named_by_its_loss(few):
    with pytest.raises(DivergedError, match="became nan in epoch 1"):
        TorchClassifier(NeverFinite, **QUICK).fit(*few)


def test_a_table_can_have_a_network_of_its_own():
    assert build_own(with_classes_only, (4,), 3)(torch.zeros(2, 4)).shape == (2, 3)


def flip(picture):
    return picture.flip(2) if torch.rand(()) < 0.5 else picture


@pytest.mark.parametrize("augment", [flip, ("crop", flip)])
def test_a_transform_follows_the_seed_and_predictions_do_without_it(few, augment):
    networks = [TorchClassifier(Net, augment=augment, **QUICK).fit(*few) for _ in range(2)]
    found = [network.predict_proba(few[0]) for network in networks]
    np.testing.assert_array_equal(*found)
    again = TorchClassifier.from_state(*networks[0].to_state(), module=Net)
    np.testing.assert_array_equal(again.predict_proba(few[0]), found[0])


@pytest.mark.parametrize(
    ("augment", "problem"),
    [
        (lambda picture: picture / 255, "torch.float32 of shape"),
        (lambda picture: picture[:, 1:], r"of shape \(1, 7, 8\)"),
        (lambda picture: picture.numpy(), "makes ndarray"),
        (lambda picture: picture.crop(), "fails on a picture"),
    ],
)
def test_what_is_wrong_with_a_transform_is_one_sentence(few, augment, problem):
    with pytest.raises(InputError, match=problem):
        TorchClassifier(Net, augment=augment, **QUICK).fit(*few)


@pytest.mark.filterwarnings("ignore")
def test_finished_stages_with_own_networks_are_not_computed_again(few, tmp_path, monkeypatch):
    X, y = few[0][:80], few[1][:80] % 2
    trusted = np.arange(80) % 4 == 0
    classifier = PUDistillClassifier(
        TorchClassifier(Net, **QUICK), n_members=2, max_iter=1, compare=False, random_state=0
    )
    classifier.set_params(memory=StageCache(tmp_path / "units"))
    first = classifier.fit(X, y, trusted).predict_proba(X)
    # Nothing is trained from here on.
    monkeypatch.setattr("pudistill.learners.networks.classifier.fit_with_retry", None)
    np.testing.assert_array_equal(classifier.fit(X, y, trusted).predict_proba(X), first)


MODULE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_shape, n_classes):
        super().__init__(nn.Flatten(), nn.LazyLinear(n_classes))
"""


@pytest.mark.filterwarnings("ignore")
def test_the_command_line_takes_a_network_from_a_file(few, command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_network.py").write_text(MODULE)
    X, y = few[0][:80], few[1][:80] % 2
    np.savez(tmp_path / "data.npz", X=X, y=y, trusted=np.arange(80) % 4 == 0)
    own = ("--learner", "my_network:Net")
    code, out, err = command(
        *("fit", "data.npz", *own, "--epochs", 2, "--batch-size", 20, "--device", "cpu"),
        *("--n-members", 2, "--max-iter", 1, "--no-compare", "--output", "run"),
    )
    assert code == 0, err
    assert "predict run DATA --learner my_network:Net" in out
    assert "epochs = 2" in (tmp_path / "run" / "config.toml").read_text()
    code, _, err = command("predict", "run", "data.npz")
    assert code == 2
    assert "repeat --learner my_network:Net" in err.replace("\n", " ")
    code, out, _ = command("predict", "run", "data.npz", *own)
    assert code == 0
    assert len(out.splitlines()) == 81
    np.savez(tmp_path / "table.npz", X=X.reshape(80, -1), y=y, trusted=np.arange(80) % 4 == 0)
    code, _, err = command("fit", "table.npz", "--epochs", 2, "--output", "other")
    assert code == 2
    assert "epochs is for networks" in err.replace("\n", " ")


class LeNet(nn.Module):
    """Flattens with `view`, as in many tutorials, which needs contiguous pictures."""

    def __init__(self, in_shape, n_classes):
        super().__init__()
        self.first = nn.Conv2d(in_shape[0], 8, 3, padding=1)
        self.last = nn.Linear(8 * in_shape[1] * in_shape[2], n_classes)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x.view(len(x), -1))


def test_a_network_that_flattens_with_view_learns_and_is_loaded(few):
    X, y = few
    network = TorchClassifier(LeNet, **QUICK).fit(X, y)
    again = TorchClassifier.from_state(*network.to_state(), module=LeNet)
    np.testing.assert_array_equal(again.predict(X), network.predict(X))


def test_pictures_are_channels_last_where_the_network_reads_them(few):
    network = TorchClassifier(Net, **QUICK).fit(*few)
    weight = network.module_.first.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


class StartsWithFloats(nn.Module):
    def __init__(self, in_shape, n_classes):
        super().__init__()
        self.cell, self.last = nn.GRUCell(in_shape[0], 4), nn.Linear(4, n_classes)

    def forward(self, x):
        return self.last(self.cell(x, torch.zeros(len(x), 4)))


def test_a_network_may_make_tensors_of_the_default_type():
    X, y = np.repeat([[0.0], [1.0]], 30, axis=0), np.repeat([0, 1], 30)
    assert TorchClassifier(StartsWithFloats, **QUICK | {"epochs": 20}).fit(X, y).score(X, y) == 1


class KeepsItsOutput(nn.Module):
    """Adds to its features what it computed last."""

    def __init__(self, n_classes):
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, n_classes)
        self.kept = torch.zeros(1, 4)

    def forward(self, x):
        hidden = self.first(x) + self.kept
        self.kept = hidden.detach()[:1]
        return self.last(hidden)


def test_a_network_that_keeps_tensors_can_train_after_a_prediction():
    X, y = np.repeat([[0.0], [1.0]], 30, axis=0), np.repeat([0, 1], 30)
    network = TorchClassifier(KeepsItsOutput, warm_start=True, **QUICK).fit(X, y)
    network.predict(X[:40])
    assert network.fit(X[:40], y[:40]).n_iter_ == 2


def one_logit_row_too_many(n_classes):
    return nn.Sequential(nn.Linear(1, n_classes), nn.Unflatten(0, (1, -1)))


def sparse(n_classes):
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(2, n_classes, sparse=True)

        def forward(self, x):
            return self.table(x[:, 0].long().clamp(0, 1))

    return Sparse()


class Detached(nn.Linear):
    def __init__(self, n_classes):
        super().__init__(1, n_classes)

    def forward(self, x):
        return super().forward(x).detach()


class WithoutValues(nn.Linear):
    def __init__(self, n_classes):
        super().__init__(1, n_classes, device="meta")


class UnusedLayer(nn.Linear):
    def __init__(self, n_classes):
        super().__init__(1, n_classes)
        self.unused = nn.LazyLinear(3)


class Misspelt(nn.Linear):
    def __init__(self, n_classes):
        super().__init__(1, n_classes)

    def forward(self, x):
        return self.frist(x)


def with_another_argument(hidden, n_classes):
    return nn.Linear(hidden, n_classes)


class CannotBeCopied(nn.Linear):
    def __deepcopy__(self, memo):
        raise RuntimeError("only leaf tensors can be copied")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (one_logit_row_too_many, r"returns the shape \(1, 2, 2\)"),
        (sparse, "sparse=False"),
        (CannotBeCopied(1, 2), "pass a function that makes it"),
        (Detached, r"leave out detach\(\)"),
        (WithoutValues, "meta tensor"),
        (UnusedLayer, "never uses the layer of unused"),
        (Misspelt, r"no attribute 'frist'\): correct its forward"),
        (with_another_argument, "missing a required argument: 'hidden'"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused_in_a_sentence(module, message):
    X, y = np.repeat([[0.0], [1.0]], 30, axis=0), np.repeat([0, 1], 30)
    with pytest.raises(InputError, match=message):
        TorchClassifier(module, **QUICK).fit(X, y)


def without_arguments():
    return nn.Linear(1, 2)


def test_a_function_without_arguments_can_make_the_network():
    X, y = np.repeat([[0.0], [1.0]], 30, axis=0), np.repeat([0, 1], 30)
    assert TorchClassifier(without_arguments, **QUICK).fit(X, y).n_iter_ == 2


def test_another_network_than_the_stored_one_is_not_a_damaged_file():
    X, y = np.repeat([[0.0], [1.0]], 30, axis=0), np.repeat([0, 1], 30)
    state = TorchClassifier(without_arguments, **QUICK).fit(X, y).to_state()
    with pytest.raises(OwnModuleError, match=r"StartsWithFloats does not fit .*without_arguments"):
        TorchClassifier.from_state(*state, module=StartsWithFloats)
    with pytest.raises(OwnModuleError, match="makes none"):
        TorchClassifier.from_state(*state, module=5)
