"Temperatures: what they may not change, and that the fitted one is the likeliest, on both tracks"
import json, math, subprocess, sys
from pathlib import Path

import numpy as np, pytest
from datasets import Dataset
from hypothesis import given, settings, strategies as st

from squad_nb.calibration import FLOOR, TEMPERATURES, calibration_error, fit_temperature, probability_scores, reliability, temper, untempered
from squad_nb.core import Candidate, DataError, Prediction, write_json
from squad_nb.metrics import question_scores
from squad_nb.sample import generate_squad
from squad_nb.squad import SCHEMA

root = Path(__file__).parents[1]
NAMES = ["Ada", "Ben", "Cyd", "Dov", "Eva"]


def rows(n, answers): return Dataset.from_list([dict(id=str(i), title="", context=" ".join(NAMES), question="Who?", answers=dict(text=list(a), answer_start=[0]*len(a))) for i, a in zip(range(n), answers)], features=SCHEMA)


@st.composite
def questions_shares(draw):
    "Shares of the candidates of some questions, and whose they are, in any order"
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    shares = []
    for size in sizes:
        parts = np.array(draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)))
        shares.append(parts/max(1, parts.sum()*draw(st.floats(1, 4))))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.array(draw(st.permutations(range(len(owner)))))
    return np.concatenate(shares)[order], owner[order]


@settings(max_examples=150, deadline=None)
@given(questions_shares(), st.floats(.1, 10), st.floats(.5, 2))
def test_a_temperature_keeps_the_order_and_a_distribution(case, temperature, other):
    shares, owner = case
    warm = temper(shares, owner, temperature)
    assert ((warm >= 0) & (warm <= 1)).all() and (np.bincount(owner, warm) <= 1 + 1e-9).all()
    for i in range(owner.max() + 1):
        mine = owner == i
        assert np.array_equal(np.argsort(shares[mine], kind="stable"), np.argsort(warm[mine], kind="stable")) or np.allclose(np.sort(warm[mine]), warm[mine][np.argsort(shares[mine], kind="stable")])
        alone = temper(shares[mine], np.zeros(mine.sum(), int), temperature)
        assert np.allclose(alone, warm[mine])  # no question knows of another
    if (1 - np.bincount(owner, shares) > 2*FLOOR).all() and (1 - np.bincount(owner, warm) > 2*FLOOR).all():
        assert np.allclose(temper(warm, owner, other), temper(shares, owner, temperature*other), atol=1e-6)


def plain_temper(shares, temperature):
    "The definition: a softmax of the logarithms, over the candidates and something else"
    logits = [math.log(p)/temperature for p in [*shares, max(1 - sum(shares), FLOOR)]]
    top = max(logits)
    return [math.exp(z - top)/sum(math.exp(y - top) for y in logits) for z in logits[:-1]]


@pytest.mark.parametrize("temperature", [.3, 1, 1.7, 9])
def test_it_is_the_softmax_of_the_logarithms(temperature):
    rng = np.random.default_rng(0)
    for _ in range(50):
        shares = rng.dirichlet(np.ones(6))[:5]
        assert np.allclose(temper(shares, np.zeros(5, int), temperature), plain_temper(shares, temperature))


def drawn(n, loud, seed=0, null=False):
    "Predictions of a model `loud` times as sure as it should be; with `null` a threshold made the second candidate win now and then"
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 6))
    def softmax(z): return np.exp(z)/np.exp(z).sum(1, keepdims=True)
    truth, shares = (softmax(z).cumsum(1) > rng.random((n, 1))).argmax(1), softmax(loud*z)[:, :5]
    names = [""] + NAMES[1:] if null else NAMES
    predictions = []
    for i, row in enumerate(shares):
        candidates = sorted((Candidate(name, math.log(p), p, *((None, None) if not name else (0, 3))) for name, p in zip(names, row)), key=lambda c: -c.score)
        predictions.append(Prediction.from_candidates(str(i), candidates, int(null and rng.random() < .2)))
    return predictions, rows(n, [[name] if (name := (names + ["Fay"])[t]) else [] for t in truth])


