"Prompts of the real SQuAD files beside the project, with the tokenizer of a real model"
import json, subprocess, sys, warnings
from pathlib import Path

import numpy as np
import pytest

from squad_nb.prompts import ANSWER, CONTEXT, LAYOUTS, QUESTION, PromptConfig, prompt_features
from squad_nb.squad import load_squad
from squad_nb.windows import first_answers, whole_column

root = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def squad(shared): return load_squad(shared/"squad"/"squad-v1.1.json")


def quiet(*args, **settings):
    "Features, and what was warned of"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return prompt_features(*args, **settings), [str(w.message) for w in caught]


@pytest.fixture(scope="module")
def made(squad, smollm2): return quiet(squad, smollm2)


def column(features, name): return whole_column(features.with_format("arrow")[:], name)
def flat(features, name): return np.asarray(column(features, name).flatten())
def bounds(features): return np.append(0, np.cumsum(column(features, "input_ids").value_lengths()))


def spans_of(squad): return first_answers(whole_column(squad.with_format("arrow")[:], "answers"))


@pytest.mark.parametrize("length,stride", [(384, 128), (96, 48)])
def test_the_window_trained_on_holds_the_answer(squad, smollm2, length, stride):
    features, said = quiet(squad, smollm2, PromptConfig(max_context_length=length, stride=stride))
    start, end = (np.asarray(column(features, name)) for name in ("context_start", "context_end"))
    answers = spans_of(squad)
    assert features["example_id"][:] == squad["id"][:]
    assert all(row["context"][a:b] == row["answers"]["text"][0] for row, (a, b) in zip(squad, answers))  # all of them stand in their contexts
    outside = [id for id, bad in zip(squad["id"], (start > answers[:, 0]) | (end < answers[:, 1])) if bad]
    assert outside == [] and not any("no window" in s for s in said)
    for i in range(0, len(squad), 97):  # the characters are those of the tokens
        row, tokens, s, e = squad[i], features[i], start[i], end[i]
        text = smollm2.decode([i for i, segment in zip(tokens["input_ids"], tokens["segments"]) if segment == CONTEXT])
        expected = " Context:" + (" " if s == 0 else "") + row["context"][s:e]
        assert text == expected or "\ufffd" in text and expected.startswith(text.rstrip("\ufffd"))  # an edge may cut a character of several bytes


def test_every_token_of_a_context_is_in_a_window(squad, smollm2):
    config = PromptConfig(max_context_length=64, stride=16, layout="context_first")
    prompts, _ = quiet(squad, smollm2, config, labels=False)
    head = len(smollm2("Context:").input_ids)
    ids, segments, edges = flat(prompts, "input_ids"), flat(prompts, "segments"), bounds(prompts)
    passages, texts = {}, {}
    for row, (example, window, passage) in enumerate(zip(prompts["example_id"], prompts["window"], prompts["passage"])):
        part = slice(edges[row], edges[row + 1])
        context = ids[part][segments[part] == CONTEXT][head:].tolist()
        assert passages.setdefault(passage, context) == context  # rows of one passage may share it
        texts.setdefault(example, []).append(context)
        assert len(texts[example]) == window + 1 and 0 < len(context) <= 64
    assert len(passages) == len(set(passages)) and sorted(passages) == list(range(len(passages)))
    whole = dict(zip(squad.unique("context"), smollm2([" " + c for c in squad.unique("context")], add_special_tokens=False).input_ids))
    for example, context in zip(squad["id"], squad["context"]):
        first, *rest = texts[example]
        assert first + [i for window in rest for i in window[16:]] == whole[context], example
    assert len(passages) < len(prompts)/4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_is_a_prefix_of_prompt_and_answer(squad, smollm2, layout):
    config = PromptConfig(max_context_length=128, stride=32, layout=layout)
    trained, prompts = quiet(squad, smollm2, config)[0], quiet(squad, smollm2, config, labels=False)[0]
    place = {key: i for i, key in enumerate(zip(prompts["example_id"], prompts["window"]))}
    ids, edges, prompt_ids, prompt_edges = flat(trained, "input_ids"), bounds(trained), flat(prompts, "input_ids"), bounds(prompts)
    labels, learned = flat(trained, "labels"), flat(trained, "labels_mask")
    for row, key in enumerate(zip(trained["example_id"], trained["window"])):
        prompt = prompt_ids[prompt_edges[place[key]]:prompt_edges[place[key] + 1]]
        a, b = edges[row], edges[row + 1]
        assert np.array_equal(ids[a:a + len(prompt)], prompt) and np.array_equal(ids[a + 1:b], labels[a:b - 1])
        first = np.flatnonzero(learned[a:b])[0]
        assert first == len(prompt) - 1 and labels[b - 1] == smollm2.eos_token_id  # the last token of the prompt predicts the first of the answer
    assert prompts["answers"][7] == squad[int(np.flatnonzero(np.array(squad["id"]) == prompts["example_id"][7])[0])]["answers"]


