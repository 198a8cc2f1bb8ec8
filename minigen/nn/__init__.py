"""Neural network layers. Start at module.py, then layers.py."""

from . import init
from .attention import MultiHeadAttention
from .layers import Conv2d, ConvTranspose2d, Dropout, Embedding, Linear, Sequential, parameter
from .module import Module
from .normalisation import BatchNorm, GroupNorm, InstanceNorm, LayerNorm

__all__ = [
    "BatchNorm",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "Sequential",
    "init",
    "parameter",
]