@pytest.mark.parametrize("loud", [.5, 1, 3])
@pytest.mark.parametrize("null", [False, True])
def test_the_fitted_temperature_is_the_likeliest(loud, null):
    predictions, questions = drawn(400, loud, null=null)
    found = fit_temperature(iter(predictions[::-1]), questions)  # in any order, read once
    right = {row["id"]: row["exact"] for row in question_scores(predictions, questions)}
    def loss(temperature):
        total = 0
        for p in predictions:
            place = [(c.text, c.start) for c in p.candidates].index((p.text, p.start))
            q = plain_temper([c.probability for c in p.candidates], temperature)[place]
            total -= math.log(min(max(q if right[p.id] else 1 - q, FLOOR), 1 - FLOOR))
        return total + (math.log(temperature)/.3)**2/2
    assert all(loss(found.temperature) <= loss(t) + 1e-9 for t in TEMPERATURES[::9])
    assert abs(math.log(found.temperature/loud)) < (.6 if null else .3) and found.questions == 400  # where the second best wins, more than the loudness is wrong
    assert found.after["nll"] <= found.before["nll"] + 1e-3


def test_held_out_probabilities_are_better():
    predictions, questions = drawn(4000, 3)
    temperature = fit_temperature(predictions[:1000], questions.select(range(1000))).temperature
    right = [row["exact"] for row in question_scores(predictions, questions)][1000:]
    def winners(t): return [temper(np.array([c.probability for c in p.candidates]), np.zeros(5, int), t)[0] for p in predictions[1000:]]
    before, after = (probability_scores(winners(t), right) for t in (1, temperature))
    assert after["ece"] < .04 < .15 < before["ece"] and after["nll"] < before["nll"] - .1 and after["brier"] < before["brier"]


@pytest.mark.parametrize("right", [True, False])
def test_a_small_split_that_is_all_right_or_all_wrong_gives_no_certainty(right):
    said = [Prediction.from_candidates(str(i), [Candidate("Ada", -.5, .6, 0, 3)]) for i in range(8)]
    found = fit_temperature(said, rows(8, [["Ada" if right else "Ben"]]*8))
    p = temper(np.array([.6]), np.zeros(1, int), found.temperature)[0]
    assert found.temperature < 1 and .6 < p < .9 if right else found.temperature > 1 and .5 < p < .6


def test_what_is_raised_within_brings_the_old_temperature_back():
    has = [2.5]
    with pytest.raises(KeyboardInterrupt), untempered(has.append, has[-1]):
        has.append(7.)
        raise KeyboardInterrupt
    assert has == [2.5, 1.0, 7., 2.5]


def test_what_cannot_be_fitted_is_said():
    sure = Prediction.from_candidates("0", [Candidate("Ada", 0., 1., 0, 3)])
    silent = Prediction("1", "", -math.inf)  # of a passage without words
    assert fit_temperature([sure, silent], rows(2, [["Ada"], ["Ada"]])).questions == 1
    with pytest.raises(DataError, match="no answers"): fit_temperature([silent], rows(2, [["Ada"], ["Ada"]]))
    with pytest.raises(DataError, match="no accepted answer|None of the"): fit_temperature([sure], rows(1, [[]]))
    with pytest.raises(DataError, match="answer no question"): fit_temperature([sure._replace(id="x")], rows(1, [["Ada"]]))
    for bad in ([1.2], [-.1], [math.nan]):
        with pytest.raises(DataError, match="between 0 and 1"): probability_scores(bad, [1])


def test_figures_are_those_of_their_definitions():
    rng = np.random.default_rng(1)
    p, y = rng.random(500), rng.random(500) < .5
    scores = probability_scores(p, y)
    assert np.isclose(scores["nll"], -np.mean([math.log(q if r else 1 - q) for q, r in zip(p, y)])) and np.isclose(scores["brier"], np.mean((p - y)**2))
    ece = sum(abs(p[b].mean() - y[b].mean())*b.mean() for i in range(10) if (b := (p > i/10) & (p <= (i + 1)/10)).any())
    assert np.isclose(scores["ece"], ece) and scores["ece"] == calibration_error(reliability(p, y))
    assert json.dumps(scores)  # plain numbers


def test_the_benchmark_fits_on_some_articles_and_scores_on_others(tmp_path):
    data = write_json(tmp_path/"world.json", generate_squad(9, cloze=True))
    done = subprocess.run([sys.executable, root/"benchmarks"/"calibration.py", "--model", "tiny-bert", "--data", data, "--test-articles", "8", "--draws", "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert [(d["fitted_on"], d["scored_on"]) for d in figures["draws"]] == [(24, 72)]*2 and set(figures["before"]) == set(figures["after"]) == {"nll", "brier", "ece"}