def test_joined_segments_are_the_tokens_of_the_whole_text(squad, smollm2):
    for config, text in ((PromptConfig(max_context_length=5000, max_answer_length=500), "Question: {q} Context: {c} answer: {a}"),
                         (PromptConfig(max_context_length=5000, max_answer_length=500, layout="context_first"), "Context: {c} Question: {q} answer: {a}")):
        rows = squad.select(range(0, len(squad), 2))
        made, said = quiet(rows, smollm2, config)
        whole = smollm2([text.format(q=r["question"].strip(), c=r["context"], a=r["answers"]["text"][0].strip()) for r in rows]).input_ids
        assert said == [] and np.array_equal(flat(made, "input_ids"), np.concatenate(whole))


def test_what_is_learned_is_the_answer_and_its_end(squad, smollm2, made):
    features, said = made
    eos, cut = smollm2.eos_token_id, 0
    labels, learned, edges = flat(features, "labels"), flat(features, "labels_mask"), bounds(features)
    for row, (a, b) in zip(squad["answers"], zip(edges, edges[1:])):
        ids = labels[a:b][learned[a:b] == 1].tolist()
        if ids[-1] == eos: assert smollm2.decode(ids[:-1]) == " " + row["text"][0].strip()
        else:
            cut += 1
            assert len(ids) == 40 and row["text"][0].startswith(smollm2.decode(ids).strip("\ufffd "))
    assert [s.split()[:6] for s in said] == [[str(cut), "of", "8378", "answers", "have", "more"]] and 0 < cut < 40


def test_questions_without_an_answer_learn_the_end_alone(shared, smollm2):
    v2 = load_squad(shared/"squad"/"squad-v2.0.json")
    features, _ = quiet(v2, smollm2)
    learned = np.add.reduceat(flat(features, "labels_mask").astype(int), bounds(features)[:-1])
    empty = np.array([not a["text"] for a in v2["answers"]])
    assert empty.sum() == 4301 and (learned[empty] == 1).all() and (learned[~empty] > 1).all()


def test_segments_and_mask(squad, smollm2):
    for layout, order in zip(LAYOUTS, ([QUESTION, CONTEXT, ANSWER], [CONTEXT, QUESTION, ANSWER])):
        features, _ = quiet(squad.select(range(50)), smollm2, PromptConfig(layout=layout))
        for row in features:
            segments = row["segments"]
            assert [s for i, s in enumerate(segments) if not i or segments[i - 1] != s] == order and set(row["input_mask"]) == {1}
            assert len({len(row[name]) for name in ("input_ids", "segments", "input_mask", "labels", "labels_mask")}) == 1


def test_the_tokenizer_stays_as_it_was_and_texts_write_no_special_token(squad, smollm2):
    few = squad.select(range(5)).map(lambda row: {"context": row["context"] + smollm2.eos_token, "question": smollm2.eos_token + row["question"]})
    backend = smollm2.backend_tokenizer
    backend.enable_truncation(7)
    try:
        assert smollm2.eos_token_id not in flat(quiet(few, smollm2, labels=False)[0], "input_ids")
        assert backend.truncation["max_length"] == 7 and not backend.encode_special_tokens
    finally: backend.no_truncation()


def test_the_benchmark_finds_all_sides_equal(shared, smollm2, tmp_path):
    out, folder = tmp_path/"figures.json", tmp_path/"tokenizer"  # a saved tokenizer loads faster than one in a weights file
    smollm2.save_pretrained(folder)
    for layout in LAYOUTS:
        done = subprocess.run([sys.executable, root/"benchmarks"/"prompts.py", "--data", shared/"squad"/"squad-v1.1.json", "--tokenizer", folder, "--limit", "80", "--repeats", "1", "--max-context-length", "90", "--stride", "30",
                               "--layout", layout, "--json", str(out)], capture_output=True, text=True, cwd=root, timeout=300)
        assert done.returncode == 0, done.stderr
        assert [case["different"] for case in json.loads(out.read_text())["cases"].values()] == [[], []]
