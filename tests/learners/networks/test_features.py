"""Features by models with random weights, stored as on the hub, and the user's own features."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

from pudistill import embed_dataset, load_dataset
from pudistill.exceptions import DamagedWarning
from pudistill.learners.networks.embedding import (
    PictureEmbedder,
    TextEmbedder,
    looked_up,
    values_of_bytes,
)
from pudistill.runs.fit import fit_run
from pudistill.runs.folder import Run
from pudistill.runs.settings import Settings
from tests.helpers.pictures import write_picture

transformers = pytest.importorskip("transformers")

QUICK = ["--n-members", "3", "--max-iter", "2", "--no-compare", "--n-jobs", "1"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 16}
GOOD, BAD = ("fine great lovely good", "poor awful boring bad")
WORDS = f"[PAD] [UNK] [CLS] [SEP] [MASK] the film was , . {GOOD} {BAD}".split()


def stored(folder, *parts):
    for part in parts:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vision_models(tmp_path_factory):
    """A convolutional network that pools, and transformers with and without a trained pooler."""
    torch.manual_seed(0)
    hub = tmp_path_factory.mktemp("hub")
    convolutional = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    places = {"image_size": 32, "patch_size": 8, **SIZES}
    square = {"height": 32, "width": 32}
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**places))
    return {
        "resnet": stored(
            hub / "resnet",
            transformers.ResNetModel(convolutional),
            transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0),
        ),
        "dinov2": stored(
            hub / "dinov2",
            transformers.Dinov2Model(transformers.Dinov2Config(**places)),
            transformers.BitImageProcessorPil(
                size={"shortest_edge": 36}, crop_size=square, do_convert_rgb=True
            ),
        ),
        "vit": stored(hub / "vit", vit, transformers.ViTImageProcessorPil(size=square)),
    }


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small language model that knows the words of the test."""
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **SIZES)
    tokenizer = transformers.BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)})
    return stored(
        tmp_path_factory.mktemp("hub") / "bert", transformers.BertModel(config), tokenizer
    )


@pytest.fixture(scope="module")
def pictures():
    """Bright and dark pictures, in colour."""
    rng = np.random.default_rng(0)
    bright = np.arange(90) % 2
    return (rng.integers(0, 120, (90, 20, 24, 3)) + 130 * bright[:, None, None, None]).astype(
        np.uint8
    )


@pytest.fixture
def photos(tmp_path, pictures):
    """A folder of pictures, every fourth label wrong; a table of trusted labels; new pictures."""
    names = ("dark", "light")
    trusted = []
    for n, picture in enumerate(pictures):
        new, label = n >= 80, names[n % 2 if n % 8 else 1 - n % 2]
        folder = tmp_path / ("new" if new else f"photos/{label}")
        write_picture(folder / f"{n:02}.png", picture)
        if n < 80 and n % 5 < 2:
            trusted.append({"id": f"{label}/{n:02}.png", "label": names[n % 2]})
    pd.DataFrame(trusted).to_csv(tmp_path / "checked.csv", index=False)
    return tmp_path


@pytest.fixture
def reviews(tmp_path):
    """Reviews with every fourth label wrong; a few have no text."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(120):
        words = rng.choice((GOOD if n % 2 else BAD).split(), 3)
        text = "the film was " + ", ".join(words) if n not in (40, 41) else ""
        label = ("down", "up")[n % 2 if n % 8 else 1 - n % 2]
        rows.append({"text": text, "label": label, "trusted": n % 5 < 2 and n % 8 > 0, "stars": n})
    pd.DataFrame(rows).to_csv(tmp_path / "reviews.csv", index=False)
    return tmp_path / "reviews.csv"


def plain(folder, pictures):
    """Return the output of a model as a user of `transformers` would compute it."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = processor(
        images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt"
    )
    with torch.no_grad():
        return model(**inputs)


