"""Cards of all ops, by theme: importing this package fills `CARDS`. Start at card.py."""

from .card import CARDS, Draw, Kink, OpCard

__all__ = ["CARDS", "Draw", "Kink", "OpCard"]
