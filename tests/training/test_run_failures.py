"""What a run does where something goes wrong: one line, nothing lost, and it can be resumed."""

import errno

import numpy as np
import pytest
from checkpoint_harness import FaultyOS, error
from run_harness import Tiny, digest, metrics

from minigen import cli
from minigen.models import Diverged
from minigen.training import checkpoint, figures, files
from minigen.training.checkpoint import Checkpoints
from minigen.training.files import FileError

OPTIONS = ["--steps", "12", "--log-every", "2", "--evaluate-every", "6", "--checkpoint-every", "5", "--batch-size", "100"]
FIGURE = {"samples": lambda run, folder: b"a figure"}  # drawing takes most of the time, writing is what is tested


def minigen(out, *options):
    return cli.main(["train", "tiny", "--out", str(out), "--quiet", *options])


def one_line(capsys):
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    return told


@pytest.fixture
def whole(tmp_path, tiny, monkeypatch):
    """Digest and metrics of a run that nothing happens to; runs draw one figure."""
    monkeypatch.setattr(figures, "FIGURES", FIGURE)
    assert minigen(tmp_path / "whole", *OPTIONS) == 0
    return digest(tmp_path / "whole"), metrics(tmp_path / "whole")


def with_fault(out, at, code, monkeypatch):
    """A run whose at-th call that touches the disk fails; what it returned, and the calls that it made."""
    with monkeypatch.context() as patch:
        faulty = FaultyOS(at, error(code)).install(patch.setattr)
        status = minigen(out, *OPTIONS)
    return status, faulty.trace


def every_fault(tmp_path, whole, monkeypatch, capsys, stride):
    _, trace = with_fault(tmp_path / "traced", None, 0, monkeypatch)
    assert {"open", "write", "fsync file", "fsync folder", "replace", "close"} <= set(trace)
    for at in range(0, len(trace), stride):
        out = tmp_path / str(at)
        status, _ = with_fault(out, at, (errno.ENOSPC, errno.EIO)[at % 2], monkeypatch)
        told = capsys.readouterr().err
        assert (status, told.count("\n")) == (2, 1), f"call {at}, {trace[at]}: {told}"
        assert told.startswith(f"minigen: {out}"), told
        resume = ["--resume"] if (out / "config.json").exists() else OPTIONS
        assert minigen(out, *resume) == 0, capsys.readouterr().err
        assert (digest(out), metrics(out)) == whole, f"call {at}, {trace[at]}"


def test_a_full_or_broken_disk_costs_one_line_and_nothing_else(tmp_path, whole, monkeypatch, capsys):
    every_fault(tmp_path, whole, monkeypatch, capsys, stride=5)


@pytest.mark.slow
def test_every_call_that_touches_the_disk_may_fail(tmp_path, whole, monkeypatch, capsys):
    every_fault(tmp_path, whole, monkeypatch, capsys, stride=1)


@pytest.mark.parametrize("what", ["metrics.jsonl", "samples.png"])
def test_steps_made_before_something_could_not_be_written_are_saved(what, tmp_path, whole, monkeypatch, capsys):
    def full(path, *rest):
        if path.name == what:
            raise FileError(path, "cannot be written: No space left on device", "free space")
        return kept(path, *rest)

    name = "append_line" if what == "metrics.jsonl" else "write_atomically"
    kept = getattr(files, name)
    with monkeypatch.context() as patch:
        patch.setattr(files, name, full)
        assert minigen(tmp_path / "full", *OPTIONS) == 2
    assert f"{what}: cannot be written: No space left on device" in one_line(capsys)
    step = {"metrics.jsonl": 2, "samples.png": 6}[what]  # where it was due for the first time: no checkpoint was
    assert Checkpoints(tmp_path / "full" / "checkpoints").steps()[-1] == step
    assert minigen(tmp_path / "full", "--resume") == 0
    assert (digest(tmp_path / "full"), metrics(tmp_path / "full")) == whole


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, whole, monkeypatch, capsys):
    def full(path, state, *, meta):
        if meta["step"] > 5:
            raise checkpoint.CheckpointError(path, "No space left on device", "free space")
        kept(path, state, meta=meta)

    kept = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        assert minigen(tmp_path / "full", *OPTIONS) == 2
    assert "step-00000010.ckpt: No space left" in one_line(capsys)
    assert Checkpoints(tmp_path / "full" / "checkpoints").steps() == [5]
    assert minigen(tmp_path / "full", "--resume") == 0
    assert (digest(tmp_path / "full"), metrics(tmp_path / "full")) == whole


def test_a_run_that_diverges_says_so_and_keeps_its_last_good_checkpoint(tmp_path, bare, monkeypatch, capsys):
    def loss(self, x, rng):
        found = kept(self, x, rng)
        self.steps = getattr(self, "steps", 0) + 1
        return found if self.steps < 8 else found._replace(terms={"elbo": float("nan")})

    kept = Tiny.loss
    monkeypatch.setattr(Tiny, "loss", loss)
    assert minigen(tmp_path / "run", *OPTIONS) == 1
    way = "the run is back at its last good checkpoint, step 5: go on with --resume --lr 0.0005, or less"
    assert one_line(capsys) == f"minigen: step 8: elbo is nan: training has diverged; {way}\n"
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [5]
    monkeypatch.setattr(Tiny, "loss", kept)
    assert minigen(tmp_path / "run", "--resume", "--lr", "0.0005") == 0
    assert files.read_json(tmp_path / "run" / "config.json")["options"]["lr"] == 0.0005
    assert [line["step"] for line in metrics(tmp_path / "run")] == [2, 4, 6, 6, 8, 10, 12, 12]


