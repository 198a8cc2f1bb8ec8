"""`load(name, split)` and `DATASETS`, the table of what can be loaded. Start at either."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from minigen.data import cifar, digits, mnist, shapes
from minigen.data.dataset import SPLITS, DataError, Dataset
from minigen.data.toys import TOYS

TOY_SIZES = {"train": 20_000, "test": 10_000}

Cache = Path | str | None


@dataclass(frozen=True)
class Entry:
    """What is known of a data set before it is loaded.

    shape: of one sample.   levels: grey levels, None for points.   sizes: split -> number of samples.
    source: where the data come from.   licence: of the data.
    load_split(split, cache): the loader that `load` calls.
    where(cache): what it would be loaded from right now, or None where it would have to be downloaded. Reads no file.
    """

    name: str
    description: str
    shape: tuple[int, ...]
    levels: int | None
    sizes: dict[str, int]
    source: str
    licence: str
    load_split: Callable[[str, Cache], Dataset]
    where: Callable[[Cache], str | None]


def load(name: str, split: str = "train", cache: Cache = None) -> Dataset:
    """Load one split of a data set: the same arrays every time (toys and shapes: on one machine, since the cosines of
    mathematics libraries differ in the last digit).

    name: one of DATASETS.   split: "train" or "test".
    cache: folder for downloads; None for the operating system's, such as ~/.cache/minigen. The environment variable
        MINIGEN_DATA may name a folder of files that are there already, which is searched first.

    Raises DataError for an unknown name or split, and for files that are missing, damaged or not to be had.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        suggestion = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(f"data set {name!r}", "unknown", f"{suggestion}Known are {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise DataError(f"data set {name!r}", f"has no split {split!r}", f"Choose one of {', '.join(SPLITS)}")
    return DATASETS[name].load_split(split, cache)


def _load_toy(name: str, split: str) -> Dataset:
    """Fixed draws from a toy distribution; the seed follows from the name and the split alone."""
    from minigen.random import Generator

    toy = TOYS[name]
    seed = int.from_bytes(hashlib.sha256(f"{name}/{split}".encode()).digest()[:4], "big")
    return Dataset(
        name=name,
        split=split,
        x=toy.sample(TOY_SIZES[split], Generator(seed)),
        y=None,
        levels=None,
        entropy=toy.entropy,
        source="drawn by minigen.data.toys",
        description=toy.description,
    )


def _mnist_entry(name: str) -> Entry:
    """One of the three, 28 x 28."""
    family = mnist.FAMILIES[name]
    return Entry(
        name,
        family.description,
        shape=(mnist.SIDE, mnist.SIDE, 1),
        levels=256,
        sizes=mnist.SIZES,
        source=family.mirrors[0],
        licence=family.licence,
        load_split=lambda split, cache: mnist.load_split(name, split, cache),
        where=lambda cache: mnist.where(name, cache),
    )


def _half_mnist_entry(name: str) -> Entry:
    """The same, averaged to 14 x 14."""
    return replace(
        _mnist_entry(name),
        name=f"{name}-14",
        description=mnist.half_description(name),
        shape=(mnist.SIDE // 2, mnist.SIDE // 2, 1),
        levels=4 * 255 + 1,
        load_split=lambda split, cache: mnist.load_half(name, split, cache),
    )


def _toy_entry(name: str) -> Entry:
    return Entry(
        name,
        TOYS[name].description,
        shape=(2,),
        levels=None,
        sizes=TOY_SIZES,
        source="drawn by minigen",
        licence="MIT",
        load_split=lambda split, cache: _load_toy(name, split),
        where=lambda cache: "drawn by minigen",
    )


DATASETS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "digits",
            "handwritten digits, 8 x 8",
            shape=(8, 8, 1),
            levels=digits.GREY_LEVELS,
            sizes=digits.SIZES,
            source="UCI Optical Recognition of Handwritten Digits, bundled with scikit-learn",
            licence="CC BY 4.0",
            load_split=lambda split, cache: digits.load_split(split),
            where=lambda cache: digits.where(),
        ),
        *map(_mnist_entry, mnist.FAMILIES),
        _half_mnist_entry("mnist"),
        Entry(
            "cifar10",
            "colour photographs of ten classes, 32 x 32",
            shape=(cifar.SIDE, cifar.SIDE, cifar.CHANNELS),
            levels=256,
            sizes={split: cifar.BATCH * len(names) for split, names in cifar.BATCHES.items()},
            source=cifar.MIRRORS[0] + cifar.ARCHIVE.name,
            licence="none stated by its authors",
            load_split=lambda split, cache: cifar.load_split(split, cache),
            where=lambda cache: cifar.where(cache),
        ),
        Entry(
            "shapes",
            "rendered shapes with known factors, 32 x 32",
            shape=(32, 32, 1),
            levels=shapes.LEVELS,
            sizes=shapes.SIZES,
            source="rendered by minigen",
            licence="MIT",
            load_split=lambda split, cache: shapes.load_split(split),
            where=lambda cache: "rendered by minigen",
        ),
        *map(_toy_entry, TOYS),
    )
}
