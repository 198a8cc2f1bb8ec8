"""One table of all families at one budget: `minigen compare`. Start at `compare`. The folder of a comparison:

    comparisons/digits-2min/
      compare.json        what was asked for
      vae/, flow/, ...    a run of each family, as `minigen train` makes it, with its row.json and its samples.npy
      table.md            the table
      table.json          all that it rests on
      table.png           samples of each

A family whose row is there is done; one that was interrupted goes on where it was. The budget is processor time in training
steps. Likelihoods of images are not comparable between models that see them black and white and models that see grey levels:
the table says of each which it is, in which unit, by which estimator, and what a trivial model has.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from ..data import DATASETS
from ..data import load as load_data
from ..evaluation import NLL
from ..models import FAMILIES
from . import figures, files, quality, recorder
from .config import ConfigError, Diverged, RunConfig, unknown
from .progress import say_when_compiling
from .run import Run, load_run, train

NEVER, OFTEN = 10**9, 100  # steps between two evaluations, for it looks at the end only, and between two checkpoints
IN_ROW = 12  # images that are shown of each
UNITS = {
    True: "",
    False: ": in nats of models that see black and white, in bits per dimension of models that see grey levels, and these two "
    "cannot be compared",
}

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    minutes: of processor time for each family.     families: names in `models.FAMILIES`.
    tests: test samples for the likelihood, None for 500 images or 5,000 points.     k: see `Model.estimators`.
    Raises ConfigError for what is not known.
    """

    data: str = "digits"
    minutes: float = 2.0
    families: tuple[str, ...] = tuple(FAMILIES)
    seed: int = 0
    threads: int | None = 1
    tests: int | None = None
    k: int = 50

    def __post_init__(self) -> None:
        for family in self.families:
            if family not in FAMILIES:
                raise ConfigError(unknown("family", family, FAMILIES))
        if self.data not in DATASETS:
            raise ConfigError(unknown("data", self.data, DATASETS))

    @property
    def points(self) -> bool:
        """Whether the data are points in the plane; else they are images."""
        return DATASETS[self.data].levels is None

    @property
    def number(self) -> int:
        """How many test samples there are for the likelihood."""
        return min(self.tests or (5000 if self.points else 500), DATASETS[self.data].sizes["test"])

    def run(self, family: str) -> RunConfig:
        """The run of one family: its model for points, or for images."""
        model = FAMILIES[family][0 if self.points else 1]
        return RunConfig(
            model=model,
            data=self.data,
            minutes=self.minutes,
            seed=self.seed,
            threads=self.threads,
            evaluate_every=NEVER,
            checkpoint_every=OFTEN,
        )


def compare(wanted: Comparison, folder: Path, resume: bool = False, quiet: bool = False, say: Say = print) -> str:
    """Train and judge each family, write the table, and return it as Markdown.

    folder: empty or new, or with `resume` that of a comparison which asked for the same.     say: is told what goes on.
    Raises FileError or ConfigError, and all that `train` raises, but for Diverged: that is what the row of a family says then.
    """
    runs = {family: wanted.run(family) for family in wanted.families}
    for config in runs.values():
        Run(config)  # refuses what cannot be made, before anything is written
    _prepare(wanted, folder, resume)
    rows = []
    for family, config in runs.items():
        path = folder / family / "row.json"
        if not path.exists():
            say(f"{family}: {config.model} on {config.data}, {wanted.minutes:g} minutes of processor time")
            row = _trained(family, config, folder / family, wanted, quiet, say)
            files.make_folder(path.parent)
            files.write_json(path, row)
        rows.append(files.read_json(path))
    text = markdown(wanted, rows)
    files.write_json(folder / "table.json", {**asked(wanted), "rows": rows})
    files.write_atomically(folder / "table.png", picture(wanted, rows, folder))
    files.write_atomically(folder / "table.md", text.encode())
    return text