def test_pictures_are_embedded_as_by_transformers(vision_models, pictures):
    expected = {
        "resnet": lambda answers: answers.pooler_output.flatten(1),
        "dinov2": lambda answers: answers.last_hidden_state[:, 0],
        # The pooler of a network for classification was never trained, and is random.
        "vit": lambda answers: answers.last_hidden_state[:, 0],
    }
    for name, take in expected.items():
        embedder = PictureEmbedder(str(vision_models[name]), "cpu", "fp32")
        found = embedder(pictures)
        answers = take(plain(vision_models[name], pictures)).numpy()
        np.testing.assert_allclose(found, answers, rtol=1e-4, atol=1e-5, err_msg=name)
        again = PictureEmbedder(str(vision_models[name]), "cpu", "fp32")
        assert again.checksum == embedder.checksum
        grey = pictures[:3, ..., 0]
        in_colour = np.repeat(grey[..., None], 3, axis=3)
        np.testing.assert_array_equal(embedder(grey), embedder(in_colour))


def test_features_are_the_same_bits_however_many_threads_compute(vision_models, monkeypatch):
    X = np.random.default_rng(0).integers(0, 256, (700, 32, 32, 3), dtype=np.uint8)
    embedder = PictureEmbedder(str(vision_models["resnet"]), "cpu", "fp32")
    found = []
    for n_threads in (1, 3):
        monkeypatch.setattr(
            "pudistill.learners.networks.embedding.cpu_count", lambda n=n_threads: n
        )
        found.append([*embedder.stream(X[start : start + 256] for start in range(0, 700, 256))])
    assert [len(block) for block in found[0]] == [256, 256, 188]
    np.testing.assert_array_equal(*map(np.concatenate, found))


@pytest.mark.parametrize("shape", [(32, 32, 3), (5, 4, 3), (200, 150, 3)])
def test_pictures_of_the_networks_size_are_looked_up(shape):
    processor = transformers.BitImageProcessorPil(do_resize=False, do_center_crop=False)

    def inputs_of(X):
        options = {"image_mean": [0.4] * shape[2], "image_std": [0.3] * shape[2]}
        return processor(list(X), input_data_format="channels_last", return_tensors="pt", **options)

    values = values_of_bytes(inputs_of, shape)
    X = np.random.default_rng(1).integers(0, 256, (7, *shape), dtype=np.uint8)
    np.testing.assert_array_equal(looked_up(values, X), inputs_of(X)["pixel_values"])


