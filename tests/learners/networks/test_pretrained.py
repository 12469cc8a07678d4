"""Networks from the hub, by a network with random weights that is stored as on the hub."""

import json
import shutil

import numpy as np
import pytest
import torch

from pudistill import TorchClassifier
from pudistill.exceptions import InputError
from pudistill.learners.networks.pretrained import Pretrained


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    return (rng.integers(0, 80, (48, 32, 32, 3)) + 60 * y[:, None, None, None]).astype(np.uint8), y


def test_trained_weights_are_kept_and_the_last_layer_is_new(tiny_resnet):
    import transformers

    stored = transformers.ResNetForImageClassification.from_pretrained(tiny_resnet)
    network = Pretrained(str(tiny_resnet))((3, 32, 32), n_classes=7)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    for name, weights in stored.resnet.state_dict().items():
        assert torch.equal(weights, network.model.resnet.state_dict()[name])


def test_a_pretrained_network_learns_and_is_stored_without_its_source(tiny_resnet, pictures):
    X, y = pictures
    network = TorchClassifier(f"transformers:{tiny_resnet}", epochs=15, random_state=0).fit(X, y)
    assert network.score(X, y) > 0.9
    arrays, meta = network.to_state()
    meta = json.loads(json.dumps(meta))
    meta["params"]["module"] = "transformers:no/such-network"
    again = TorchClassifier.from_state(arrays, meta)
    np.testing.assert_array_equal(again.predict_proba(X), network.predict_proba(X))


def test_the_same_seed_gives_the_same_network(tiny_resnet, pictures):
    X, y = pictures
    networks = [
        TorchClassifier(f"transformers:{tiny_resnet}", epochs=1, random_state=3).fit(X, y)
        for _ in range(2)
    ]
    probas = [network.predict_proba(X) for network in networks]
    np.testing.assert_array_equal(*probas)


def test_dropout_follows_the_seed(tmp_path, pictures):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        hidden_dropout_prob=0.3,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    networks = [
        TorchClassifier(f"transformers:{tmp_path}", epochs=2, random_state=3).fit(*pictures)
        for _ in range(2)
    ]
    probas = [network.predict_proba(pictures[0]) for network in networks]
    np.testing.assert_array_equal(*probas)


def test_code_that_comes_with_weights_is_not_run(tiny_resnet, tmp_path, pictures):
    folder = shutil.copytree(tiny_resnet, tmp_path / "evil")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="no code that a model brings or names is run"):
        TorchClassifier(f"transformers:{folder}").fit(*pictures)
    assert not (tmp_path / "ran").exists()


def test_damaged_weights_are_named(tiny_resnet, tmp_path, pictures):
    folder = shutil.copytree(tiny_resnet, tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="damaged cannot be loaded"):
        TorchClassifier(f"transformers:{folder}").fit(*pictures)


def test_weights_that_would_be_random_are_named(tiny_resnet, tmp_path, pictures):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_resnet, tmp_path / "resnet")
    file = folder / "model.safetensors"
    last = {name: w for name, w in load_file(file).items() if name.startswith("classifier")}
    save_file(last, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks .* of its weights, such as resnet"):
        TorchClassifier(f"transformers:{folder}").fit(*pictures)


def test_grey_pictures(tiny_resnet, pictures):
    X, y = pictures
    network = TorchClassifier(f"transformers:{tiny_resnet}", epochs=1, random_state=0)
    assert network.fit(X[..., 0], y).predict(X[..., 0]).shape == (48,)


def test_a_model_that_cannot_be_loaded_is_named(tmp_path, pictures):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        TorchClassifier(f"transformers:{tmp_path}").fit(*pictures)
    with pytest.raises(InputError, match="needs pictures"):
        TorchClassifier(f"transformers:{tmp_path}").fit(np.zeros((4, 2)), [0, 1, 0, 1])
