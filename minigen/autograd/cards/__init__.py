"""Cards of all ops, by theme: importing this package fills `CARDS`. Start at card.py."""

from . import activation, convolution, elementwise, indexing, linalg, reduction, shape
from .card import CARDS, Draw, Kink, OpCard

__all__ = [
    "CARDS",
    "Draw",
    "Kink",
    "OpCard",
    "activation",
    "convolution",
    "elementwise",
    "indexing",
    "linalg",
    "reduction",
    "shape",
]
