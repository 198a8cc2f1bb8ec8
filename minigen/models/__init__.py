"""Models, one file per family, each readable next to its paper. Start at vae.py; model.py is what they share."""

from .ddpm import DDPM, DDPM2dConfig, DDPMConfig
from .model import CAPABILITIES, MODELS, Entry, Loss, Model, ModelConfig
from .vae import VAE, VAEConfig

__all__ = [
    "CAPABILITIES",
    "DDPM",
    "MODELS",
    "VAE",
    "DDPM2dConfig",
    "DDPMConfig",
    "Entry",
    "Loss",
    "Model",
    "ModelConfig",
    "VAEConfig",
]