def diverging_with_a_large_rate(monkeypatch, steps):
    """Tiny, whose loss is NaN from so many steps on with a learning rate above 1."""

    def train_step(self, x, rng, optimizers):
        large = next(iter(optimizers.values())).lr > 1
        self.steps = getattr(self, "steps", 0) + large
        terms = kept(self, x, rng, optimizers)
        return {"elbo": float("nan")} if self.steps > steps else terms

    kept = Tiny.train_step
    monkeypatch.setattr(Tiny, "train_step", train_step)


def texts(folder):
    """What a run's folder holds: its files and their contents."""
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != "environment.json"}


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_resumed_run_that_diverges_leaves_the_run_as_it_was(steps, tmp_path, bare, monkeypatch, capsys):
    """After no step, after one or two, which are not saved, or after three, of which nothing good can come."""
    options = [*OPTIONS[2:], "--checkpoint-every", "3"]
    assert minigen(tmp_path, "--steps", "6", *options) == 0
    before = texts(tmp_path)
    diverging_with_a_large_rate(monkeypatch, steps)
    assert minigen(tmp_path, "--resume", "--lr", "10", "--steps", "20") == 1
    way = "back at its last good checkpoint, step 6, and at its learning rate of before, 0.001: go on with --resume\n"
    assert one_line(capsys).endswith(way)
    if steps == 3:
        before = {name: text for name, text in before.items() if name.name != "step-00000003.ckpt"}  # two are kept: 6 and 9
    assert texts(tmp_path) == before


def test_a_resumed_run_that_diverges_later_keeps_what_it_learned_and_how(tmp_path, bare, monkeypatch, capsys):
    assert minigen(tmp_path, "--steps", "6", *OPTIONS[2:], "--checkpoint-every", "3") == 0
    diverging_with_a_large_rate(monkeypatch, 5)
    assert minigen(tmp_path, "--resume", "--lr", "10", "--steps", "20") == 1
    assert one_line(capsys).endswith("back at its last good checkpoint, step 9: go on with --resume --lr 5, or less\n")
    assert files.read_json(tmp_path / "config.json")["options"]["lr"] == 10


def test_settings_that_nothing_was_saved_with_are_not_kept(tmp_path, bare, monkeypatch):
    """Whatever stops a resumed run before its first checkpoint: a bug, say."""
    assert minigen(tmp_path, *OPTIONS) == 0
    before = files.read_json(tmp_path / "config.json")
    monkeypatch.setattr(Tiny, "loss", lambda self, x, rng: {}["a bug"])
    with pytest.raises(KeyError):
        minigen(tmp_path, "--resume", "--lr", "10", "--steps", "20")
    assert files.read_json(tmp_path / "config.json") == before


def test_a_model_that_is_no_longer_finite_is_not_saved(tmp_path, bare, monkeypatch, capsys):
    """The last update may break a model whose loss was still finite: the checkpoint of that step would be of no use."""

    def train_step(self, x, rng, optimizers):
        self.steps = getattr(self, "steps", 0) + 1
        terms = kept(self, x, rng, optimizers)
        if self.steps == 5:
            self.mean.data[...] = np.inf
        return terms

    kept = Tiny.train_step
    monkeypatch.setattr(Tiny, "train_step", train_step)
    assert minigen(tmp_path / "run", *OPTIONS) == 1
    told = one_line(capsys)
    assert told.startswith("minigen: step 5: mean is no longer finite: training has diverged; the run is back at its beginning")
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == []


def test_a_checkpoint_that_the_next_step_fails_at_is_not_a_good_one(tmp_path, bare, monkeypatch, capsys):
    """A step too large leaves finite parameters, which are saved, and of which nothing good can come."""

    def loss(self, x, rng):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 11:
            raise Diverged("too far")
        return kept(self, x, rng)

    kept = Tiny.loss
    monkeypatch.setattr(Tiny, "loss", loss)
    assert minigen(tmp_path / "run", *OPTIONS) == 1
    assert one_line(capsys).startswith("minigen: step 11: too far; the run is back at its last good checkpoint, step 5: go on")
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [5]


def test_scores_that_are_not_finite_are_a_divergence_too(tmp_path, bare, monkeypatch, capsys):
    monkeypatch.setattr(figures, "scores", lambda run: {"test_elbo": -np.inf})
    assert minigen(tmp_path / "run", *OPTIONS) == 1
    assert one_line(capsys).startswith("minigen: step 6: test_elbo is -inf: training has diverged")


def test_a_bug_in_a_model_is_not_taken_for_bad_input(tmp_path, bare, monkeypatch):
    monkeypatch.setattr(Tiny, "loss", lambda self, x, rng: x @ np.zeros(3))
    with pytest.raises(ValueError, match="matmul"):
        minigen(tmp_path / "run", *OPTIONS)


def test_a_run_whose_progress_nobody_reads_goes_on(tmp_path, bare, monkeypatch, capsys):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        flush = isatty = lambda self: False

    monkeypatch.setattr("sys.stderr", Closed())
    assert cli.main(["train", "tiny", "--out", str(tmp_path / "run"), *OPTIONS]) == 0
    assert digest(tmp_path / "run")[0] == 12
