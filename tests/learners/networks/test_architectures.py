"""The networks: sizes, shapes, and PreAct ResNet-18 against a functional re-computation."""

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, linear, relu

from pudistill.exceptions import InputError
from pudistill.learners.networks.architectures import (
    NETWORKS,
    airbench,
    mlp,
    preact_resnet18,
    slim_airbench,
    small_cnn,
)


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_preact_resnet18_has_the_known_size():
    def norm(channels):
        return 2 * channels

    def block(before, after):
        shortcut = before * after if before != after else 0
        return norm(before) + 9 * before * after + norm(after) + 9 * after * after + shortcut

    widths = [
        (64, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
        (512, 512),
    ]
    by_hand = 9 * 3 * 64 + sum(block(*width) for width in widths) + norm(512) + 512 * 10 + 10
    assert n_parameters(preact_resnet18((3, 32, 32), 10)) == by_hand == 11_172_170


def test_preact_resnet18_computes_he_et_al_2016():
    torch.manual_seed(0)
    network = preact_resnet18((3, 32, 32), 10).eval().double()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    pictures = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    weights = network.state_dict()

    def activated(x, name):
        mean, var, scale, shift = (
            weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return relu(batch_norm(x, mean, var, scale, shift))

    x = conv2d(pictures, weights["stem.weight"], padding=1)
    for number, stride in enumerate([1, 1, 2, 1, 2, 1, 2, 1]):
        name = f"blocks.{number}"
        a = activated(x, f"{name}.norm1")
        b = conv2d(a, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        b = conv2d(activated(b, f"{name}.norm2"), weights[f"{name}.conv2.weight"], padding=1)
        x = b + (conv2d(a, weights[f"{name}.shortcut.weight"], stride=2) if stride == 2 else x)
    assert x.shape == (2, 512, 4, 4)
    features = activated(x, "norm").mean((2, 3))
    expected = linear(features, weights["classifier.weight"], weights["classifier.bias"])
    torch.testing.assert_close(network(pictures), expected)


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 5, 9), (1, 2, 2), (4, 64, 64)]
)
@pytest.mark.parametrize(("factory", "size"), [(small_cnn, 110_000), (slim_airbench, 1_200_000)])
def test_small_networks_take_pictures_of_any_size(factory, size, shape):
    network = factory(shape, 7)
    assert network(torch.randn(3, *shape)).shape == (3, 7)
    assert n_parameters(network) < size


@pytest.mark.parametrize("factory", [airbench, slim_airbench])
def test_groups_of_airbench_begin_by_handing_their_inputs_on(factory):
    for group in factory((3, 32, 32), 10).groups:
        for convolution in (group.conv1, group.conv2):
            x = torch.randn(2, convolution.in_channels, 6, 6)
            assert torch.equal(convolution(x)[:, : convolution.in_channels], x)


def test_mlp_starts_with_equal_probabilities_and_flattens_pictures():
    assert torch.equal(mlp((2, 3, 3), 4)(torch.randn(5, 2, 3, 3)), torch.zeros(5, 4))


def test_mlp_computes_each_sample_independently():
    network = mlp((6,), 3).train()
    torch.nn.init.normal_(network[-1].weight)
    rows = torch.randn(8, 6)
    torch.testing.assert_close(network(rows)[:2], network(rows[:2]))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (4, 64, 64)])
def test_airbench_takes_pictures_of_many_sizes(shape):
    network = airbench(shape, 7)
    assert network(torch.randn(3, *shape)).shape == (3, 7)


def test_airbench_has_the_size_of_airbench94():
    by_hand = 3 * 24 * 4 + 24  # the first convolution
    for n_in, n_out in ((24, 64), (64, 256), (256, 256)):
        by_hand += 9 * n_in * n_out + 9 * n_out * n_out + 2 * 2 * n_out
    assert n_parameters(airbench((3, 32, 32), 10)) == by_hand + 256 * 10 == 1_972_792


@pytest.mark.parametrize("name", ["small_cnn", "slim_airbench", "airbench", "preact_resnet18"])
def test_tables_are_refused_by_picture_networks(name):
    with pytest.raises(InputError, match="mlp"):
        NETWORKS[name]((12,), 2)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_activations_neither_vanish_nor_explode(name):
    torch.manual_seed(0)
    network = NETWORKS[name]((3, 32, 32), 10).train()
    seen = []
    last = list(network.modules())[-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].std().item()))
    network(torch.randn(16, 3, 32, 32))
    assert 0.05 < seen[0] < 5
