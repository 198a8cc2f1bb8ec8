"""MNIST, Fashion-MNIST and KMNIST: four IDX files each, of which a split needs two. Start at `load_split`.

    mnist           handwritten digits      LeCun, Cortes & Burges 1998
    fashion-mnist   articles of clothing    Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747
    kmnist          cursive hiragana        Clanuwat et al. 2018, arXiv 1812.01718

`load_half` makes of each a set of half the side, for models that take their time over each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minigen.data.dataset import Dataset
from minigen.data.files import Archive, find, is_users, obtain
from minigen.data.idx import check_labels, read_idx
from minigen.data.reader import check_sha256

SIDE, CLASSES = 28, 10
SIZES = {"train": 60_000, "test": 10_000}


@dataclass(frozen=True)
class Family:
    """One of the three. archives: split -> (images, labels).   mirrors: addresses of folders, tried in turn."""

    description: str
    licence: str
    mirrors: tuple[str, ...]
    archives: dict[str, tuple[Archive, Archive]]


def load_split(name: str, split: str, cache: Path | str | None = None) -> Dataset:
    """The 60,000 training or 10,000 test images of FAMILIES[name]: x (N, 28, 28, 1) in [0, 1], y (N,) in 0..9.

    Files from $MINIGEN_DATA/<name>/ are checked by the SHA-256 of their contents where it is known; for the other
    families that folder is trusted as to the values, and `source` says so. Downloaded files are always checked.
    Raises DataError.
    """
    images_archive, labels_archive = FAMILIES[name].archives[split]
    count = SIZES[split]
    images, images_from = _read(name, images_archive, (count, SIDE, SIDE), cache)
    labels, labels_from = _read(name, labels_archive, (count,), cache)
    check_labels(labels_from, labels, len(images), CLASSES)
    trusted = images_archive.contents is None and (is_users(images_from) or is_users(labels_from))
    return Dataset(
        name=name,
        split=split,
        x=np.divide(images, np.float32(255), dtype=np.float32)[..., None],  # (N, 28, 28, 1)
        y=labels.astype(np.int64),
        levels=256,
        entropy=None,
        source=f"{images_from.parent}" + (" (no checksum of the contents is known)" if trusted else ""),
        description=FAMILIES[name].description,
    )


def load_half(name: str, split: str, cache: Path | str | None = None) -> Dataset:
    """The same images at half the side: x (N, 14, 14, 1), the mean of each 2 x 2 block, so one of 4 · 255 + 1 levels.

    Raises DataError.
    """
    whole, half = load_split(name, split, cache), SIDE // 2
    grey = np.rint(whole.x * 255).astype(np.uint16)  # (N, 28, 28, 1)
    blocks = grey.reshape(-1, half, 2, half, 2, 1).sum(axis=(2, 4), dtype=np.uint16)  # (N, 14, 14, 1), 0 ... 1020
    x = np.divide(blocks, np.float32(4 * 255), dtype=np.float32)
    return replace(whole, name=f"{name}-14", x=x, levels=4 * 255 + 1, description=half_description(name))


def half_description(name: str) -> str:
    """What the images of half the side are."""
    return FAMILIES[name].description.replace(f"{SIDE} x {SIDE}", f"averaged to {SIDE // 2} x {SIDE // 2}")


def where(name: str, cache: Path | str | None = None) -> str | None:
    """The folder that holds all four files, or None where at least one would have to be downloaded. Reads nothing."""
    paths = [find(name, archive, cache) for pair in FAMILIES[name].archives.values() for archive in pair]
    if None in paths:
        return None
    return ", ".join(dict.fromkeys(str(path.parent) for path in paths if path is not None))


def _read(name: str, archive: Archive, shape: tuple[int, ...], cache: Path | str | None) -> tuple[np.ndarray, Path]:
    path = obtain(name, archive, FAMILIES[name].mirrors, cache)
    if archive.contents is None and not is_users(path):
        check_sha256(path, archive.sha256)
    return read_idx(path, shape, archive.contents), path


def _archives(*rows: tuple[int, str, str | None]) -> dict[str, tuple[Archive, Archive]]:
    """split -> (images, labels) from four rows: training images and labels, test images and labels."""
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    files = [Archive(name + ".gz", *row) for name, row in zip(names, rows, strict=True)]
    return {"train": (files[0], files[1]), "test": (files[2], files[3])}


FAMILIES = {
    "mnist": Family(
        "handwritten digits, 28 x 28",
        "CC BY-SA 3.0",
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        _archives(  # bytes, SHA-256 of the .gz, SHA-256 of the contents
            (
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            (
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            (
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            (
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    ),
    "fashion-mnist": Family(
        "articles of clothing, 28 x 28",
        "MIT",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        _archives(
            (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", None),
            (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", None),
            (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", None),
            (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", None),
        ),
    ),
    "kmnist": Family(
        "cursive hiragana, 28 x 28",
        "CC BY-SA 4.0",
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        _archives(
            (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", None),
            (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", None),
            (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", None),
            (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", None),
        ),
    ),
}
