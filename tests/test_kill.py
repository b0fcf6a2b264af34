"""Runs killed with SIGKILL and gone on with end as those never killed: the same weights, answers and hashes, bit for bit.

Three kills in every test run. Many at random moments, counted by what they hit: OMP_NUM_THREADS=1 pytest -s --flags slow tests/test_kill.py -k random"""
import json, os, random, signal, subprocess, sys, time
from collections import Counter
from pathlib import Path

import pytest

from squad_nb.core import write_json
from squad_nb.runs import checkpoints_of, damage, run_hashes
from squad_nb.sample import generate_squad

TRACKS = {"extractive": ["--model", "tiny-bert", "--max-length", "96", "--stride", "24"],
          "generative": ["--model", "tiny-gpt2", "--layout", "context_first", "--mask-mode", "prefix"]}
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


class Killer:
    "Starts the command, and ends it at a moment of its choice"
    def __init__(self, folder):
        self.folder, self.log, self.stage = folder, folder/"log.txt", folder/"stage.txt"
        self.server = subprocess.Popen([sys.executable, Path(__file__).with_name("killed.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | dict(OMP_NUM_THREADS="1"))

    def doing(self): return self.stage.read_text().strip() if self.stage.exists() else ""

    def run(self, words, slow=0.0, when=None, limit=300):
        "Run the command; kill it as soon as `when(what it is doing, seconds since it began)`. Gives its return code, and what it was doing"
        self.stage.unlink(missing_ok=True)
        self.server.stdin.write(json.dumps(dict(words=[str(w) for w in words], stage=str(self.stage), log=str(self.log), slow=slow)) + "\n")
        self.server.stdin.flush()
        pid, began, hit = int(self.server.stdout.readline()), time.monotonic(), "nothing"
        while when and hit == "nothing":
            time.sleep(0.002)
            assert time.monotonic() < began + limit, self.log.read_text()[-2000:]
            try:
                if not when(self.doing(), time.monotonic() - began): os.kill(pid, 0)  # is it there?
                else:
                    os.kill(pid, signal.SIGSTOP)  # what it is doing is said of the moment in which it is killed
                    time.sleep(0.01)
                    if when(self.doing(), time.monotonic() - began): hit = self.doing()
                    os.kill(pid, signal.SIGKILL if hit != "nothing" else signal.SIGCONT)
            except ProcessLookupError: break
        return int(self.server.stdout.readline()), hit


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    made = Killer(tmp_path_factory.mktemp("killer"))
    yield made
    made.server.stdin.close()
    made.server.wait(60)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_json(folder/"train.json", generate_squad(4))
    write_json(folder/"test.json", generate_squad(2, names="test"))
    return folder


def command(track, world, run):
    "The one command that is given again and again, from the first time on with --resume"
    return ["train", track, *TRACKS[track], "--data", world/"train.json", "--eval-data", world/"test.json", "--epochs", "3", "--learning-rate", "1e-3", "--batch-size", "16",
            "--precision", "fp32", "--save-every", "2", "--keep", "2", "--output", run, "--resume"]


def left(run):
    "Everything that two runs must have alike"
    assert not (run/".writing").exists() and not list(run.glob(".*.gone"))
    assert all(damage(checkpoint) is None for checkpoint in checkpoints_of(run))
    return run_hashes(run), (run/"model.safetensors").read_bytes(), (run/"predictions.json").read_bytes(), [c.name for c in checkpoints_of(run)]


@pytest.fixture(scope="module")
def undisturbed(killer, world, tmp_path_factory):
    def train(track):
        run = tmp_path_factory.mktemp("undisturbed")/track
        code, _ = killer.run(command(track, world, run))
        assert code == 0, killer.log.read_text()
        return left(run)
    return {track: train(track) for track in TRACKS}


@pytest.mark.parametrize("track, stages", [("extractive", ["checkpoint", "evaluation"]), ("generative", ["training"])])
def test_a_killed_run_ends_as_if_it_had_not_been(track, stages, killer, world, undisturbed, tmp_path):
    chance, run = random.Random(7), tmp_path/"run"
    for stage in stages:
        some_saved, wait = len(checkpoints_of(run)), chance.uniform(0.05, 0.25)
        entered = []

        def when(doing, _):  # a while after that stage began, with more saved than before
            if doing == stage and len(checkpoints_of(run)) > some_saved: entered.append(time.monotonic())
            return bool(entered) and time.monotonic() > entered[0] + wait and doing == stage
        code, hit = killer.run(command(track, world, run), slow=0.05, when=when)
        assert (code, hit) == (-signal.SIGKILL, stage), killer.log.read_text()
    done = subprocess.run([sys.executable, "-m", "squad_nb", *map(str, command(track, world, run))], capture_output=True, text=True, timeout=300, env=os.environ | dict(OMP_NUM_THREADS="1"))
    assert done.returncode == 0, done.stderr
    assert "Going on from" in done.stderr
    assert left(run) == undisturbed[track]
    killer.log.unlink()
    assert killer.run([*command(track, world, run), "--learning-rate", "2e-3"]) == (1, "nothing")
    assert "learning_rate was 0.001, is 0.002" in killer.log.read_text().splitlines()[-1]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("track", TRACKS)
def test_random_kills(track, killer, world, undisturbed, tmp_path, request):
    "At least 20 of each track, 3 of them in the writing of a checkpoint, 3 in an evaluation and 3 while the final files are written; every run is taken to its end"
    if "slow" not in request.config.getoption("--flags").split(): pytest.skip("slow: run with --flags slow")
    chance, hits, runs = random.Random(track), Counter(), 0
    while hits.total() < 20 or min(hits["checkpoint"], hits["evaluation"], hits["final files"]) < 3:
        run, code = tmp_path/f"run-{runs}", -1
        while code:
            at, stage, entered = chance.uniform(0, 8), chance.choice([None, None, "evaluation", "end", "final files"]), []

            def when(doing, seconds):  # at any moment, or a while after some stage was reached
                if doing == stage: entered.append(seconds)
                return seconds > (at if stage is None else entered[0] + at/8 if entered else 30)
            code, hit = killer.run(command(track, world, run), slow=0.1, when=when)
            assert code in (0, -signal.SIGKILL), killer.log.read_text()[-3000:]
            hits.update([hit]*(code != 0))
        runs += 1
        assert left(run) == undisturbed[track]
    print(f"\n{track}: {hits.total()} kills in {runs} runs, each ended bit for bit like the undisturbed one. Hit:", dict(hits))