def test_pictures_that_a_processor_resizes_or_adapts_to_are_not_looked_up():
    resizing = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32})  # and crops

    def brightened(X):
        pixels = torch.from_numpy(np.moveaxis(X / X.max(axis=(1, 2, 3), keepdims=True), 3, 1))
        return {"pixel_values": pixels}

    for inputs_of in (lambda X: resizing(list(X), return_tensors="pt"), brightened):
        for shape in ((32, 32, 3), (64, 64, 3)):
            assert values_of_bytes(inputs_of, shape) is None


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_texts_are_embedded_as_by_transformers(bert, tmp_path, pooling):
    texts = ["the film was good", "bad", "the film was " + "great, " * 20, "lovely, fine"]
    folder = shutil.copytree(bert, tmp_path / "encoder")
    if pooling != "mean":
        modes = {"cls": "cls_token", "max": "max_tokens", "lasttoken": "lasttoken"}
        says = {f"pooling_mode_{modes[pooling]}": True, "pooling_mode_mean_tokens": False}
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(says))
        modules = [
            {"type": f"sentence_transformers.models.{layer}"} for layer in ("T", "Normalize")
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    n_tokens = 16 if pooling == "mean" else 8
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    expected = []
    for text in texts:  # one by one, without padding
        tokens = tokenizer(text, truncation=True, max_length=n_tokens, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state[0]
        takes = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}
        takes["max"] = hidden.amax(0)
        features = takes[pooling]
        expected.append((features / features.norm() if pooling != "mean" else features).numpy())
    found = TextEmbedder(str(folder), "cpu", "fp32")(np.array(texts, dtype=object))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_photos_are_fitted_predicted_and_shown(command, photos, vision_models):
    model = vision_models["resnet"]
    options = ["--trusted", "checked.csv", "--features", model, "--output", "run", *QUICK]
    code, out, err = command("fit", "photos", *options)
    assert (code, err) == (0, "")
    labels = pd.read_csv("run/labels.csv")
    right = np.where(labels["id"].str[-6:-4].astype(int) % 2, "light", "dark")
    assert (labels["label"] == right).all()
    metrics = json.loads((photos / "run/metrics.json").read_text())
    assert metrics["features"]["model"] == str(model)
    assert metrics["features"]["n_features"] == 16
    assert str(model) in (photos / "run/report.html").read_text()
    gallery = Run(photos / "run").read_arrays("gallery.npz")
    assert gallery["pictures"].shape[1:] == (20, 24, 3)

    code, out, err = command("predict", "run", "new")
    assert (code, err) == (0, "")
    rows = [line.split(",") for line in out.splitlines()[1:]]
    assert [label for _, label, _ in rows] == ["dark", "light"] * 5


def test_a_changed_model_is_noticed(command, photos, vision_models):
    folder = shutil.copytree(vision_models["vit"], photos / "model")
    options = ["--trusted", "checked.csv", "--features", "model", "--output", "run", *QUICK]
    assert command("fit", "photos", *options)[0] == 0
    about = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(about | {"rescale_factor": 0.1}))
    code, _, err = command("predict", "run", "new")
    assert code == 2
    assert "has changed since" in err
    write_text(photos / "new.csv")
    code, _, err = command("predict", "run", "new.csv")
    assert (code, "for texts" in err) == (2, True)


def write_text(path):
    pd.DataFrame({"text": ["good", "bad"]}).to_csv(path, index=False)


def test_reviews_are_fitted_and_predicted(command, reviews, bert):
    code, _, err = command("fit", "reviews.csv", "--features", bert, "--output", "run", *QUICK)
    assert code == 0
    assert "2 samples have no text" in err
    labels = pd.read_csv("run/labels.csv")
    truth = np.where(np.arange(120) % 2, "up", "down")
    known = ~np.isin(np.arange(120), (40, 41))
    assert (labels["label"] == truth)[known].mean() > 0.95
    pd.DataFrame({"said": ["great, lovely", "awful, bad"], "text": "the film"}).to_csv("new.csv")
    code, out, _ = command("predict", "run", "new.csv")
    assert code == 0
    assert len(out.splitlines()) == 3


def test_a_column_of_texts_can_be_named_and_swept(command, tmp_path, reviews, bert):
    table = pd.read_csv(reviews).rename(columns={"text": "said"}).drop(columns=["trusted"])
    table.to_parquet("clean.parquet")
    arguments = ["--text-column", "said", "--features", bert, "--features-cache", "cache"]
    arguments += ["--test-fraction", "0.3", "--levels", "0.4", "--noises", "symmetric"]
    arguments += ["--methods", "true_labels", "--trusted", "0.2"]
    assert command("sweep", "clean.parquet", *arguments, "--output", "curve")[0] == 0
    assert (
        json.loads((tmp_path / "curve/metrics.json").read_text())["features"]["made_of"] == "texts"
    )
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    assert not list((tmp_path / "curve/units").glob("features*"))


def test_noise_can_be_put_into_texts(command, reviews):
    clean = pd.read_csv(reviews).drop(columns=["trusted", "stars"])
    clean.to_csv("clean.csv", index=False)
    assert command("corrupt", "clean.csv", "--output", "noisy.parquet")[0] == 0
    noisy = load_dataset("noisy.parquet")
    assert noisy.X.tolist() == clean["text"].fillna("").tolist()
    assert repr(noisy).startswith("<TrustedDataset 'noisy': 120 samples (texts)")
    code, _, err = command("corrupt", "clean.csv", "--noise", "instance", "--output", "x.csv")
    assert (code, "instance" in err) == (2, True)
    code, _, err = command("corrupt", "clean.csv", "--output", "x.npz")
    assert (code, "cannot hold texts" in err) == (2, True)


