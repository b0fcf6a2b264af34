"Every question gets exactly one kind, and the kind says what it is defined to say: random spans, and the real data"
import pytest
from hypothesis import given, strategies as st

from conftest import cases
from squad_nb.core import Prediction
from squad_nb.kinds import ERROR_KINDS, error_kind, error_kinds, loose_answer, sentence_starts
from squad_nb.metrics import exact_match, read_predictions
from squad_nb.squad import SCHEMA, load_squad
from datasets import Dataset

PASSAGE = "Dr. Ada Lovelace was born in London. In London she wrote, in 1843, the first program! Her father died in Greece? Nobody knows."
spans = st.tuples(st.integers(0, len(PASSAGE) - 1), st.integers(1, 40)).map(lambda s: (s[0], min(s[0] + s[1], len(PASSAGE)))).filter(lambda s: PASSAGE[slice(*s)].strip())


def row(golds, id="q"): return dict(id=id, title="", context=PASSAGE, question="Who?", answers=dict(text=[PASSAGE[a:b] for a, b in golds], answer_start=[a for a, _ in golds]))
def overlap(a, b): return min(a[1], b[1]) > max(a[0], b[0])
def sentences(a, b): return {i for i, start in enumerate(sentence_starts(PASSAGE)) if start < b and a < ([*sentence_starts(PASSAGE), len(PASSAGE)][i + 1])}


@cases(300)
@given(st.lists(spans, max_size=3), spans)
def test_a_span_has_the_kind_of_its_place(golds, place):
    text = PASSAGE[slice(*place)]
    question = row(golds)
    right = bool(exact_match(text, question["answers"]["text"], v2=True))
    kind = error_kind(question, Prediction("q", text, 0., *place), right)
    assert kind in ERROR_KINDS and (kind == "right") == right
    if kind in ("right", "annotation fault"): return
    assert (kind == "answered the unanswerable") == (not golds)
    if not golds: return
    over = [gold for gold in golds if overlap(place, gold)]
    assert bool(over) == (kind in ("too long", "too short"))
    if kind == "too long": assert any(place[0] <= a and b <= place[1] for a, b in over)
    if kind == "too short": assert not all(place[0] <= a and b <= place[1] for a, b in over)
    if not over: assert (kind == "right sentence") == any(sentences(*place) & sentences(*gold) for gold in golds)


@cases(200)
@given(st.lists(st.tuples(st.lists(spans, max_size=2), st.one_of(st.none(), st.just(""), st.text(max_size=12), spans.map(lambda s: PASSAGE[slice(*s)])), st.booleans()), min_size=1, max_size=6))
def test_every_question_has_exactly_one_kind(drawn):
    rows = [row(golds, f"q{i}") for i, (golds, _, _) in enumerate(drawn)] + [row([(4, 7)], "sure")]
    questions = Dataset.from_list(rows, features=SCHEMA)
    said = {f"q{i}": text for i, (_, text, _) in enumerate(drawn) if text is not None}
    found = error_kinds(said, questions, outside=[f"q{i}" for i, (_, _, out) in enumerate(drawn) if out])
    assert [r["id"] for r in found] == questions["id"][:] and {r["kind"] for r in found} <= set(ERROR_KINDS)
    v2 = any(not r["answers"]["text"] for r in rows)
    for r, one, (_, text, out) in zip(rows, found, drawn):
        golds, kind = r["answers"]["text"], one["kind"]
        assert (kind == "missing") == (text is None)
        if text is None: continue
        assert (kind == "right") == bool(exact_match(text, golds, v2))
        if kind in ("not verbatim", "outside every window", "abstained wrongly"): assert golds
        if kind == "abstained wrongly": assert not text.strip()
        if kind == "not verbatim": assert text.strip() not in PASSAGE
        if out and golds: assert kind in ("right", "annotation fault", "outside every window")


@given(st.text(max_size=60))
def test_sentences_begin_in_order_and_loose_answers_are_settled(text):
    starts = sentence_starts(text)
    assert starts[0] == 0 and list(starts) == sorted(set(starts)) and all(a < len(text) for a in starts[1:])
    loose_answer(text)


@pytest.mark.parametrize("data, answers", [("squad-v1.1", "v1.1-bert-ensemble"), ("squad-v2.0", "v2.0-bert-single-model")])
def test_published_answers(shared, data, answers):
    questions, said = load_squad(shared/"squad"/f"{data}.json"), read_predictions(shared/"squad"/"predictions"/f"{answers}.json")
    counts = error_kinds(said, questions).counts()
    assert sum(counts.values()) == len(questions)
    assert 0.005 < counts["annotation fault"]/len(questions) < 0.06 and counts["wrong sentence"] > counts["right sentence"]/4
    assert ("answered the unanswerable" in counts) == (data == "squad-v2.0")
