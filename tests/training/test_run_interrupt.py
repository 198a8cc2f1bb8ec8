"""Ctrl-C and kill -9 at any moment: nothing is lost but what was promised, and the run ends where it would have ended."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_harness import digest, metrics, signal_at

from minigen import cli
from minigen.training.checkpoint import Checkpoints

HARNESS = Path(__file__).with_name("run_harness.py")
OPTIONS = ["--steps", "24", "--log-every", "4", "--evaluate-every", "8", "--checkpoint-every", "6", "--batch-size", "100"]


def minigen(out: Path, *options: str) -> int:
    return cli.main(["train", "tiny", "--out", str(out), *options])


def finish(out: Path) -> None:
    """Resume the run, or begin it, where it was stopped before there was one."""
    resume = ["--resume"] if (out / "config.json").exists() else OPTIONS
    assert minigen(out, "--quiet", *resume) == 0


@pytest.fixture
def whole(tmp_path):
    """Digest and metrics of a run that is left alone."""
    assert minigen(tmp_path / "whole", "--quiet", *OPTIONS) == 0
    return digest(tmp_path / "whole"), metrics(tmp_path / "whole")


def calls_of_a_run(out: Path) -> tuple[int, int]:
    """How many calls of Python functions a run takes before its first step, and in all, in a process that has made one."""
    with signal_at(None) as counts:
        assert minigen(out, *OPTIONS) == 0
    return counts["before"], counts["calls"]


def spread(first: int, last: int, count: int) -> list[int]:
    """Evenly spaced numbers between two."""
    return [first + (last - first) * (2 * i + 1) // (2 * count) for i in range(count)]


def interrupt_at(starting: int, training: int, tmp_path: Path, whole: tuple, capsys) -> None:
    """Ctrl-C at so many evenly spaced calls before the first step, and from there to the last call."""
    before, calls = calls_of_a_run(tmp_path / "counted")
    for at in [*spread(0, before, starting), *spread(before, calls, training), *range(calls - 60, calls, 120 // training)]:
        out = tmp_path / f"stopped{at}"
        capsys.readouterr()
        with signal_at(at):
            status = minigen(out, *OPTIONS)
        told = capsys.readouterr().err
        assert status == 130, f"call {at} of {calls}: {told}"
        assert "Traceback" not in told
        last = told.splitlines()[-1]
        if last in ("minigen: interrupted before the first step", "minigen: interrupted"):  # the latter outside of training
            assert at < before or Checkpoints(out / "checkpoints").steps()[-1] == 24
        else:
            step = Checkpoints(out / "checkpoints").steps()[-1]
            assert last == f"minigen: interrupted: saved step {step} in {out}; continue with --resume"
        finish(out)
        assert (digest(out), metrics(out)) == whole, f"call {at} of {calls}"


def test_ctrl_c_at_sixteen_instants(tmp_path, bare, whole, capsys):
    interrupt_at(4, 8, tmp_path, whole, capsys)


@pytest.mark.slow
def test_ctrl_c_at_ninety_instants_with_figures(tmp_path, tiny, whole, capsys):
    interrupt_at(20, 40, tmp_path, whole, capsys)


def test_a_second_ctrl_c_stops_at_once_and_loses_no_more_than_the_interval(tmp_path, bare, whole, capsys):
    before, calls = calls_of_a_run(tmp_path / "counted")
    at_once = 0
    for at in spread(before, calls - 100, 5):
        out = tmp_path / f"stopped{at}"
        with signal_at(at, times=2):
            status = minigen(out, *OPTIONS)
        last = capsys.readouterr().err.splitlines()[-1]
        assert status == 130
        at_once += last == "minigen: interrupted at once: continue with --resume from the last checkpoint"
        finish(out)
        assert (digest(out), metrics(out)) == whole
    assert at_once


def test_sigterm_is_taken_like_ctrl_c_and_told_by_the_status(tmp_path, bare, whole, capsys):
    before, calls = calls_of_a_run(tmp_path / "counted")
    with signal_at((before + calls) // 2, signal.SIGTERM):
        assert minigen(tmp_path / "stopped", *OPTIONS) == 128 + signal.SIGTERM
    assert "saved step" in capsys.readouterr().err
    finish(tmp_path / "stopped")
    assert (digest(tmp_path / "stopped"), metrics(tmp_path / "stopped")) == whole


def test_after_a_run_signals_do_what_they_did_before(tmp_path, bare):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert minigen(tmp_path, "--quiet", "--steps", "2") == 0
    assert {number: signal.getsignal(number) for number in before} == before


def real_ctrl_c(tmp_path: Path, count: int, seed: int, *options: str) -> int:
    """A process of its own, and SIGINT from outside at random moments after it began. Returns how many had saved a step."""
    rng = random.Random(seed)
    saved = 0
    code = "import sys, run_harness; print('ready', flush=True); sys.exit(run_harness.main('train', *sys.argv[1:]))"
    for i in range(count):
        out = tmp_path / str(i)
        command = [sys.executable, "-c", code, "tiny", "--out", str(out), "--log-every", "1", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HARNESS.parent)
        assert process.stdout.readline() == "ready\n"
        if i % 2:
            while process.poll() is None and not (out / "metrics.jsonl").exists():  # until it trains
                time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 130, told
        assert told.splitlines()[-1].startswith("minigen: interrupted")
        assert "Traceback" not in told
        if "saved step" in told:
            saved += 1
            latest = Checkpoints(out / "checkpoints").latest()
            assert f"saved step {latest.step} in {out}" in told
    return saved


def test_a_real_ctrl_c_during_start_up_and_training(tmp_path):
    assert real_ctrl_c(tmp_path, 3, 0, "--minutes", "10") >= 1


@pytest.mark.slow
def test_fifty_real_ctrl_c(tmp_path):
    assert real_ctrl_c(tmp_path, 50, 1, "--minutes", "10", "--evaluate-every", "100", "--checkpoint-every", "50") >= 25


def killed(tmp_path: Path, count: int, pictures: str, *options: str) -> dict:
    command = [sys.executable, str(HARNESS), "kills", str(tmp_path), str(count), "0", pictures, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kill_nine_at_a_few_moments(tmp_path):
    found = killed(tmp_path, 5, "none", "tiny", "--steps", "300", "--checkpoint-every", "5", "--log-every", "5")
    assert found["ended"] >= 1
    assert found["lost"] <= 5


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "vae", "vae-mlp"])
def test_kill_nine_at_two_hundred_moments(model, tmp_path):
    every = ["--checkpoint-every", "5", "--log-every", "5", "--evaluate-every", "40"]
    found = killed(tmp_path, 200, "all", model, "--steps", "150", "--ema", "0.99", *every)
    assert found["ended"] >= 1
    assert found["early"] >= 1
    assert found["lost"] <= 5