class KilledError(Exception):
    pass


@pytest.fixture
def counted(monkeypatch):
    """Count the samples that are embedded, and stop at a limit."""

    class Count:
        n, limit = 0, 10**9

    def counting(self, blocks, original=PictureEmbedder.stream):
        for features in original(self, blocks):
            if Count.n + len(features) > Count.limit:
                raise KilledError
            Count.n += len(features)
            yield features

    monkeypatch.setattr(PictureEmbedder, "stream", counting)
    monkeypatch.setattr("pudistill.utils.row_file.ROWS_PER_CHECKSUM", 16)
    return Count


def test_an_interrupted_run_continues_where_it_stopped(photos, vision_models, counted, monkeypatch):
    monkeypatch.chdir(photos)
    values = {
        "data": "photos",
        "trusted": "checked.csv",
        "n_members": 3,
        "max_iter": 2,
        "n_jobs": 1,
    }
    settings = Settings.read(values | {"features": str(vision_models["resnet"]), "compare": False})
    alone = fit_run(settings, photos / "alone")
    counted.n, counted.limit = 0, 40
    with pytest.raises(KilledError):
        fit_run(settings, photos / "run")
    assert 32 <= counted.n < 40
    counted.n, counted.limit = 0, 10**9
    _, config = Run.begun(photos / "run")
    resumed = fit_run(Settings.read(config), photos / "run")
    assert counted.n < 80 - 32 + 4  # single samples are embedded to find the number of features
    pd.testing.assert_frame_equal(resumed.read_table("labels"), alone.read_table("labels"))


def test_features_are_computed_once_and_repaired(pictures, tmp_path, vision_models, counted):
    np.savez(tmp_path / "p.npz", X=pictures, y=np.arange(90) % 2)
    dataset = load_dataset(tmp_path / "p.npz")
    model = str(vision_models["resnet"])

    def embed():
        counted.n = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            features = embed_dataset(dataset, model, cache=tmp_path / "cache")
        return features, [
            str(warning.message) for warning in caught if warning.category is DamagedWarning
        ]

    first, caught = embed()
    assert isinstance(first.X, np.memmap)
    assert not first.X.flags.writeable
    np.testing.assert_array_equal(first.pictures, pictures)
    assert (counted.n, caught) == (91, [])
    expected = np.array(first.X)
    (path,) = (tmp_path / "cache").glob("*.npy")
    np.testing.assert_array_equal(np.load(path), expected)
    again, caught = embed()
    assert (counted.n, caught) == (1, [])

    whole = path.read_bytes()
    for damaged, n_computed in (
        (whole[:-8], 10),  # the last block
        (whole[:500] + bytes([whole[500] ^ 1]) + whole[501:], 16),
        (b"\x00" * 200 + whole[200:], 16),  # the header, too
        (b"", 90),
    ):
        path.write_bytes(damaged)
        again, caught = embed()
        assert counted.n == n_computed + 1
        assert len(caught) == 1
        np.testing.assert_array_equal(again.X, expected)
    path.with_suffix(".sums").unlink()
    assert embed()[1] == []
    assert counted.n == 91
    other = load_dataset(tmp_path / "p.npz").take(np.arange(89))
    assert embed_dataset(other, model, cache=tmp_path / "cache").X.shape == (89, 16)


