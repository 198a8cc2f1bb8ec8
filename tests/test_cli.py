"""What the command line refuses: one line that says what is wrong and how to mend it, status 2, nothing written.

Start at `REFUSED`. What it does when it is given something sensible is in test_cli_commands.py.
"""

import hashlib
import importlib.util
import io
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigen import cli
from minigen.autograd.backend import get_backend, set_backend
from minigen.models import MODELS
from minigen.training import checkpoint, figures, files
from minigen.training.config import RunConfig
from minigen.training.run import Run

_spec = importlib.util.spec_from_file_location("run_harness", Path(__file__).parent / "training" / "run_harness.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


# ---- a folder of runs, good and bad ones


def broken(name, source, path, content):
    """A copy of a run with another content in one of its files."""
    shutil.copytree(source, source.with_name(name))
    (source.with_name(name) / path).write_bytes(content)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the runs that the invocations below name."""
    here = tmp_path_factory.mktemp("here")
    run = here / "run"
    Run(RunConfig(data="moons", model="vae-mlp"), load=True)  # compiles, where nothing is yet: not told in a refusal below
    with pytest.MonkeyPatch.context() as patch, set_backend(get_backend()):
        patch.setitem(MODELS, "tiny", harness.TINY)
        patch.setattr(figures, "FIGURES", {})
        assert cli.main(["train", "tiny", "--steps", "4", "--quiet", "--out", str(run)]) == 0
    config = files.read_json(run / "config.json")
    saved = run / "checkpoints" / "step-00000004.ckpt"
    whole = saved.read_bytes()
    inside = saved.relative_to(run)
    broken("damaged", run, inside, whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    broken("truncated", run, inside, whole[:100])
    broken("foreign", run, inside, b"not a checkpoint at all")
    for name, state in {"empty-state": {}, "other-model": {"model": {"weight": np.zeros(3)}}}.items():
        shutil.copytree(run, here / name)
        checkpoint.save(here / name / inside, state, meta={"step": 4})
    state, meta = checkpoint.load(saved)
    shutil.copytree(run, here / "other-data")
    order = state["order"] | {"permutation": np.arange(99)}
    checkpoint.save(here / "other-data" / inside, state | {"order": order}, meta=meta)
    shutil.copytree(run, here / "unsaved")
    shutil.rmtree(here / "unsaved" / "checkpoints")
    for name, text in {
        "not-json": b"hello",
        "cut": b'{"model": "tiny", ',
        "list": b"[1, 2]",
        "nan": b'{"model": "tiny", "options": {"lr": NaN}}',
        "twice": b'{"model": "tiny", "model": "vae"}',
        "binary": bytes(range(256)),
    }.items():
        broken(name, run, "config.json", text)
    for name, change in {
        "no-such-model": {"model": "diffusion"},
        "no-such-data": {"data": "imagenet"},
        "no-such-setting": {"momentum": 0.9},
        "no-such-option": {"options": {"depth": 3}},
        "text-for-number": {"seed": "zero"},
        "true-for-number": {"log_every": True},
        "negative": {"steps": -3},
        "two-budgets": {"epochs": 1.0},
        "list-of-options": {"options": [1]},
    }.items():
        shutil.copytree(run, here / name)
        files.write_json(here / name / "config.json", {**config, **change})
    broken("bad-metrics", run, "metrics.jsonl", b"step 1\n")
    broken("no-steps", run, "metrics.jsonl", b'{"loss": 1.0}\n')
    broken("bad-environment", run, "environment.json", b"{")
    (here / "empty").mkdir()
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").write_text("do not touch")
    (here / "file").write_text("a file")
    return here


@pytest.fixture
def minigen(here, monkeypatch, tmp_path, capsys):
    """Runs the program in that folder, without a network. Returns status, standard output, standard error."""

    def unreachable(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setitem(MODELS, "tiny", harness.TINY)
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setenv("MINIGEN_DATA", str(here / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(here)

    def run(line, *more):
        status = cli.main([*line.split(), *more])
        return status, *capsys.readouterr()

    with set_backend(get_backend()):
        yield run


def everything(folder):
    """Path, content and time of all that is in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (content, path.stat().st_mtime_ns)
    return found


# ---- the table: arguments, and what the line has to name: the option or file, the value, the range or the way out

REFUSED = {
    # words that do not exist
    "": ["COMMAND is missing", "train, sample, evaluate, compare, classifier, data, models, kernels, check, ", "bench, doctor"],
    "trian vae": ["unknown command 'trian'", "did you mean train?"],
    "xyzzy": ["unknown command 'xyzzy'", "known are train, sample"],
    "--verison models": ["unknown option '--verison'"],
    "train": ["MODEL is missing", ", ".join(MODELS)],
    "train vea": ["unknown model 'vea'", "did you mean vae?"],
    "train diffusion": ["unknown model 'diffusion'", "known are", ", ".join(MODELS)],
    "train gun": ["unknown model 'gun'", "did you mean gan?"],
    "train VAE": ["unknown model 'VAE'"],
    "train vae digits": ["'digits' is one argument too many", "minigen train vae --help"],
    "train vae --lrr 1": ["unknown option '--lrr'", "did you mean --lr?"],
    "train vae --batch 10": ["unknown option '--batch'"],
    "train vae --depth=3": ["unknown option '--depth'"],
    "train vae --data mnits": ["--data", "unknown name 'mnits'", "did you mean mnist?"],
    "train vae --data imagenet": ["--data", "'imagenet'", "known are digits, mnist"],
    "train vae --backend numbas": ["--backend", "'numbas'", "did you mean numba?", "numpy, numba"],
    "train vae --device tpu": ["--device", "'tpu'", "cpu, cuda"],
    "data mnits": ["'mnits'", "did you mean mnist?"],
    "data digits mnist": ["'mnist' is one argument too many"],
    "models vae": ["'vae' is one argument too many"],
    "doctor --fix": ["unknown option '--fix'"],
    "gradcheck tahn": ["unknown op 'tahn'", "did you mean tanh?"],
    "gradcheck tanh frobnicate": ["unknown op 'frobnicate'"],
    # values that are not in their range, or none at all
    "train vae --steps 0": ["--steps", "a whole number of at least 1", "'0'"],
    "train vae --steps -5": ["--steps", "a whole number of at least 1", "'-5'"],
    "train vae --steps 1.5": ["--steps", "a whole number of at least 1", "'1.5'"],
    "train vae --steps many": ["--steps", "a whole number of at least 1", "'many'"],
    "train vae --steps": ["--steps", "expected one argument"],
    "train vae --epochs 0": ["--epochs", "a finite number of at least 0.01", "'0'"],
    "train vae --epochs nan": ["--epochs", "a finite number of at least 0.01", "'nan'"],
    "train vae --minutes inf": ["--minutes", "a finite number of at least 0.001", "'inf'"],
    "train vae --steps 5 --minutes 1": ["--minutes", "not allowed with argument --steps"],
    "train vae --batch-size -1": ["--batch-size", "a whole number of at least 1", "'-1'"],
    "train vae --batch-size 0": ["--batch-size", "a whole number of at least 1", "'0'"],
    "train vae --batch-size 1438": ["--batch-size 1438", "digits has 1437 training samples", "choose at most as many"],
    "train vae --lr nan": ["--lr", "a finite number of at least 0", "'nan'"],
    "train vae --lr inf": ["--lr", "a finite number of at least 0", "'inf'"],
    "train vae --lr=-inf": ["--lr", "a finite number of at least 0", "'-inf'"],
    "train vae --lr -0.1": ["--lr", "a finite number of at least 0", "'-0.1'"],
    "train vae --lr 1e999": ["--lr", "a finite number of at least 0", "'1e999'"],
    "train vae --lr fast": ["--lr", "a finite number of at least 0", "'fast'"],
    "train vae --ema 1": ["--ema", "a finite number from 0.0 to 0.999999", "'1'"],
    "train vae --ema -0.5": ["--ema", "a finite number from 0.0 to 0.999999", "'-0.5'"],
    "train vae --latent 0": ["--latent", "a whole number of at least 1", "'0'"],
    "train vae --hidden 1000000000000": ["out of memory", "a smaller model"],
    "train vae --beta -1": ["--beta", "a finite number of at least 0", "'-1'"],
    "train vae-mlp --free-bits nan": ["--free-bits", "a finite number of at least 0", "'nan'"],
    "train vae-mlp --channels 3": ["unknown option '--channels'", "minigen train vae-mlp --help"],
    "train vae --samples 5 --beta 2": ["vae on digits", "beta and free_bits weigh the KL term", "samples at 1"],
    "train vae --seed -1": ["--seed", "a whole number from 0 to 9223372036854775807", "'-1'"],
    "train vae --seed 9223372036854775808": ["--seed", "a whole number from 0 to 9223372036854775807"],
    f"train vae --seed {'9' * 5000}": ["--seed", "a whole number from 0 to 9223372036854775807", "'9999", "..."],
    "train vae --threads 0": ["--threads", "a whole number of at least 1", "'0'"],
    "train vae --threads 100000": ["--threads 100000", "between 1 and"],
    "train vae --log-every 0": ["--log-every", "a whole number of at least 1", "'0'"],
    "train vae --checkpoint-every x": ["--checkpoint-every", "a whole number of at least 1", "'x'"],
    "train vae --evaluate-every -2": ["--evaluate-every", "a whole number of at least 1", "'-2'"],
    "train vae --quiet=yes": ["--quiet", "ignored explicit argument 'yes'"],
    "sample run -n 0": ["-n", "a whole number from 1 to 1000000", "'0'"],
    "sample run -n ten": ["-n", "a whole number from 1 to 1000000", "'ten'"],
    "sample run --out ..": ["--out", "needs a name that .png and .npy can be added to", "'..'"],
    "sample run --seed -1": ["--seed", "a whole number from 0", "'-1'"],
    "evaluate run -n 1": ["-n", "a whole number of at least 2", "'1'"],
    "evaluate run -n 361": ["-n 361", "digits has 360 test samples"],
    "evaluate run -k 0": ["-k", "a whole number of at least 1", "'0'"],
    "evaluate run -k 2.5": ["-k", "a whole number of at least 1", "'2.5'"],
    "evaluate run --samples -1": ["--samples", "a whole number of at least 0", "'-1'"],
    "evaluate run --samples 3": ["--samples 3", "at least 10 samples", "0, for none"],
    "evaluate run --samples 361": ["--samples 361", "digits has 360 test samples"],
    "classifier --data moons": ["--data moons", "without labels"],
    "classifier --data mnits": ["--data", "did you mean mnist?"],
    "gradcheck --examples 0": ["--examples", "a whole number of at least 1", "'0'"],
    # what does not go together, or is not there
    "train glow --data moons": ["glow on moons", "sides are multiples of 4", "(2,)"],
    "train dcgan --data moons": ["dcgan on moons", "sides that 4 divides", "(2,)", "gan2d takes points"],
    "train vae --device cuda": ["--device cuda", "CuPy is not installed", "pip install 'minigen[cuda"],
    "train vae --data mnist": ["train-images-idx3-ubyte.gz", "not on this machine", "no mirror delivered it", "MINIGEN_DATA"],
    "train vae --data cifar10": ["cifar-10-binary.tar.gz", "no mirror delivered it"],
    # folders
    "train tiny --out file": ["file", "cannot be created", "a file has this name"],
    "train tiny --out file/run": ["file/run", "cannot be created", "not a folder", "File exists"][:2],
    "train tiny --out full": ["full", "not empty", "thesis.tex", "--out"],
    "train tiny --out run": ["run", "there is a run in this folder already", "--resume", "--out"],
    f"train tiny --out {'x' * 300}": ["File name too long", "choose a shorter path"],
    "train tiny --resume": ["runs/tiny-digits", "no such folder"],
    "train tiny --resume --out empty": ["empty", "no run here", "config.json"],
    "train tiny --resume --out file": ["file", "no run here"],
    "sample nowhere": ["nowhere", "no such folder"],
    "sample empty": ["empty", "no run here", "config.json"],
    "sample file": ["file", "no run here"],
    "sample": ["RUN is missing"],
    "evaluate nowhere": ["nowhere", "no such folder"],
    "evaluate": ["RUN is missing"],
    "sample run --out nowhere/x": ["nowhere/x.npy", "cannot be written", "check the path"],
    "sample run --out file/x": ["file/x.npy", "cannot be written", "a file, not a folder"],
    # a run that is resumed stays what it is
    "train vae --resume --out run": ["the model of this run is tiny, not vae", "--out"],
    "train tiny --resume --out run --ema 0.5": ["--ema of this run is 0.0, not 0.5", "only --steps", "--out"],
    "train tiny --resume --out run --seed 1": ["--seed of this run is 0, not 1"],
    "train tiny --resume --out run --data moons": ["--data of this run is digits, not moons"],
    "train tiny --resume --out run --backend numpy": ["--backend of this run is numba, not numpy"],
    "train tiny --resume --out run --log-every 3": ["--log-every of this run is 20, not 3"],
    "train tiny --resume --out run --steps 2": ["run is at step 4 already, beyond 2", "larger budget"],
    # files that are not what they should be
    "train tiny --resume --out damaged --steps 9": ["step-00000004.ckpt", "does not match its SHA-256"][1:],
    "train tiny --resume --out truncated --steps 9": ["truncated/checkpoints", "truncated: 100 bytes"],
    "train tiny --resume --out foreign --steps 9": ["foreign/checkpoints", "not a minigen checkpoint"],
    "train tiny --resume --out empty-state --steps 9": ["step-00000004.ckpt", "does not fit this run", "model"],
    "train tiny --resume --out other-model --steps 9": ["step-00000004.ckpt", "'mean' is missing"],
    "train tiny --resume --out other-data --steps 9": ["step-00000004.ckpt", "does not fit this run", "1437"],
    "train tiny --resume --out bad-metrics": ["bad-metrics/metrics.jsonl", "line 1 is not valid JSON", "delete the file"],
    "train tiny --resume --out no-steps": ["no-steps/metrics.jsonl", "line 1 has no step", "delete the file"],
    "train tiny --resume --out bad-environment": ["bad-environment/environment.json", "not valid JSON", "delete the file"],
    "sample damaged": ["damaged/checkpoints", "does not match its SHA-256"],
    "sample unsaved": ["unsaved/checkpoints", "no checkpoint here"],
    "evaluate truncated": ["truncated/checkpoints", "truncated: 100 bytes"],
    "evaluate other-model": ["step-00000004.ckpt", "'mean' is missing"],
    "sample empty-state": ["step-00000004.ckpt", "does not fit this run"],
    "sample not-json": ["not-json/config.json", "not valid JSON"],
    "sample cut": ["cut/config.json", "not valid JSON"],
    "sample binary": ["binary/config.json", "not valid JSON"],
    "sample twice": ["twice/config.json", "the key 'model' appears twice"],
    "sample nan": ["nan/config.json", "NaN is not a number in JSON"],
    "sample list": ["list/config.json", "not the configuration of a run", "[1, 2]", "restore it"],
    "sample no-such-model": ["no-such-model/config.json", "unknown model 'diffusion'"],
    "sample no-such-data": ["no-such-data/config.json", "unknown data 'imagenet'"],
    "sample no-such-setting": ["no-such-setting/config.json", "unknown setting of RunConfig 'momentum'"],
    "sample no-such-option": ["no-such-option/config.json", "unknown setting of ModelConfig 'depth'"],
    "sample text-for-number": ["text-for-number/config.json", "seed needs a whole number", "'zero'"],
    "sample true-for-number": ["true-for-number/config.json", "log_every needs a whole number of at least 1", "True"],
    "sample negative": ["negative/config.json", "steps needs a whole number of at least 1", "-3"],
    "sample two-budgets": ["two-budgets/config.json", "one budget", "steps and epochs"],
    "sample list-of-options": ["list-of-options/config.json", "ModelConfig needs settings by name", "[1]"],
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line[:60] or "nothing")
def test_refused(line, here, minigen):
    before = everything(here)
    status, _, told = minigen(line)
    assert status == 2, told
    assert told.count("\n") == 1, told
    assert told.endswith("\n")
    assert told.startswith("minigen")
    assert "Traceback" not in told
    assert len(told) < 1500
    for part in REFUSED[line]:
        assert part in told
    assert everything(here) == before, "something was written"


def test_there_are_sixty_of_them():
    assert len(REFUSED) >= 60


def test_a_folder_that_cannot_be_written(here, minigen, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    before = everything(here)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", forbidden)
        status, _, told = minigen("train tiny --out new")
    assert (status, told) == (2, "minigen: new: cannot be created: Permission denied; change the permissions of the file and "
                                 "its folder, or choose another folder\n")  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "open", forbidden)
        status, _, told = minigen("train tiny --out empty")
    assert (status, told.split(":")[1:3]) == (2, [" empty/config.json", " cannot be written"])
    assert everything(here) == before


def test_minigen_data_that_is_no_folder(here, minigen, monkeypatch):
    monkeypatch.setenv("MINIGEN_DATA", str(here / "file"))
    for line in ("data", "train vae --data mnist", "doctor"):
        status, _, told = minigen(line)
        assert (status, told.count("\n")) == (2, 1)
        assert f"{here / 'file'}: MINIGEN_DATA names this, which is not a folder" in told


def test_debug_shows_the_traceback_and_then_the_line(minigen):
    for line in ("--debug sample nowhere", "sample --debug nowhere", "sample nowhere --debug"):
        status, _, told = minigen(line)
        assert status == 2
        assert told.startswith("Traceback (most recent call last)")
        assert told.splitlines()[-1].startswith("minigen: nowhere: no such folder")


def test_a_message_of_several_lines_becomes_one(minigen, monkeypatch):
    def refuse(*args):
        raise cli.ConfigError("first\n  second\r\nthird")

    monkeypatch.setattr(cli.runs, "load_run", refuse)
    assert minigen("sample run") == (2, "", "minigen: first second third\n")


# ---- as real processes


def process(*arguments, unbuffered="", **options):
    command = [sys.executable, "-m", "minigen.cli", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}  # what is printed fails at once, or only at the end
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "check": False, "env": environment, **options}
    return subprocess.run(command, **options)


