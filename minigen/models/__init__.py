"""Models, one file per family, each readable next to its paper. Start at vae.py; model.py is what they share."""

from .model import CAPABILITIES, MODELS, Entry, Loss, Model, ModelConfig
from .coupling import AffineCoupling, RealNVPConfig, SplineConfig, SplineCoupling
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, Inverse, InvertibleLinear
from .glow import GlowConfig, ImageFlow, Logit, MultiScale
from .maf import Autoregressive, MAFConfig, MaskedLinear, MaskedNetwork
from .vae import VAE, VAEConfig

__all__ = ["CAPABILITIES", "MODELS", "VAE", "Entry", "Loss", "Model", "ModelConfig", "VAEConfig"]
