"""One table of all families: made of runs, resumed where it was interrupted, and honest about what kind of number each is."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from minigen import cli
from minigen.evaluation import NLL, classifier
from minigen.models import FAMILIES, MODELS, Model
from minigen.models.model import Entry, ModelConfig
from minigen.training import compare as comparing
from minigen.training import figures, files, quality
from minigen.training.compare import Comparison, compare, kind_of
from minigen.training.config import ConfigError, Diverged
from minigen.training.interrupt import Interrupted

_spec = importlib.util.spec_from_file_location("run_harness", Path(__file__).parent / "run_harness.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


class NoLikelihood(Model):
    """Learns nothing, and gives no probabilities."""

    no_likelihood = "it only draws"

    def __init__(self, data_shape, config, rng):
        self.data_shape, self.config = data_shape, config
        self.mean = harness.parameter(np.zeros(data_shape, np.float32))

    def loss(self, x, rng):
        return harness.Loss((self.mean * self.mean).sum(), {})

    def sample(self, n, rng):
        return rng.uniform((n, *self.data_shape))


class Bounded(harness.Tiny):
    """A bound, such as it is."""

    def log_prob_bound(self, x, k, rng):
        return self.elbo(x, rng)[0].data


@pytest.fixture(autouse=True)
def families(monkeypatch, tmp_path):
    """Two small families; the classifier is a bad one, and not the user's."""
    monkeypatch.setitem(MODELS, "tiny", Entry("tiny", Bounded, ModelConfig, Bounded, "one image"))
    monkeypatch.setitem(MODELS, "blind", Entry("blind", NoLikelihood, ModelConfig, NoLikelihood, "no probabilities"))
    known = dict(FAMILIES)
    FAMILIES.clear()
    FAMILIES.update(flow=("realnvp", "tiny"), blind=("blind", "blind"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "STEPS", 20)
    monkeypatch.setattr(quality, "SAMPLES", {2: 100, 4: 60})
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.chdir(tmp_path)
    yield
    FAMILIES.clear()
    FAMILIES.update(known)  # in the order that others are shown them in


SHORT = {"minutes": 0.002, "families": ("flow", "blind"), "tests": 50}


def quietly(wanted, folder, **more):
    said: list[str] = []
    return compare(wanted, folder, quiet=True, say=said.append, **more), said


def test_a_table_of_images(tmp_path):
    text, said = quietly(Comparison("digits", **SHORT), tmp_path / "all")
    assert said[0] == "flow: tiny on digits, 0.002 minutes of processor time"
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = [cell.strip() for cell in header.split("|")[1:-1]]
    assert columns == [
        "", "NLL", "which is", "floor or baseline", "LeNet-FID", "precision", "recall", "samples / CPU-second", "parameters",
        "steps", "CPU-seconds",
    ]  # fmt: skip
    tiny, blind = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)
    assert tiny[0] == "flow (tiny)"
    assert tiny[1].startswith("≤ ")
    assert tiny[1].endswith(" nats")
    assert tiny[2] == "bound, IWAE-50; digits test, dynamic binarisation"
    assert tiny[3].startswith("independent Bernoullis 2")
    assert blind[:4] == ["blind", "undefined", "it only draws", "–"]
    assert tiny[8] == blind[8] == "64"
    assert "Scores of 60 samples each; as many real ones, from the training set, have LeNet-FID " in text
    assert "Likelihoods are means over 50 test samples: in nats of models that see black and white" in text
    assert "seed 0, 1 thread, " in text
    table = json.loads((tmp_path / "all/table.json").read_text())
    assert (tmp_path / "all/table.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "all/table.png").read_bytes().startswith(b"\x89PNG")
    row = table["rows"][0]
    assert row["scores"]["LeNet-FID"]["n"] == 60
    assert row["scores"]["LeNet-FID"]["floor"] < row["scores"]["LeNet-FID"]["value"]
    assert sum(row["classes"]) == pytest.approx(1)
    assert 0.12 <= row["cpu_seconds"] < 2
    assert (table["minutes"], table["data"], table["families"]) == (0.002, "digits", ["flow", "blind"])
    assert np.load(tmp_path / "all/flow/samples.npy").shape == (60, 8, 8, 1)


def test_a_table_of_points(tmp_path):
    text, _ = quietly(Comparison("moons", **SHORT), tmp_path / "all")
    assert "| flow (realnvp) | " in text
    assert "| exact; moons test | floor 1.008 |" in text
    assert "| MMD² | sliced W₂² | precision | recall |" in text
    assert "black and white" not in text
    assert (tmp_path / "all/table.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path, monkeypatch):
    wanted, folder = Comparison("moons", **SHORT), tmp_path / "all"
    own, trained = comparing.train, []

    def train(config, folder, resume, quiet):
        if config.model == "blind" and not resume:
            own(comparing.dataclasses.replace(config, minutes=None, steps=3), folder, quiet=True)
            files.write_json(folder / "config.json", config.to_json())
            raise Interrupted(2, "interrupted")
        trained.append((config.model, resume))
        return own(config, folder, resume=resume, quiet=quiet)

    monkeypatch.setattr(comparing, "train", train)
    with pytest.raises(Interrupted):
        quietly(wanted, folder)
    assert not (folder / "table.md").exists()
    first = (folder / "flow/row.json").stat().st_mtime_ns
    text, said = quietly(wanted, folder, resume=True)
    assert trained == [("realnvp", False), ("blind", True)]
    assert said[0] == "blind: blind on moons, 0.002 minutes of processor time"
    assert not any(line.startswith("flow") for line in said)
    assert (folder / "flow/row.json").stat().st_mtime_ns == first
    assert text == (folder / "table.md").read_text(encoding="utf-8")
    again, said = quietly(wanted, folder, resume=True)
    assert (again, said) == (text, [])


def test_a_family_that_diverges_has_a_row_that_says_so(tmp_path, monkeypatch):
    own = comparing.train

    def train(config, folder, resume, quiet):
        if config.model == "blind":
            raise Diverged("step 7: loss is nan")
        return own(config, folder, resume=resume, quiet=quiet)

    monkeypatch.setattr(comparing, "train", train)
    text, _ = quietly(Comparison("moons", **SHORT), tmp_path / "all")
    assert "| blind | diverged | – |" in text
    assert text.endswith("blind diverged: step 7: loss is nan\n")
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {header.count("|")}


def test_refusals(tmp_path):
    wanted, folder = Comparison("moons", **SHORT), tmp_path / "all"
    with pytest.raises(ConfigError, match="unknown family 'flaw'; did you mean flow"):
        Comparison(families=("flaw",))
    with pytest.raises(files.FileError, match="no comparison here"):
        compare(wanted, folder, resume=True)
    folder.mkdir()
    files.write_json(folder / "compare.json", comparing.asked(wanted))
    with pytest.raises(files.FileError, match="there is a comparison in this folder already"):
        compare(wanted, folder)
    with pytest.raises(files.FileError, match="asked for with another minutes, seed"):
        compare(comparing.dataclasses.replace(wanted, minutes=1.0, seed=3), folder, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("mine")
    with pytest.raises(files.FileError, match="not empty, and holds no comparison"):
        compare(wanted, tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_the_command(tmp_path, capsys):
    line = "compare --data moons --minutes 0.002 --families flow --tests 20 --quiet"
    assert cli.main(line.split()) == 0
    out, told = capsys.readouterr()
    assert told == ""
    assert out == (tmp_path / "comparisons/moons-0.002min/table.md").read_text(encoding="utf-8")
    assert cli.main(line.split()) == 2
    assert "add --resume" in capsys.readouterr().err
    assert cli.main([*line.split(), "--resume"]) == 0
    assert cli.main(["compare", "--families", "flow,gaan"]) == 2
    assert "unknown family 'gaan'" in capsys.readouterr().err


@pytest.mark.parametrize(("estimator", "kind"), [
    ("exact", "exact"), ("exact, probability-flow ODE", "estimate"), ("AIS, 100 chains", "estimate"), ("IWAE-50", "bound"),
    ("ELBO", "bound"), ("variational bound, 50 terms", "bound"),
])  # fmt: skip
def test_kinds(estimator, kind):
    assert kind_of(NLL(1.0, 0.1, 10, estimator, "x", 2, floor=0.0)) == kind