@pytest.mark.parametrize("line", ["train vae --lr nan", "train vae --out /dev/null/run"])
def test_refused_by_a_process_of_its_own(line, tmp_path):
    done = process(*line.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert done.stderr.startswith(b"minigen")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered):
    """As in `minigen data | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = process("data", stdout=write, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (0, b"")
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_on_a_full_disk_is_one_line(unbuffered):
    with open("/dev/full", "w") as full:
        done = process("data", stdout=full, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (2, b"minigen: [Errno 28] No space left on device\n")


def test_without_standard_streams(tmp_path):
    script = f'exec "{sys.executable}" -m minigen.cli models >&- 2>&-'
    assert subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False).returncode == 0


def test_a_terminal_that_knows_only_ascii():
    """± and ≤ are spelled out rather than being an error."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    printed = ascii("NLL ≤ 3 ± 1 nats, β² – é")
    code = f"from minigen import cli; cli.lists._sizes = lambda entry: {printed}; cli.main(['data', 'moons'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"NLL <= 3 +/- 1 nats, ?^2 - ?\n" in done.stdout


def test_streams_that_are_not_of_this_process_are_left_alone(monkeypatch):
    """A notebook's, for instance, which cannot be reconfigured."""
    text = io.StringIO()
    monkeypatch.setattr(sys, "stdout", text)
    assert cli.main(["models"]) == 0
    assert "vae-mlp" in text.getvalue()