def save(name, array):
    np.save(name, array)
    return name


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_users_own_features(command, tmp_path, dtype):
    wine = load_dataset("wine").take(np.random.default_rng(0).permutation(178))
    labels = pd.DataFrame({"id": wine.ids, "label": wine.y, "remark": "text of any kind"})
    labels["trusted"] = np.arange(178) % 2 == 0
    labels[:120].to_parquet("labels.parquet")
    labels[120:].to_csv("test.csv", index=False)
    save("own.npy", wine.X[:120].astype(dtype))
    save("more.npy", wine.X[120:].astype(dtype))
    options = ["--features", "own.npy", "--test-data", "test.csv", "--test-features", "more.npy"]
    assert command("fit", "labels.parquet", *options, "--output", "run", *QUICK)[0] == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["test_accuracy"]["pudistill"] > 0.9
    code, out, _ = command("predict", "run", "test.csv", "--features", "more.npy")
    assert (code, len(out.splitlines())) == (0, 59)
    code, _, err = command("predict", "run", "test.csv")
    assert (code, "--features" in err) == (2, True)


def test_errors_name_what_is_wrong_with_the_users_own_features(command, tmp_path):
    X = np.ones((150, 3), np.float32)
    with_nan = X.copy()
    with_nan[7, 1] = np.nan
    (tmp_path / "text.npy").write_text("no array")
    for name, says in {
        save("few.npy", X[:9]): "has 9 rows, but iris has 150 samples",
        save("deep.npy", X[..., None]): "(150, 3, 1)",
        save("whole.npy", X.astype(int)): "int64",
        save("objects.npy", X.astype(object)): "cannot be read as an array",
        save("nan.npy", with_nan): "row with id '7', column 1 holds nan",
        "text.npy": "cannot be read as an array",
        "absent.npy": "cannot be read as an array",
    }.items():
        code, _, err = command("fit", "iris", "--features", name, "--output", "run")
        assert code == 2, name
        assert name in err
        assert says in err
    assert not (tmp_path / "run").exists()
    save("more.npy", X)
    options = ["--output", "run", "--features", "more.npy"]
    code, _, err = command("fit", "iris", *options, "--test-data", "wine")
    assert (code, "test_features" in err) == (2, True)
    code, _, err = command("fit", "iris", *options, "--test-features", "more.npy")
    assert (code, "test_features" in err) == (2, True)


def test_errors_name_what_is_wrong_with_a_model(command, photos, vision_models, bert, reviews):
    resnet = vision_models["resnet"]
    (photos / "empty").mkdir()
    damaged = shutil.copytree(resnet, photos / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    partial = shutil.copytree(resnet, photos / "partial")
    weights = safetensors.torch.load_file(resnet / "model.safetensors")
    weights.popitem()
    safetensors.torch.save_file(weights, partial / "model.safetensors", {"format": "pt"})
    foreign = shutil.copytree(bert, photos / "foreign")
    (foreign / "1_Pooling").mkdir()
    says = '{"pooling_mode_weightedmean_tokens": true}'
    (foreign / "1_Pooling" / "config.json").write_text(says)
    numbers = pd.read_csv(reviews).drop(columns="text")
    numbers.assign(length=np.arange(len(numbers)) % 7).to_csv("numbers.csv", index=False)
    for data, model, message in (
        ("photos", "empty", "empty cannot be loaded"),
        ("photos", damaged, "damaged cannot be loaded"),
        ("photos", partial, "partial lacks 1 of its weights"),
        ("photos", bert, "name a model for pictures"),
        ("reviews.csv", resnet, "name a model for texts"),
        ("reviews.csv", foreign, "pooling_mode_weightedmean_tokens"),
        ("numbers.csv", resnet, "holds numeric features"),
    ):
        options = ["--features", model, "--output", "run"]
        trusted = ["--trusted", "checked.csv"] if data == "photos" else []
        code, _, err = command("fit", data, *options, *trusted)
        assert (code, message in err) == (2, True), err
    assert not (photos / "run").exists()
    options = ["--features", resnet, "--learner", "small_cnn", "--output", "run"]
    code, _, err = command("fit", "photos", "--trusted", "checked.csv", *options)
    assert (code, (photos / "run").exists()) == (2, False), err
