"""Reports: written with their environment, and compared beyond the noise. And the command in its smallest form."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import report

ROOT = Path(__file__).parents[2]


def written(path, rows, command="models", threads=1):
    path.write_text(json.dumps({"command": command, "environment": {"threads": threads}, "rows": rows}))
    return path


def row(case="vae", lane="minigen", quartiles=(9, 10, 11), ratio=None):
    return {"case": case, "lane": lane, "unit": "ms", "quartiles": list(quartiles), "ratio": ratio}


@pytest.mark.parametrize(("new", "status"), [
    ((9, 10, 11), 0),
    ((10.5, 12, 13), 0),  # quartiles overlap
    ((11.2, 12, 13), 1),
    ((5, 6, 7), 0),
    ((11.01, 11.02, 11.03), 1),
])  # fmt: skip
def test_slower_is_beyond_the_quartiles(tmp_path, capsys, new, status):
    old = written(tmp_path / "old", [row()])
    assert report.compare(old, written(tmp_path / "new", [row(quartiles=new)])) == status
    out = capsys.readouterr().out
    assert ("vae minigen: 10 -> " in out) == bool(status)


def test_five_percent_is_noise_however_narrow_the_quartiles(tmp_path):
    old = written(tmp_path / "old", [row(quartiles=(10, 10, 10))])
    assert report.compare(old, written(tmp_path / "new", [row(quartiles=(10.4, 10.4, 10.4))])) == 0
    assert report.compare(old, written(tmp_path / "new", [row(quartiles=(10.6, 10.6, 10.6))])) == 1


def test_the_ratio_to_a_peer_counts_where_there_is_one(tmp_path, capsys):
    old = written(tmp_path / "old", [row(lane="torch", ratio=[0.5, 0.5, 0.5])])
    slow_machine = row(lane="torch", quartiles=(90, 100, 110), ratio=[0.5, 0.5, 0.5])
    assert report.compare(old, written(tmp_path / "new", [slow_machine])) == 0
    assert report.compare(old, written(tmp_path / "new", [row(lane="torch", ratio=[0.6, 0.6, 0.6])])) == 1
    assert "vae torch: 0.5 -> 0.6 of the peer's time (+20%)" in capsys.readouterr().out


def test_what_cannot_be_compared(tmp_path):
    old = written(tmp_path / "old", [row()])
    for other, said in (
        (written(tmp_path / "a", [row()], command="kernels"), "command models"),
        (written(tmp_path / "b", [row()], threads=2), "threads 1"),
        (tmp_path / "missing", "there is no file"),
    ):
        with pytest.raises(SystemExit, match=said):
            report.compare(old, other)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(SystemExit, match="no report"):
        report.compare(old, tmp_path / "text")


def test_what_is_gone_is_told(tmp_path, capsys):
    old = written(tmp_path / "old", [row(), row("glow")])
    assert report.compare(old, written(tmp_path / "new", [row()])) == 0
    assert "no longer there: glow minigen" in capsys.readouterr().out


def test_kernels_in_the_smallest_form(tmp_path, capsys):
    arguments = ["kernels", "--smoke", "--only", "silu", "softmax", "--json", str(tmp_path / "k.json")]
    assert program.main([*arguments, "--plot", str(tmp_path / "k.png")]) == 0
    found = json.loads((tmp_path / "k.json").read_text())
    assert {r["lane"] for r in found["rows"]} == {"numba", "numpy"}
    assert found["roof"]["copy"] > 0
    assert found["environment"]["threads"] == 1
    assert "silu" in capsys.readouterr().out
    assert report.compare(tmp_path / "k.json", tmp_path / "k.json") == 0


def test_a_workload_in_the_smallest_form(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "models", "--smoke", "--only", "realnvp", "--json", str(tmp_path / "m.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert (found["case"], found["lane"]) == ("realnvp", "minigen")
    assert found["first_s"] > 0
    assert found["peak_mb"] > found["base_mb"]


@pytest.mark.parametrize(("line", "said"), [
    ("kernels --only sliu", "no kernel 'sliu'"),
    ("compile --only vea", "no model 'vea'"),
])  # fmt: skip
def test_refused(line, said):
    with pytest.raises(SystemExit, match=said):
        program.main(line.split())


def test_a_profile_names_the_ops_and_the_cost_of_recording(capsys):
    assert program.main(["profile", "realnvp", "--rounds", "2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^linear +24 ", out, re.MULTILINE)
    assert re.search(r"^create_graph / plain, forward and backward: \d\.\d\d \(", out, re.MULTILINE)
