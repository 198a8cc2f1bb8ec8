"""Cards of all ops, by theme: importing this package fills `CARDS`. Start at card.py."""

from . import (
    activation,
    attention,
    convolution,
    device,
    elementwise,
    fused,
    indexing,
    linalg,
    loss,
    normalisation,
    reduction,
    shape,
)
from .card import CARDS, Draw, Kink, OpCard

__all__ = [
    "CARDS",
    "Draw",
    "Kink",
    "OpCard",
    "activation",
    "attention",
    "convolution",
    "device",
    "elementwise",
    "fused",
    "indexing",
    "linalg",
    "loss",
    "normalisation",
    "reduction",
    "shape",
]