def _prepare(wanted: Comparison, folder: Path, resume: bool) -> None:
    path, values = folder / "compare.json", asked(wanted)
    if path.exists():
        if not resume:
            remedy = "add --resume, or choose another --out"
            raise files.FileError(folder, "there is a comparison in this folder already", remedy)
        before = files.read_json(path)
        if before != values:
            changed = ", ".join(name for name in values if not isinstance(before, dict) or before.get(name) != values[name])
            remedy = "ask for the same, or choose another --out"
            raise files.FileError(path, f"this comparison was asked for with another {changed}", remedy)
    elif resume or (folder.is_dir() and any(folder.iterdir())):
        remedy = "leave out --resume, and choose an empty or a new folder with --out"
        raise files.FileError(folder, "no comparison here" if resume else "not empty, and holds no comparison", remedy)
    else:
        files.make_folder(folder)
        files.write_json(path, values)


def asked(wanted: Comparison) -> dict[str, Any]:
    """What is compared, as JSON gives it back."""
    return {**dataclasses.asdict(wanted), "families": list(wanted.families)}


def _trained(family: str, config: RunConfig, folder: Path, wanted: Comparison, quiet: bool, say: Say) -> dict[str, Any]:
    """A run from wherever it is to its end, and what is to be said of it."""
    try:
        train(config, folder, resume=(folder / "config.json").exists(), quiet=quiet)
    except Diverged as error:
        return {"family": family, "model": config.model, "diverged": str(error)}
    with say_when_compiling(say):
        return judged(family, folder, wanted, say)


def judged(family: str, folder: Path, wanted: Comparison, say: Say) -> dict[str, Any]:
    """The row of a trained run; its samples go into samples.npy."""
    run = load_run(folder)
    n = quality.usual_number(run.test)
    say(f"{family}: {n} samples, and the likelihood of {wanted.number} test samples")
    with figures.looking_at(run) as model:
        quality.draw(model, min(n, 10), run.evaluation_rng())  # compiles what sampling needs
        start = time.process_time()
        samples = quality.draw(model, n, run.evaluation_rng())
        seconds = time.process_time() - start
    array = io.BytesIO()
    np.save(array, samples)
    files.write_atomically(folder / "samples.npy", array.getvalue())
    scores = quality.sample_scores(run, samples, say)
    row: dict[str, Any] = {
        "family": family,
        "model": run.config.model,
        "steps": run.step,
        "cpu_seconds": run.cpu_seconds,
        "parameters": run.model.num_parameters(),
        "samples_per_cpu_second": n / seconds,
        "nll": _likelihood(run, wanted),
        "scores": {s.name: dataclasses.asdict(s) for s in scores},
        "environment": recorder.environment(run),
    }
    if samples.ndim == 4:
        row["classes"] = quality.class_report(run, samples).share.tolist()  # shares
    return row


def _likelihood(run: Any, wanted: Comparison) -> dict[str, Any]:
    """The best likelihood that the model has, and what kind of number it is."""
    x = figures.some(run.test, wanted.number)[0]
    own = figures.estimators(run.model, wanted.k)
    if own:
        name, log_prob = next(iter(own.items()))
        nll = figures.estimate(run, x, name, log_prob)
    elif "log_prob_bound" in run.model.capabilities():
        nll = figures.likelihood(run, x, wanted.k)
    else:
        has_energy = "energy" in run.model.capabilities()
        known = "probabilities up to a constant, which is not known" if has_energy else "it gives no probabilities"
        return {"kind": "undefined", "why": getattr(run.model, "no_likelihood", None) or known}
    return {"kind": kind_of(nll), **dataclasses.asdict(nll), "text": str(nll)}


def kind_of(nll: NLL) -> str:
    """ "exact", "estimate" where it may be off to either side, or "bound" where it can only be too high."""
    if "ODE" in nll.estimator or nll.estimator.startswith("AIS"):
        return "estimate"
    return "exact" if nll.estimator.startswith("exact") else "bound"


# ---- the table


