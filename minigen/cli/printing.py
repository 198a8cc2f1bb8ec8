"""What is printed: tables, complaints, and streams that may be closed, full, or of any encoding. Start at `table`."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress

from .options import UsageError


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be. On a terminal the last one is wrapped, so that nothing runs over its edge."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    left = sum(widths[:-1]) + 2 * (len(widths) - 1)
    width = max(20, shutil.get_terminal_size().columns - left) if sys.stdout.isatty() else sys.maxsize
    widths[-1] = min(widths[-1], width)
    for row in [header, ["-" * w for w in widths], *rows] if any(header) else rows:
        first = "  ".join(cell.ljust(w) for cell, w in zip(row[:-1], widths[:-1], strict=True))
        for i, line in enumerate(textwrap.wrap(row[-1], width) or [""]):
            print(f"{first if i == 0 else ' ' * len(first)}  {line}".rstrip())


def sentence(text: str) -> str:
    """A phrase with a capital letter and a full stop. `text`: not empty."""
    return text[0].upper() + text[1:] + "."


def complain(error: BaseException) -> None:
    """One line on standard error."""
    text = " ".join(str(error).split()) or ("interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}): choose a smaller --batch-size or a smaller model"
    with suppress(OSError):
        print(text if isinstance(error, UsageError) else f"minigen: {text}", file=sys.stderr, flush=True)


SPELLED = {"±": "+/-", "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt ", "α": "alpha", "²": "^2"}
SPELLED |= {"…": "...", "–": "-", "—": "-", "−": "-", "’": "'"}


def prepare_streams() -> None:
    """Print what a terminal's encoding lacks in other words, and live without standard streams."""
    spell = lambda error: ("".join(SPELLED.get(c, "?") for c in error.object[error.start : error.end]), error.end)
    codecs.register_error("minigen", spell)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="minigen")


def leave_streams() -> None:
    """What cannot be printed any longer would be tried again, and complained about, when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
