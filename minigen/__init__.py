"""minigen: deep generative models on a from-scratch engine."""

__version__ = "0.1.0"