def markdown(wanted: Comparison, rows: Iterable[dict[str, Any]]) -> str:
    """The table, and below it with what it was made."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.get("scores", {})))
    shown = [name for name in names if name not in ("KID", "density", "coverage")]
    head = ["", "NLL", "which is", "floor or baseline", *shown, "samples / CPU-second", "parameters", "steps", "CPU-seconds"]
    lines = [head, ["---"] * len(head), *(_cells(row, shown) for row in rows)]
    text = [f"# {wanted.data}: {', '.join(row['family'] for row in rows)}", ""]
    text += [f"| {' | '.join(line)} |" for line in lines]
    judged_rows = [row for row in rows if "scores" in row]
    if judged_rows:
        n = next(iter(judged_rows[0]["scores"].values()))["n"]
        e = judged_rows[0]["environment"]
        floors = [f"{name} {_short(judged_rows[0]['scores'][name]['floor'])}" for name in shown]
        text += [
            "",
            f"Scores of {n} samples each; as many real ones, from the training set, have {', '.join(floors)}. "
            f"Likelihoods are means over {wanted.number} test samples{UNITS[wanted.points]}.",
            "",
            f"{wanted.minutes:g} minutes of processor time in training steps for each, seed {wanted.seed}, "
            f"{e['threads']} thread{'s' if e['threads'] != 1 else ''}, {e['processor']}; minigen {e['minigen']}, "
            f"Python {e['python']}, NumPy {e['numpy']}, Numba {e['numba']}, {e['platform']}.",
        ]
    for row in rows:
        if "diverged" in row:
            text += ["", f"{row['family']} diverged: {row['diverged']}"]
    return "\n".join(text) + "\n"


def _cells(row: dict[str, Any], shown: list[str]) -> list[str]:
    name = row["family"] if row["family"] == row["model"] else f"{row['family']} ({row['model']})"
    if "diverged" in row:
        return [name, "diverged", *["–"] * (len(shown) + 6)]
    nll, speed = row["nll"], row["samples_per_cpu_second"]
    return [
        name,
        _nll(nll),
        _which(nll),
        _compared(nll),
        *(_short(row["scores"][s]["value"]) for s in shown),
        f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}",
        f"{row['parameters']:,}",
        f"{row['steps']:,}",
        f"{row['cpu_seconds']:.0f}",
    ]


def _nll(nll: dict[str, Any]) -> str:
    """≤ 95.6 ± 0.3 nats"""
    if nll["kind"] == "undefined":
        return "undefined"
    sign = {"exact": "", "estimate": "≈ ", "bound": "≤ "}[nll["kind"]]
    value, stderr, unit = _in_unit(nll, nll["value"]), _in_unit(nll, nll["stderr"]), _unit(nll)
    digits = 1 if unit == "nats" and nll["dims"] > 10 else 3
    return f"{sign}{value:.{digits}f} ± {stderr:.{digits}f} {unit}"


def _which(nll: dict[str, Any]) -> str:
    """ "bound, IWAE-50; digits test, dynamic binarisation" """
    if nll["kind"] == "undefined":
        return nll["why"]
    how = nll["estimator"].removeprefix("exact").lstrip(", ")
    return f"{nll['kind']}{', ' if how else ''}{how}; {nll['data']}"


def _compared(nll: dict[str, Any]) -> str:
    if nll["kind"] == "undefined":
        return "–"
    digits = 1 if _unit(nll) == "nats" and nll["dims"] > 10 else 3
    if nll["floor"] is not None:
        return f"floor {_in_unit(nll, nll['floor']):.{digits}f}"
    name, value = nll["baseline"]
    return f"{name} {_in_unit(nll, value):.{digits}f}"


def _unit(nll: dict[str, Any]) -> str:
    return "nats" if nll["levels"] is None else "bits/dim"


def _in_unit(nll: dict[str, Any], nats: float) -> float:
    return nats if nll["levels"] is None else nats / nll["dims"] / float(np.log(2))


def _short(value: float) -> str:
    """Three digits, and no exponent."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def picture(wanted: Comparison, rows: list[dict[str, Any]], folder: Path) -> bytes:
    """A row of samples of each, or a panel where they are points, with its numbers beside it."""
    test = load_data(wanted.data, "test")
    drawn = {"data": test.x[figures.chosen(test, IN_ROW if test.x.ndim == 4 else figures.SHOWN)]}
    for row in rows:
        if "scores" in row:
            first = next(iter(row["scores"].values()))
            caption = f"{row['family']}\nNLL {_nll(row['nll'])}\n{first['name']} {_short(first['value'])}"
            drawn[caption] = np.load(folder / row["family"] / "samples.npy", allow_pickle=False)
    title = f"{wanted.data}, {wanted.minutes:g} minutes of processor time each"
    if test.x.ndim == 4:
        return plots.image_rows({name: images[:IN_ROW] for name, images in drawn.items()}, title)
    return plots.point_panels({name: points[: figures.SHOWN] for name, points in drawn.items()}, title)
