"""Generate pictures, features and a small model of any size."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

ROWS_IN_A_SHARD, ROWS_IN_A_GROUP = 50_000, 1_000
WRONG, TRUSTED = 0.4, 0.02
N_FEATURES, N_CLASSES = 384, 14  # those of DINOv2-small on Clothing1M
ROWS_AT_ONCE = 65_536


def real_pictures(data: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return pictures and labels of CIFAR-10 or, without its files, of scikit-learn's digits."""
    files = sorted((data / "cifar10").glob("train-*.parquet"))
    if files:
        from pudistill.data.loading import load_dataset

        dataset = load_dataset(files[0].parent)
        return list(dataset.X), np.unique(dataset.y, return_inverse=True)[1]
    from sklearn.datasets import load_digits

    digits = load_digits()
    return list((digits.images * 15).astype(np.uint8)), digits.target


def similar_picture(rng: np.random.Generator, picture: np.ndarray) -> bytes:
    """Return a picture as JPEG, perhaps mirrored, moved, and a little brighter or darker."""
    from PIL import Image

    moved = np.roll(picture, rng.integers(-3, 4, size=2), axis=(0, 1))
    moved = moved[:, ::-1] if rng.random() < 0.5 else moved
    bright = np.clip(moved * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(bright)).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_pictures(folder: Path, n_rows: int, data: Path) -> None:
    """Write shards of small JPEGs, some with wrong labels and a few with verified ones."""
    n_shards = -(-n_rows // ROWS_IN_A_SHARD)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"train-{n:05d}-of-{n_shards:05d}.parquet" for n in range(n_shards)]
    if all(map(Path.exists, paths)):
        return
    pictures, labels = real_pictures(data)
    n_classes = labels.max() + 1
    for shard, path in enumerate(paths):
        if path.exists():
            continue
        rng = np.random.default_rng([n_rows, shard])
        size = min(ROWS_IN_A_SHARD, n_rows - shard * ROWS_IN_A_SHARD)
        chosen = rng.integers(len(pictures), size=size)
        wrong = rng.random(size) < WRONG
        given = np.where(wrong, (labels[chosen] + 1) % n_classes, labels[chosen])
        trusted = rng.random(size) < TRUSTED
        verified = [
            str(label) if is_trusted else None
            for label, is_trusted in zip(labels[chosen], trusted, strict=True)
        ]
        images = [
            {"bytes": similar_picture(rng, pictures[index]), "path": None} for index in chosen
        ]
        table = {
            "image": pa.array(images, kind),
            "label": pa.array(given.astype(str)),
            "verified_label": pa.array(verified, pa.string()),
        }
        temporary = path.with_suffix(".writing")
        pq.write_table(pa.table(table), temporary, row_group_size=ROWS_IN_A_GROUP)
        temporary.rename(path)


def write_features(
    folder: Path, n_rows: int, n_features: int = N_FEATURES, n_classes: int = N_CLASSES
) -> None:
    """Write float16 features of overlapping classes, labels, and a mask of trusted samples."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n_classes, n_features)) * 0.35
    true = rng.integers(n_classes, size=n_rows)
    folder.mkdir(parents=True, exist_ok=True)
    X = open_memmap(folder / "X.npy", "w+", np.float16, (n_rows, n_features))
    for start in range(0, n_rows, ROWS_AT_ONCE):
        labels = true[start : start + ROWS_AT_ONCE]
        noise = rng.standard_normal((len(labels), n_features), dtype=np.float32)
        X[start : start + len(labels)] = centres[labels] + noise
    trusted = rng.random(n_rows) < TRUSTED
    np.savez(folder / "labels.npz", true=true, trusted=trusted)


def write_table(folder: Path, n_rows: int, n_features: int = 64, n_classes: int = 10) -> None:
    """Write features as `write_features` does, and a table with ids, given and verified labels."""
    write_features(folder, n_rows, n_features, n_classes)
    with np.load(folder / "labels.npz") as file:
        true, trusted = file["true"], file["trusted"]
    names = np.array([f"class {n}" for n in range(n_classes)])
    rng = np.random.default_rng(1)
    kinds = {"id": pa.string(), "label": pa.string(), "verified_label": pa.string()}
    with pq.ParquetWriter(folder / "labels.parquet", pa.schema(kinds)) as writer:
        for start in range(0, n_rows, ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            right, size = true[rows], len(true[rows])
            given = np.where(rng.random(size) < WRONG, (right + 1) % n_classes, right)
            table = {
                "id": [f"sample-{row:09d}" for row in range(start, start + size)],
                "label": names[given],
                "verified_label": pa.array(names[right], mask=~trusted[rows]),
            }
            writer.write_table(pa.table(table, pa.schema(kinds)))


def write_model(folder: Path) -> None:
    """Write a tiny network of random weights in the format of the Hugging Face hub."""
    import torch
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1]}
    ResNetModel(ResNetConfig(**sizes, layer_type="basic")).save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained(folder)
