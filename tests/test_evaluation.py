"Evaluation as a process: damaged checkpoints, mixed and wrong inputs; and the bootstrap on real predictions"
import csv, itertools, json, os, shutil, subprocess, sys
from pathlib import Path

import numpy as np
import pytest

from squad_nb.core import write_json
from squad_nb.evaluation import CheckpointScores, bootstrap_interval, compare, score_checkpoints
from squad_nb.metrics import question_scores, read_predictions
from squad_nb.sample import generate_squad
from squad_nb.squad import load_squad

SMALL = ["--model", "tiny-bert", "--max-length", "192", "--stride", "48", "--learning-rate", "2e-3", "--batch-size", "32", "--epochs", "2"]


def squad_nb(*words, code=0):
    "Run the command; what it prints, after checking that an error is one line and no traceback"
    done = subprocess.run([sys.executable, "-m", "squad_nb", *map(str, words)], capture_output=True, text=True, timeout=300, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    if code: assert done.stdout == "" and done.stderr.strip(), done.stdout
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A run of two checkpoints on v2 data, that data, and a file of answers"
    place = tmp_path_factory.mktemp("evaluation")
    write_json(place/"train.json", generate_squad(40, unanswerable=0.3))
    world = generate_squad(6, names="test", unanswerable=0.3)
    write_json(place/"test.json", world)
    write_json(place/"golds.json", {q["id"]: (q["answers"] or [{"text": ""}])[0]["text"] for a in world["data"] for p in a["paragraphs"] for q in p["qas"]})
    squad_nb("train", "extractive", *SMALL, "--data", place/"train.json", "--eval-data", place/"test.json", "--output", place/"run")
    return place


def test_a_run_is_scored_checkpoint_by_checkpoint(place, tmp_path):
    done = squad_nb("evaluate", place/"run", "--data", place/"test.json", "--json", "--plot", tmp_path/"new"/"run.png", "--table", tmp_path/"run.csv")
    found, history = json.loads(done.stdout), json.loads((place/"run"/"run.json").read_text())["history"]
    assert [row["epoch"] for row in found["checkpoints"]] == [1, 2] and found["skipped"] == []
    assert len(history) == 3  # the epochs, and the best of them once more
    right = set()
    for row, logged in zip(found["checkpoints"], history):
        for name in ("exact_match", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact"): assert row[name] == pytest.approx(logged[f"eval_{name}"])
        assert not right & set(row["gained"]) and right >= set(row["lost"])
        right = right - set(row["lost"]) | set(row["gained"])
        assert len(right) == round(row["exact_match"]*row["total"]/100)
    assert sum(line.startswith("checkpoint-") for line in done.stderr.splitlines()) == 2
    assert (tmp_path/"new"/"run.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = list(csv.DictReader((tmp_path/"run.csv").open(encoding="utf-8")))
    assert len(rows) == 2*72 and {row["checkpoint"] for row in rows} == {row["checkpoint"] for row in found["checkpoints"]}
    old = (tmp_path/"run.csv").read_bytes()
    squad_nb("evaluate", place/"run", "--data", place/"test.json", "--table", tmp_path/"run.csv", code=1)
    assert (tmp_path/"run.csv").read_bytes() == old
    assert "HasAns_f1" in squad_nb("evaluate", place/"run"/found["best"], "--data", place/"test.json", "--table", tmp_path/"run.csv", "--force").stdout
    assert len((tmp_path/"run.csv").read_text().splitlines()) == 73


def cut(folder, name): (folder/name).write_bytes((folder/name).read_bytes()[:200])
def drop(folder, *names):
    for name in names: (folder/name).unlink()


@pytest.mark.parametrize("damage, says", [
    (lambda c: cut(c, "model.safetensors"), "Cannot load"), (lambda c: cut(c, "config.json"), "config.json"), (lambda c: cut(c, "tokenizer.json"), "Cannot load"),
    (lambda c: drop(c, "model.safetensors"), "model.safetensors"), (lambda c: drop(c, "tokenizer.json"), "no tokenizer"),
    (lambda c: drop(c, "tokenizer.json", "tokenizer_config.json"), "no tokenizer"), (lambda c: drop(c, *[p.name for p in c.iterdir()]), "config.json")])
def test_a_damaged_checkpoint_is_skipped_by_name(place, tmp_path, damage, says):
    shutil.copytree(place/"run", tmp_path/"run")
    first, last = sorted((tmp_path/"run").glob("checkpoint-*"), key=lambda c: int(c.name.split("-")[1]))
    damage(first)
    lines = []
    found = score_checkpoints(tmp_path/"run", load_squad(place/"test.json"), lines.append)
    assert [s["checkpoint"] for s in found.skipped] == [first.name] and says in found.skipped[0]["reason"], found.skipped
    assert [row["checkpoint"] for row in found.rows] == [last.name] and first.name in repr(found) and any(first.name in line and "skipped" in line for line in lines)


def test_damage_at_the_command(place, tmp_path):
    shutil.copytree(place/"run", tmp_path/"run")
    first, last = sorted((tmp_path/"run").glob("checkpoint-*"), key=lambda c: int(c.name.split("-")[1]))
    cut(first, "model.safetensors")
    (last/"trainer_state.json").unlink()  # its epoch is then unknown, and its answers are not
    done = squad_nb("evaluate", tmp_path/"run", "--data", place/"test.json")
    assert f"Skipped {first.name}" in done.stdout and f"{first.name}: skipped" in done.stderr and last.name in done.stdout
    cut(last, "model.safetensors")
    assert "No checkpoint" in squad_nb("evaluate", tmp_path/"run", "--data", place/"test.json", code=1).stderr
    assert first.name in squad_nb("compare", place/"golds.json", first, "--data", place/"test.json", code=1).stderr


def test_folders_and_files_are_compared_in_any_mix(place, tmp_path):
    run, golds, data = place/"run", place/"golds.json", ["--data", place/"test.json", "--json"]
    there, back = (json.loads(squad_nb("compare", *pair, *data, "--seed", 3).stdout) for pair in ((run, golds), (golds, run)))
    for name in ("exact_match", "f1"):
        assert there["difference"][name] == pytest.approx(there["b"][name] - there["a"][name]) == pytest.approx(-back["difference"][name])
        assert there["interval"][name] == pytest.approx([-x for x in back["interval"][name][::-1]])
        assert there["interval"][name][0] < there["difference"][name] < there["interval"][name][1]
    assert there["b"]["exact_match"] == 100 and there["counts"]["a"] == there["counts"]["neither"] == 0 and there["disagreements"]["b"] == back["disagreements"]["a"]
    same = json.loads(squad_nb("compare", run, run, *data, "--table", tmp_path/"none.csv").stdout)
    assert same["interval"] == dict(exact_match=[0, 0], f1=[0, 0]) and same["counts"] == dict(alike=72, a=0, b=0, neither=0)
    assert len((tmp_path/"none.csv").read_text().splitlines()) == 1  # the names of the columns
    early, late = sorted(run.glob("checkpoint-*"), key=lambda c: int(c.name.split("-")[1]))
    said = squad_nb("compare", early, late, *data[:2], "--table", tmp_path/"apart.csv")
    assert "b − a" in said.stdout and f"{late} answers 72 questions" in said.stderr
    rows = list(csv.DictReader((tmp_path/"apart.csv").open(encoding="utf-8")))
    assert rows and {row["winner"] for row in rows} <= {"a", "b", "neither"} and all(row["a"] != row["b"] for row in rows)


@pytest.mark.parametrize("words, says", [
    (["evaluate", "{}/none"], "no file"), (["evaluate", "{}"], "no checkpoint and no model"), (["evaluate", "{}/golds.json", "--plot", "{}/a.png"], "--plot"),
    (["evaluate", "{}/run", "--plot", "{}/a.gif"], "PNG or SVG"), (["evaluate", "{}/run", "--table", "{}/golds.json/a.csv"], "Cannot write"),
    (["compare", "{}/golds.json", "{}/none"], "no folder of that name"), (["compare", "{}/golds.json", "{}/test.json"], "is SQuAD data"), (["compare", "{}/run", "{}/other.json"], "answer no question"),
    (["compare", "{}", "{}/run"], "no config.json"), (["compare", "{}/run", "{}/run", "--table", "{}/golds.json"], "not overwritten")])
def test_wrong_inputs_are_one_line(place, words, says):
    write_json(place/"other.json", {"x": "y"})
    done = subprocess.run([sys.executable, "-m", "squad_nb", *(w.format(place) for w in words), "--data", str(place/"test.json")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr and says in done.stderr.splitlines()[-1], done.stderr
    if "Cannot write" not in says: assert done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr  # said before any work


def test_a_long_run_is_drawn_whole():
    rows = [dict(checkpoint=f"checkpoint-{i}", step=i, epoch=None, exact_match=50., f1=60., total=2, gained=["a"], lost=[]) for i in range(1, 41)]
    found = CheckpointScores("run", rows, [], {})
    assert all(row["checkpoint"] in repr(found) for row in rows) and "more" not in repr(found)
    assert found.plot().axes[0].get_xlabel() == "step" and len(found.plot().axes[1].get_xticks()) == 10


def test_the_interval_is_that_of_every_possible_draw():
    differences = np.array([[100., 100], [0, 40], [-100, -100], [0, 40], [100, 50]])
    every = np.array([[differences[list(drawn)].mean(0)] for drawn in itertools.product(range(5), repeat=5)])[:, 0]
    exact = np.percentile(every, [2.5, 97.5], axis=0, method="inverted_cdf").T
    found = bootstrap_interval(differences, draws=200_000)
    assert np.abs(found - exact).max() < 10 + 1e-9  # the next possible mean
    assert found[0] == pytest.approx(exact[0])


def test_the_interval_holds_the_truth_as_often_as_it_says():
    "Two models of known difference on 500 drawn data sets: 95%, give or take what 500 data sets tell"
    rng, held = np.random.default_rng(0), 0
    for seed in range(500):
        low, high = bootstrap_interval(100.*rng.choice([-1, 0, 1], (400, 1), p=[0.1, 0.7, 0.2]), seed, 1000)[0]
        held += low <= 10 <= high
    assert 0.92 < held/500 < 0.98


def test_real_predictions(shared):
    "A published system against the first baseline: figures of the official scripts, and the interval of a plain bootstrap"
    squad, questions = shared/"squad", load_squad(str(shared/"squad"/"squad-v1.1.json"))
    names = "logistic-regression-baseline", "bert-ensemble"
    files = [squad/"predictions"/f"v1.1-{name}.json" for name in names]
    expected = json.loads((squad/"predictions"/"expected.json").read_text())["v1.1"]
    found = compare(*files, questions)
    for name, scores in zip(names, found.scores):
        for k, v in expected[name].items(): assert scores[k] == pytest.approx(v)
    before, after = (question_scores(read_predictions(file), questions) for file in files)
    gaps = np.array([[y["exact"] - x["exact"], y["f1"] - x["f1"]] for x, y in zip(before, after)])*100
    rng = np.random.default_rng(5)
    means = [gaps[rng.integers(0, len(gaps), len(gaps))].mean(0) for _ in range(2000)]
    error = gaps.std(0)/len(gaps)**0.5
    for k, name in enumerate(("exact_match", "f1")):
        assert found.difference[name] == pytest.approx(gaps[:, k].mean())
        assert found.interval[name] == pytest.approx(np.percentile(means, [2.5, 97.5], axis=0)[:, k], abs=0.15*error[k])
        assert found.interval[name] == pytest.approx([found.difference[name] + z*error[k] for z in (-1.96, 1.96)], abs=0.1*error[k])
