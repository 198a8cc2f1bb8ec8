"""What the command line does: help that can be read, lists made from code, a run from training to samples, progress.

What it refuses is in test_cli.py.
"""

import dataclasses
import fcntl
import importlib.util
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest

from minigen import cli, data
from minigen.autograd.backend import get_backend, set_backend
from minigen.autograd.kernels import jit
from minigen.evaluation import classifier
from minigen.models import CAPABILITIES, FAMILIES, MODELS
from minigen.random import Generator
from minigen.training import figures, files, progress
from minigen.training.config import BUDGET, RunConfig
from minigen.training.run import load_run

_spec = importlib.util.spec_from_file_location("run_harness", Path(__file__).parent / "training" / "run_harness.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


@pytest.fixture
def minigen(monkeypatch, tmp_path, capsys):
    """Runs the program in an empty folder. Returns standard output and standard error."""

    def run(line):
        status = cli.main(line.split())
        out, told = capsys.readouterr()
        assert status == 0, told
        return out, told

    monkeypatch.setitem(MODELS, "tiny", harness.TINY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "STEPS", 60)
    monkeypatch.chdir(tmp_path)
    with set_backend(get_backend()):
        yield run


@pytest.fixture
def bare(monkeypatch):
    """Runs draw no figures, which would take most of their time."""
    monkeypatch.setattr(figures, "FIGURES", {})


@pytest.mark.parametrize(("family", "models"), FAMILIES.items())
def test_a_family_stands_for_its_model_of_the_data(family, models):
    for name in models:
        assert name in MODELS
    for option, model in {("--data", "moons"): models[0], ("--data=8gaussians",): models[0], (): models[1]}.items():
        args = cli.parse(["train", family, "--seed", "3", *option])
        assert (args.model, args.seed) == (model, 3)


def help_of(line, monkeypatch, capsys, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        cli.main([*line.split(), "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


COMMANDS = ("", "train", "train vae", "train vae-mlp", "sample", "evaluate", "classifier", "data", "models", "gradcheck")
COMMANDS += ("doctor", "check", "compare")


@pytest.mark.parametrize("line", COMMANDS)
def test_help_fits_into_eighty_columns(line, monkeypatch, capsys):
    text = help_of(line, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"usage: minigen {line}".rstrip())


@pytest.mark.parametrize("model", ["vae", "vae-mlp"])
def test_every_field_of_a_configuration_is_an_option_with_its_default_told_once(model, monkeypatch, capsys):
    text = help_of(f"train {model}", monkeypatch, capsys, columns=200)
    config = MODELS[model].config
    told = dict(re.findall(r"--([a-z-]+) .*?\(default: (.*?)\)\n", text))
    for kind in (RunConfig, config):
        for field in dataclasses.fields(kind):
            if field.name in ("model", "options", *BUDGET, "threads"):
                continue
            name = field.name.replace("_", "-")
            if isinstance(field.default, bool):
                name = f"no-{name}"
            assert told.pop(name) == str(field.default), name
            line = next(line for line in text.splitlines() if f"--{name} " in line)
            assert line.endswith(f"{field.metadata['help']} (default: {field.default})")
            assert "default" not in field.metadata["help"]
    assert told == {"steps": str(config().steps), "threads": "all", "out": "runs/MODEL-DATA"}


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, "minigen 0.1.0\n")


# ---- lists


def test_models_tells_what_each_can_do(minigen):
    out, _ = minigen("models")
    for name, entry in MODELS.items():
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        able = line.split("  ")[-1].strip().split(", ")
        assert able == [c for c in CAPABILITIES if hasattr(entry.cls, c)]
    assert "encode, log_prob" not in out  # Tiny has no likelihood
    for name, meaning in CAPABILITIES.items():
        assert re.search(f"^{name} +{re.escape(meaning)}$", out, re.MULTILINE)


def test_data_lists_all_sets_and_tells_about_each(minigen, monkeypatch, tmp_path):
    monkeypatch.delenv("MINIGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    out, _ = minigen("data")
    assert max(map(len, out.splitlines())) <= 80
    for name in data.DATASETS:
        assert re.search(f"^{name} ", out, re.MULTILINE)
        about, _ = minigen(f"data {name}")
        assert data.DATASETS[name].description in about
        assert data.DATASETS[name].licence in about
    assert re.search("^mnist .*to be downloaded$", out, re.MULTILINE)
    assert "1.0076 nats" in minigen("data moons")[0]


def test_doctor_tells_what_is_there_and_how_to_mend_what_is_not(minigen, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    out, _ = minigen("doctor")
    assert np.__version__ in out
    assert "CuPy is not installed: pip install 'minigen[cuda" in out
    assert re.search("^BLAS, for np.linalg +(openblas|mkl|blis|accelerate|scipy)", out, re.MULTILINE | re.IGNORECASE)


def test_gradcheck_prints_a_table_and_its_status_tells_of_failures(minigen, monkeypatch, capsys):
    out, _ = minigen("gradcheck tanh multiply --examples 3")
    assert "2 of 2 ops have the right gradients" in out
    gradcheck = importlib.import_module("minigen.autograd.gradcheck")
    monkeypatch.setattr(gradcheck, "check_all", lambda names, examples, seed: {"tanh": "wrong"})
    assert cli.main(["gradcheck", "tanh"]) == 1


# ---- a run from the beginning to the end


def test_a_run_has_all_its_files_and_can_be_looked_at(minigen, tmp_path):
    out, _ = minigen("train vae --steps 3 --hidden 16 --channels 4 --quiet")
    assert out == ""
    run = Path("runs/vae-digits")
    assert sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()) == [
        "checkpoints/step-00000003.ckpt",
        "config.json",
        "environment.json",
        "figures/curves.png",
        "figures/latent.png",
        "figures/reconstructions.png",
        "figures/samples.png",
        "figures/traversal.png",
        "metrics.jsonl",
    ]
    for figure in (run / "figures").iterdir():
        assert figure.read_bytes().startswith(b"\x89PNG")
    environment = files.read_json(run / "environment.json")
    assert environment["data_sha256"] == data.load("digits").sha256
    named = {"minigen", "python", "numpy", "numba", "platform", "processor", "threads", "parameters", "command"}
    assert named <= set(environment)

    out, _ = minigen("evaluate runs/vae-digits -k 4 -n 100 --samples 0")
    summary, elbo, iwae, units = out.splitlines()
    assert summary.startswith("vae on digits: 3 steps")
    number = r"NLL ≤ (\d+\.\d\d) ± \d+\.\d\d nats"
    tail = r", n = 100, digits test, dynamic binarisation\); independent Bernoullis 2\d\.\d\d"
    bounds = [float(re.fullmatch(rf"{number} \({k}{tail}", line)[1]) for k, line in (("ELBO", elbo), ("IWAE-4", iwae))]
    assert bounds[1] < bounds[0] + 0.5
    assert re.fullmatch(r"active units: \d+ of 20", units)
    nll = figures.likelihood(load_run(run), figures.some(data.load("digits", "test"), 100)[0], 1)
    assert str(nll) == elbo

    told: list[int] = []
    figures.likelihood(load_run(run), data.load("digits", "test").x, 60, said=told.append)
    assert told == [100, 100, 100, 60]  # of 50 importance samples each at a time, 5000 in memory

    out, _ = minigen("sample runs/vae-digits -n 70")
    assert out == "70 samples of shape (8, 8, 1): runs/vae-digits/samples.png, runs/vae-digits/samples.npy\n"
    samples = np.load(run / "samples.npy")
    assert samples.shape == (70, 8, 8, 1)
    with figures.looking_at(load_run(run)) as model:
        assert np.array_equal(samples, model.sample(70, Generator(0)))
    minigen("sample runs/vae-digits -n 5 --out few.png --seed 0")
    assert np.array_equal(np.load("few.npy"), samples[:5])
    minigen("sample runs/vae-digits -n 5 --out v0.1 --seed 1")
    assert not np.array_equal(np.load("v0.1.npy"), samples[:5])
    assert Path("v0.1.png").read_bytes().startswith(b"\x89PNG")


def test_points_are_evaluated_against_their_entropy_and_drawn_beside_the_data(minigen):
    minigen("train vae-mlp --data moons --steps 3 --hidden 16 --latent 2 --quiet")
    out, _ = minigen("evaluate runs/vae-mlp-moons -n 300 -k 2 --samples 50")
    assert re.search(r"NLL ≤ .* nats \(IWAE-2, n = 300, moons test\); floor 1\.0076\n", out)
    for name in ("MMD²", "sliced W₂²", "precision", "recall", "density", "coverage"):
        assert re.search(rf"^{name} -?[\d.]+ \(n = 50, moons test\); real against real -?[\d.]+$", out, re.MULTILINE), name
    minigen("sample runs/vae-mlp-moons -n 6000")
    assert np.load("runs/vae-mlp-moons/samples.npy").shape == (6000, 2)
    drawn = {p.name for p in Path("runs/vae-mlp-moons/figures").iterdir()}
    assert drawn == {"samples.png", "latent.png", "curves.png"}


def test_samples_of_images_are_judged_by_a_classifier_that_is_trained_once(minigen, bare):
    minigen("train tiny --steps 2 --quiet")
    out, told = minigen("evaluate runs/tiny-digits --samples 40")
    assert "training the classifier that judges digits (60 steps, once: it is kept in" in told
    fid = r"^LeNet-FID [\d.]+ \(n = 40, digits test, LeNet (\w{8})\); real against real [\d.]+$"
    digest = re.search(fid, out, re.MULTILINE)[1]
    for name in ("KID", "precision", "recall", "density", "coverage"):
        assert re.search(rf"^{name} -?[\d.]+ \(n = 40, .*LeNet {digest}\); real against real", out, re.MULTILINE), name
    told = r"^by the classifier: classes in percent ([\d. ]+); .*KL to the data's .* nats; n = 40$"
    shares = re.search(told, out, re.MULTILINE)[1]
    assert len(shares.split()) == 10
    assert sum(map(float, shares.split())) == pytest.approx(100, abs=0.5)
    again, told = minigen("evaluate runs/tiny-digits --samples 40")
    assert (again, told) == (out, "")
    kept, _ = minigen("classifier")
    assert re.match(r"LeNet for digits, seed 0, kept from before: \d+\.\d\d % of 360 test images right\n", kept)
    assert f"SHA-256 of the weights: {digest}" in kept
    anew, _ = minigen("classifier --anew")
    assert re.match("LeNet for digits, seed 0, trained in .* CPU-seconds", anew)
    assert anew.splitlines()[1:] == kept.splitlines()[1:]  # bit for bit
    other, _ = minigen("classifier --seed 1")
    assert digest not in other


def test_averaged_parameters_are_those_that_are_looked_at(minigen, bare):
    minigen("train tiny --steps 50 --lr 0.1 --ema 0.999 --quiet")
    run = load_run(Path("runs/tiny-digits"))
    own = run.model.mean.data.copy()
    with run.averaged():
        averaged = run.model.mean.data.copy()
    assert abs(own - averaged).max() > 0.05
    minigen("sample runs/tiny-digits -n 3")
    noise = 0.1 * Generator(0).normal((3, 8, 8, 1))
    assert np.array_equal(np.load("runs/tiny-digits/samples.npy"), averaged + noise)


def test_looking_at_images_needs_no_data(minigen, bare, monkeypatch):
    minigen("train tiny --steps 2 --quiet")
    monkeypatch.setattr("minigen.training.run.load_data", lambda *args: pytest.fail("loaded data"))
    assert load_run(Path("runs/tiny-digits")).step == 2


# ---- progress


def test_progress_without_a_terminal_is_plain_lines(minigen, bare, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    out, told = minigen("train vae --steps 4 --hidden 16 --channels 4")
    lines = [line for line in told.splitlines() if not line.startswith("Compiling")]
    terms = r"elbo -\d+\.\d\d  reconstruction -\d+\.\d\d  kl \d+\.\d\d nats"
    assert re.fullmatch(rf"step 1/4  {terms}", lines[0])
    for i in (2, 3):
        assert re.fullmatch(rf"step {i}/4  {terms}  [\d,]+ samples/s  \d:\d\d left", lines[i - 1])
    beside = r"\(nats, n = 360; independent Bernoullis -27\.24\)"
    assert re.fullmatch(rf"step 4  test_elbo -\d+\.\d\d  active_units \d+  {beside}", lines[4])
    assert re.fullmatch(r"vae on digits: 4 steps, \d+ CPU-seconds of training\. Look at runs/vae-digits/figures\n", out)


def test_time_left_is_told_for_every_kind_of_budget(minigen, bare, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    _, told = minigen("train tiny --epochs 0.5")
    assert re.search(r"^step 5/7 .* \d:\d\d left$", told, re.MULTILINE)
    _, told = minigen("train tiny --minutes 0.001 --out timed")  # 60 ms of processor time
    assert re.search(r"^step \d+/\d+ .* samples/s  0:00 left$", told, re.MULTILINE)
    config, state = files.read_json("timed/config.json"), load_run(Path("timed"))
    assert (config["minutes"], config["steps"]) == (0.001, None)
    assert 0.06 <= state.cpu_seconds < 1


def test_quiet_says_nothing(minigen, bare):
    assert minigen("train tiny --steps 2 --quiet") == ("", "")


def test_compiling_is_said_before_the_wait_and_once(capsys):
    said: list[str] = []
    plain = jit.numba.njit(lambda x: 2 * x)
    with progress.say_when_compiling(said.append):
        assert said == []
        assert plain(3) == 6
        assert plain(3.0) == 6.0
    assert said == ["Compiling kernels (first run; they are kept on disk) ..."]
    with progress.say_when_compiling(said.append):
        plain(4)
    assert len(said) == 1
    jit.numba.njit(lambda x: 3 * x)(1)  # outside: said to nobody
    assert len(said) == 1


@pytest.mark.slow
def test_the_first_run_on_a_machine_says_that_it_compiles(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "minigen.cli", "train", "vae", "--steps", "2", "--out", str(tmp_path / "run")]
    options = {"env": environment, "capture_output": True, "text": True, "check": True}
    first = subprocess.run(command, **options)
    assert first.stderr.startswith("Compiling kernels (first run; they are kept on disk) ...\n")
    assert "Compiling" not in subprocess.run([*command[:-1], str(tmp_path / "again")], **options).stderr


def test_on_a_terminal_there_is_a_bar(tmp_path):
    """A real one: tqdm draws over the same line, and lines are printed above it."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # 24 lines of 80 columns
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    options = ["--steps", "1500", "--evaluate-every", "1500", "--out", str(tmp_path / "run")]
    harness_path = str(Path(__file__).parent / "training" / "run_harness.py")
    command = [sys.executable, harness_path, "train", "tiny", *options]
    process = subprocess.Popen(command, env=environment, stdout=inside, stderr=inside, stdin=inside)
    os.close(inside)
    shown = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
    os.close(terminal)
    assert process.wait() == 0
    text = shown.decode()
    bars = [line for line in re.split(r"[\r\n]+", text) if "%|" in line]
    assert bars, text
    assert all(len(line) <= 80 for line in bars)
    full = re.compile(r"\| \d+/1500, elbo -\d+\.\d\d nats  [\d,]+ samples/s  0:\d\d left")
    assert any(full.search(bar) for bar in bars), bars
    assert re.search(r"step 1500  test_elbo -\d+\.\d\d  active_units 2", text)
    assert "tiny on digits: 1500 steps" in text


def test_metrics_can_be_read_by_anything(minigen, bare):
    minigen("train tiny --steps 5 --log-every 2 --evaluate-every 4 --quiet")
    lines = [json.loads(line) for line in Path("runs/tiny-digits/metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "test_elbo" in line) for line in lines] == [(2, False), (4, False), (4, True), (5, False), (5, True)]
    assert all(line["loss"] == -line["elbo"] for line in lines if "loss" in line)
