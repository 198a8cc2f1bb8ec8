"""Data sets as NumPy arrays, every one with its range, its licence and a checksum. Start at `load`.

    registry   `load(name, split)` and the table DATASETS
    dataset    `Dataset`, what comes back, and `DataError`, the one exception for data that cannot be had
    toys       distributions in the plane with known density and entropy
    shapes     rendered images with known factors
    digits, mnist, cifar     real images; `idx`, `reader` and `files` read and fetch their files
    batches    shuffled batches that can be resumed, binarisation, dequantisation
"""

from minigen.data.batches import BatchOrder, binarize, dequantize, minibatches, quantize
from minigen.data.dataset import DataError, Dataset
from minigen.data.registry import DATASETS, Entry, load
from minigen.data.toys import TOYS, Toy

__all__ = [
    "DATASETS",
    "TOYS",
    "BatchOrder",
    "DataError",
    "Dataset",
    "Entry",
    "Toy",
    "binarize",
    "dequantize",
    "load",
    "minibatches",
    "quantize",
]
