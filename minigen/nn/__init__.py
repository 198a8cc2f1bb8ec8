"""Neural network layers. Start at module.py, then layers.py."""

from . import init
from .attention import MultiHeadAttention
from .convolution import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from .layers import Dropout, Embedding, Linear, Sequential, parameter
from .modulation import ModulatedConv2d
from .module import Known, Module
from .normalisation import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from .spectral_norm import SpectralConv2d, SpectralLinear, SpectralNorm

__all__ = [
    "BatchNorm",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "InstanceNorm",
    "Known",
    "LayerNorm",
    "Linear",
    "ModulatedConv2d",
    "Module",
    "MultiHeadAttention",
    "Sequential",
    "SpectralConv2d",
    "SpectralLinear",
    "SpectralNorm",
    "init",
    "parameter",
]
