"""Fine-tuned text models, by a network with random weights that is stored as on the hub."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from pudistill import PUDistillClassifier, TorchClassifier
from pudistill.exceptions import DataWarning, InputError
from pudistill.learners.cache import StageCache, caching_to
from pudistill.learners.networks.recipes import Recipe
from pudistill.learners.networks.texts import (
    build_untrained_text,
    open_tokenizer,
    tokenise,
    train_head,
)
from pudistill.learners.tasks import Training, train
from pudistill.methods import CoTeachingClassifier, LossCorrectionClassifier

transformers = pytest.importorskip("transformers")

WORDS = ["good", "bad", "film", "book", "the", "a"]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "bert"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: n for n, word in enumerate([*special, *WORDS])}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        num_hidden_layers=1,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    torch.manual_seed(3)  # from some weights it learns too slowly
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reviews():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    texts = [" ".join([*rng.choice(WORDS[2:], rng.integers(0, 5)), WORDS[label]]) for label in y]
    return texts, np.array(["good", "bad"])[y]


def network(folder, **params):
    settings = {"epochs": 2, "learning_rate": 1e-3, "device": "cpu", "random_state": 0}
    return TorchClassifier(f"transformers:{folder}", **settings | params)


def test_a_text_model_learns_and_is_stored_without_its_source(tiny_bert, reviews, tmp_path):
    texts, y = reviews
    source = shutil.copytree(tiny_bert, tmp_path / "bert")
    fitted = network(source, epochs=20).fit(texts, y)
    assert fitted.score(texts, y) > 0.9
    arrays, meta = fitted.to_state()
    shutil.rmtree(source)
    again = TorchClassifier.from_state(arrays, json.loads(json.dumps(meta)))
    np.testing.assert_array_equal(again.predict_proba(texts), fitted.predict_proba(texts))


def test_predictions_do_not_depend_on_the_order_or_on_other_texts(tiny_bert, reviews):
    texts, y = reviews
    fitted = network(tiny_bert).fit(texts, y)
    proba = fitted.predict_proba(texts)
    np.testing.assert_allclose(fitted.predict_proba(texts[::-1])[::-1], proba, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(texts[:1]), proba[:1], atol=1e-6)
    assert fitted.embed(texts).shape == (60, 8)


def test_the_last_layer_learns_before_the_encoder_changes(tiny_bert, reviews):
    texts, y = reviews
    fitted = network(tiny_bert, epochs=1, learning_rate=1e-12).fit(texts, y)
    source = transformers.BertModel.from_pretrained(tiny_bert)
    for name, weight in source.state_dict().items():
        if "pooler" not in name:
            found = fitted.module_.encoder.state_dict()[name]
            np.testing.assert_allclose(found, weight, atol=1e-6)
    assert fitted.score(texts, y) > 0.8


def test_tokens_are_cut_and_padded(tiny_bert):
    tokenizer = open_tokenizer(str(tiny_bert))
    assert tokenizer.n_tokens == 16
    with pytest.warns(DataWarning, match="longer than the 16 tokens"):
        tokens = tokenise(tokenizer, ["good " * 300_000, "bad"])
    assert tokens.shape == (2, 16)
    assert tokens[1].tolist()[3:] == [-1] * 13
    with pytest.warns(DataWarning, match="Some texts are empty"):
        assert tokenise(tokenizer, ["", "bad"]).shape == (2, 3)


def test_texts_that_are_known_are_named_again_if_they_are_long_or_empty(tiny_bert):
    tokenizer = open_tokenizer(str(tiny_bert))
    texts = ["good " * 30, "x" * 1_000_000, ""]  # the second is one unknown word
    for known in range(2):  # of those read first, such as in a trial, no warning may have been seen
        for text in texts:
            with pytest.warns(DataWarning, match="longer than" if text else "are empty"):
                assert tokenise(tokenizer, [text]).shape[1] <= 16, known


def test_the_default_method_fine_tunes(tiny_bert, reviews):
    texts, y = reviews
    given = np.where(np.arange(60) % 4 == 3, y[::-1], y)
    trusted = np.arange(60) % 5 == 0
    classifier = PUDistillClassifier(
        network(tiny_bert, epochs=3), n_members=4, max_iter=1, compare=False, random_state=0
    )
    classifier.fit(texts, np.where(trusted, y, given), trusted)
    assert (classifier.predict(texts) == y).mean() > 0.8


def test_a_tokenizer_of_another_model_is_refused(tiny_bert, reviews, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "mixed")
    vocabulary = {f"word{n}": n for n in range(50)} | {"[UNK]": 50, "[PAD]": 51}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    with pytest.raises(InputError, match="does not fit its model"):
        network(folder).fit(*reviews)


def test_a_model_without_its_tokenizer_is_refused(tiny_bert, reviews, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "bare")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(InputError, match="knows no word: its files"):
        network(folder).fit(*reviews)


def test_what_a_text_network_cannot_do_is_one_sentence(tiny_bert, reviews):
    texts, y = reviews
    with pytest.raises(InputError, match="cannot mix texts"):
        network(tiny_bert, mixup=1.0).fit(texts, y)
    with pytest.raises(InputError, match="mixup=2 cannot mix texts: set mixup=0"):
        network(tiny_bert, recipe=Recipe(epochs=1, learning_rate=0.1, mixup=2)).fit(texts, y)
    with pytest.raises(InputError, match="recipe='paper' is not for texts"):
        network(tiny_bert, recipe="paper").fit(texts, y)
    with pytest.raises(InputError, match="cannot read texts"):
        TorchClassifier("mlp").fit(texts, y)
    with pytest.raises(InputError, match="trained on texts"):
        network(tiny_bert).fit(texts, y).predict(np.zeros((2, 3)))
    with pytest.raises(InputError, match="lora_rank=2 is for text models"):
        TorchClassifier("mlp", lora_rank=2).fit(np.eye(4), [0, 1, 0, 1])
    for rank in (0, -1):
        with pytest.raises(InputError, match=f"lora_rank={rank} must be at least 1, or None"):
            network(tiny_bert, lora_rank=rank).fit(texts, y)


def test_a_stored_description_names_no_other_network(tiny_bert, reviews):
    arrays, meta = network(tiny_bert).fit(*reviews).to_state()
    with pytest.raises(InputError, match="not known here"):
        build_untrained_text(meta["architecture"] | {"encoder": {"model_type": "evil"}}, 2)
    meta["tokenizer"]["n_tokens"] = 10**9
    with pytest.raises(InputError, match="tokenizer is damaged"):
        TorchClassifier.from_state(arrays, meta)


def test_lora_trains_few_weights_and_is_stored_as_a_plain_network(tiny_bert, reviews):
    pytest.importorskip("peft")
    texts, y = reviews
    fitted = network(tiny_bert, lora_rank=2, precision="fp32").fit(texts, y)
    trained = [name for name, p in fitted.module_.named_parameters() if p.requires_grad]
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    arrays, meta = fitted.to_state()
    assert not any("lora_" in name for name in arrays)
    again = TorchClassifier.from_state(arrays, meta)
    np.testing.assert_allclose(
        again.predict_proba(texts), fitted.predict_proba(texts), rtol=1e-4, atol=1e-6
    )


def test_lora_goes_on_with_new_matrices_whether_or_not_the_network_was_stored(tiny_bert, reviews):
    pytest.importorskip("peft")
    texts, y = reviews
    settings = {"lora_rank": 2, "warm_start": True, "precision": "fp32"}
    fitted = network(tiny_bert, **settings).fit(texts, y)
    again = TorchClassifier.from_state(*fitted.to_state())
    before = {name: weight.clone() for name, weight in again.module_.state_dict().items()}
    mine, stored = fitted.fingerprint[-1], again.fingerprint[-1]
    assert mine.keys() == stored.keys()
    assert all(np.array_equal(mine[name], stored[name]) for name in mine)
    again.fit(texts, y)
    trained = [name for name, p in again.module_.named_parameters() if p.requires_grad]
    assert any("lora_" in name for name in trained)
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    weights = again.module_.state_dict()
    name = "encoder.encoder.layer.0.output.dense"
    assert torch.equal(weights[f"{name}.base_layer.weight"], before[f"{name}.weight"])
    expected = fitted.fit(texts, y).predict_proba(texts)
    np.testing.assert_allclose(again.predict_proba(texts), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 2])
def test_an_interrupted_fine_tuning_continues_after_the_last_epoch(
    tiny_bert, reviews, tmp_path, monkeypatch, rank
):
    if rank is not None:
        pytest.importorskip("peft")
    texts, y = reviews
    targets = np.eye(2)[(y == "good").astype(int)]
    learner = network(tiny_bert, epochs=4, lora_rank=rank, precision="fp32")
    task = Training(learner, texts, targets, role="noise_aware", seed=3)
    expected = train(task)
    monkeypatch.setattr("pudistill.learners.cache.CHECKPOINT_SECONDS", 0.0)
    epoch_ended, seen = "pudistill.learners.networks.fitting.epoch_ended", []

    def stop(epoch, networks):
        if epoch == 3:
            raise KeyboardInterrupt

    with caching_to(StageCache(tmp_path / "units")):
        monkeypatch.setattr(epoch_ended, stop)
        with pytest.raises(KeyboardInterrupt):
            train(task)
        monkeypatch.setattr(epoch_ended, lambda epoch, _: seen.append(epoch))
        again, read = train(task), train(task)
    assert seen == [3, 4]
    assert again.loss_curve_ == expected.loss_curve_
    for found in (again, read):
        np.testing.assert_allclose(
            found.predict_proba(texts), expected.predict_proba(texts), atol=1e-6
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command_line_fine_tunes_and_predicts(tiny_bert, reviews, command, tmp_path):
    texts, y = reviews
    table = pd.DataFrame({"id": range(60), "text": texts, "label": y})
    table["trusted"] = np.arange(60) % 5 == 0
    table.to_csv(tmp_path / "texts.csv", index=False)
    source = shutil.copytree(tiny_bert, tmp_path / "bert")
    quick = ("--epochs", 1, "--n-members", 2, "--max-iter", 1, "--no-compare", "--device", "cpu")
    code, _, err = command(
        *("fit", "texts.csv", "--learner", "transformers:bert", *quick, "--output", "run")
    )
    assert code == 0, err
    shutil.rmtree(source)  # the run holds the network and its tokenizer
    table[["id", "text"]].to_csv(tmp_path / "new.csv", index=False)
    code, out, err = command("predict", "run", "new.csv")
    assert code == 0, err
    assert len(out.splitlines()) == 61
    code, _, err = command(
        *("fit", "texts.csv", "--learner", "transformers:no-such-folder", "--output", "other")
    )
    assert code == 2
    assert "cannot be loaded" in err.replace("\n", " ")
    assert not (tmp_path / "other").exists()


def test_a_feature_that_never_varies_does_not_spoil_the_training(tiny_bert, reviews):
    texts, y = reviews
    job = network(tiny_bert).make_job(texts, y)
    with torch.no_grad():
        norm = job.module.encoder.encoder.layer[-1].output.LayerNorm
        norm.weight[0], norm.bias[0] = 1e-20, 0.3
        job.module.head.weight.zero_()
    train_head(job)
    assert job.module.inverse_scale.max() < 100


def test_methods_train_the_last_layer_first(tiny_bert, reviews):
    texts, y = reviews
    method = CoTeachingClassifier(network(tiny_bert, epochs=3), random_state=0)
    assert method.fit(texts, y, trusted=np.ones(60, bool)).score(texts, y) > 0.9


def test_a_method_that_mixes_samples_refuses_texts(tiny_bert, reviews):
    with pytest.raises(InputError, match="cannot mix texts"):
        LossCorrectionClassifier(network(tiny_bert)).fit(*reviews, trusted=np.ones(60, bool))


def test_a_model_without_some_of_its_weights_is_refused(tiny_bert, reviews, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    kept = {k: w for k, w in load_file(folder / "model.safetensors").items() if "atten" not in k}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 10 of its weights"):
        network(folder).fit(*reviews)


def test_half_a_surrogate_pair_is_no_reason_to_fail(tiny_bert, reviews):
    texts, y = reviews
    assert len(network(tiny_bert).fit(texts, y).predict(["\ud800 good"])) == 1
