"Each benchmark on a small slice: both sides must give the same. Timings never decide"
import json, subprocess, sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]


def run(name, *words):
    done = subprocess.run([sys.executable, root/"benchmarks"/name, *map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_windows():
    run("windows.py", "--data", "sample", "--tokenizer", "tiny-bert", "--limit", 60, "--repeats", 1)


def test_spans():
    found = run("spans.py", "--data", "sample", "--limit", 60, "--repeats", 1, "--json")
    assert found["violations"] == found["wrong_candidates"] == [] and found["equal"] > 40


@pytest.mark.parametrize("decoder", ["p._replace(candidates=[c._replace(score=c.score + 1) for c in p.candidates])", "p._replace(candidates=[c._replace(text='garbage', end=c.start + 1) for c in p.candidates])"])
def test_spans_of_another_score_or_place_are_found(decoder):
    script = f"""
import sys; sys.path.insert(0, {str(root/"benchmarks")!r}); sys.argv = ["spans.py", "--data", "sample", "--limit", "20", "--repeats", "1", "--json"]
import spans; decode = spans.decode_spans
spans.decode_spans = lambda *args, **kwargs: [{decoder} for p in decode(*args, **kwargs)]
spans.run(spans.main)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "candidates are no spans" in done.stderr, done.stderr


def test_training():
    figures = run("training.py", "--model", "tiny-bert", "--data", "sample", "--limit", 24, "--repeats", 1)
    assert figures["windows"] > 0 and figures["loss_difference"] < 1e-4 and set(figures["ratios"]) == {"to_padded", "to_dynamic", "to_by_length"}


def test_accuracy(tmp_path):
    from squad_nb.core import write_json
    from squad_nb.sample import generate_squad
    figures = run("accuracy.py", "--model", "tiny-bert", "--data", write_json(tmp_path/"world.json", generate_squad(4)), "--test-articles", 1, "--limit", 16, "--eval-limit", 12, "--epochs", 1, "--seeds", 0, "--threads", 1)
    assert figures["scored_on"] == 12 and set(figures["sides"]) == {"plain", "grouped", "ours"} and set(figures["less_plain"]) == {"grouped", "ours"}


def test_generative_training():
    figures = run("generative.py", "--data", "sample", "--tokenizer", "tiny-gpt2", "--limit", 8, "--layers", 1, "--batch-size", 4, "--threads", 1)
    assert figures["loss_spread"] < 1e-4 and set(figures["ratios"]) == {"shared_to_plain", "shared_to_dynamic", "unshared_to_plain"}


def test_generative_answers():
    assert run("generative.py", "--data", "sample", "--model", "tiny-gpt2", "--limit", 8, "--threads", 1)["different_answers"] == []


def test_scoring():
    assert set(run("scoring.py", "--data", "sample", "--repeats", 1)["ratios"]) == {"to_plain", "to_torchmetrics"}


@pytest.mark.parametrize("shape, precision, compiled", [("gpt2", "fp32", "off"), ("distilbert", "bf16", "on")])
def test_gpu(tmp_path, shape, precision, compiled):
    "On the CPU"
    run_words = ["--data", "sample", "--tokenizer", "tiny-gpt2" if shape == "gpt2" else "tiny-bert", "--shapes", shape, "--precisions", precision, "--compile", compiled, "--limit", "8", "--layers", "1", "--batch-size", "4",
                 "--warmup", "1", "--steps", "1", "--threads", "1", "--json", tmp_path/"gpu.json"]
    done = subprocess.run([sys.executable, root/"benchmarks"/"gpu.py", *run_words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path/"gpu.json").read_text())["rows"]
    assert [row["side"] for row in rows] == ["padded", "grouped", "shared"][:2 + (shape == "gpt2")] and all(row["loss"] > 0 and row["tokens_per_second"] > 0 for row in rows)


def test_a_row_that_fails_does_not_take_the_others_along(tmp_path):
    "No prompts can be made with a tokenizer that has no end-of-text token"
    words = ["--data", "sample", "--tokenizer", "tiny-bert", "--shapes", "distilbert", "gpt2", "--precisions", "fp32", "--compile", "off", "--limit", "8", "--layers", "1", "--batch-size", "4", "--warmup", "1", "--steps", "1", "--threads", "1"]
    done = subprocess.run([sys.executable, root/"benchmarks"/"gpu.py", *words, "--json", tmp_path/"gpu.json"], capture_output=True, text=True, timeout=600)
    rows = json.loads((tmp_path/"gpu.json").read_text())["rows"]
    assert done.returncode == 1 and "3 of 5 rows failed" in done.stderr and ["error" in row for row in rows] == [False, False, True, True, True], done.stderr


def test_time_to_f1(tmp_path):
    from squad_nb.core import write_json
    from squad_nb.sample import generate_squad
    found = run("time_to_f1.py", "--model", "tiny-bert", "--data", write_json(tmp_path/"world.json", generate_squad(3)), "--test-articles", 1, "--eval-limit", 12, "--f1", 1, "--every", 1, "--epochs", 1, "--max-length", 192, "--stride", 48, "--threads", 1)
    assert set(found["ratios"]) == {"to_padded", "to_dynamic"} and all(ratios["0"] > 0 for ratios in found["ratios"].values())


@pytest.mark.parametrize("words", [("--model", "tiny-bert"), ("--writer", "tiny-gpt2")])
def test_time_shares(words):
    found = run("time_shares.py", *words, "--data", "sample", "--limit", 12, "--threads", 1)
    assert set(found["times_the_model"]) == {"preparation", "decoding"} and 0 <= found["training"]["outside"] < 1
    assert abs(sum(found["training"]["shares"].values()) + found["training"]["outside"] - 1) < 1e-6


def test_serving():
    figures = run("serving.py", "--limit", 12, "--json")
    assert figures["different_answers"] == [] and {"torch, float32": 32, "ONNX": 1, "ONNX, 32 windows": 32, "ONNX, int8": 1, "ONNX, int8, 32 windows": 32}.items() <= {name: side["windows"] for name, side in figures["sides"].items()}.items()
    assert figures["sides"]["ONNX, int8"]["bytes"] < figures["sides"]["ONNX"]["bytes"]/2 and all(side[f"calls_of_{size}"]["p50_ms"] > 0 for size in (1, 32) for side in figures["sides"].values())


def test_all_of_them_in_one_go(tmp_path):
    "The table has a ratio a row; one that fails is shown, and the others go on"
    words = [sys.executable, str(root/"benchmarks"/"run.py"), "--data", "sample", "--only", "scoring", "windows", "--json", str(tmp_path/"all.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path/"all.json").read_text())["results"]
    assert set(found) == {"windows", "scoring"} and done.stdout.count("\n| scoring | ") == 2
    done = subprocess.run([*words, "--predictions", str(tmp_path/"none.json")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "| scoring | FAILED: " in done.stdout and "| windows | Dataset.map" in done.stdout


@pytest.mark.parametrize("name, words, says", [("training.py", ("--model", "tiny-bert", "--data", "none.json"), "none.json"), ("windows.py", ("--data", "sample", "--tokenizer", "nope"), "nope"), ("gpu.py", ("--data", "sample", "--tokenizer", "nope"), "nope"),
                                               ("scoring.py", ("--data", "sample", "--repeats", 0), "from 1 on"), ("generative.py", ("--data", "sample", "--model", "tiny-gpt2", "--skip", 7000), "--skip 7000"), ("run.py", ("--data", "sample", "--only", "nonsense"), "--only names none of")])
def test_mistakes_are_said_in_a_line(name, words, says):
    done = subprocess.run([sys.executable, root/"benchmarks"/name, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode and says in done.stderr.strip().splitlines()[-1] and "Traceback (most recent call last)" not in done.stderr, done.stderr
