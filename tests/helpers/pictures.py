"""Pictures that tests write and read."""

import io
import struct

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_picture(path, pixels=0, size=(5, 4)):
    """Write an array, or one grey, and the folders above; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_array = isinstance(pixels, np.ndarray)
    (Image.fromarray(pixels) if is_array else Image.new("L", size, pixels)).save(path)
    return path


def saved(picture, kind="PNG", **options):
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, kind, **options)
    return file.getvalue()


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def digit_pictures(n=None, n_class=10):
    """The first `n` pictures of scikit-learn's digits, as bytes, and their labels."""
    X, y = load_digits(n_class=n_class, return_X_y=True)
    return (X[:n] * 15).astype(np.uint8).reshape(-1, 8, 8), y[:n]
