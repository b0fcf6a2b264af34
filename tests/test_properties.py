"""What must hold of any text, any answer and any limits, against definitions written here a second time, slowly and plainly.

Masks, packs, kinds, views and the search for spans have such tests beside their others; what is here is the path of the data, and the scores.
`pytest tests/test_properties.py --hypothesis-profile=long` draws other cases, twenty times as many."""
import json, math, re, string, unicodedata, warnings
from collections import Counter
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, DatasetInfo
from hypothesis import assume, given, strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from conftest import cases
from squad_nb.core import DataError, ModelError, Prediction, SettingError, read_json, write_json
from squad_nb.generate import Passage, SpanRule, written_span, spelling_of
from squad_nb.masks import attention_mask
from squad_nb.metrics import exact_match, f1_score, missing_ids, normalize_answer, question_scores, squad_metrics
from squad_nb.prompts import LAYOUTS, PromptConfig, prompt_features
from squad_nb.runs import hash_json
from squad_nb.sample import encyclopedia
from squad_nb.spans import decode_spans, top_spans
from squad_nb.squad import LINT_KINDS, SCHEMA, Table, fix_squad, from_squad_json, is_v2, lint_squad, nearest_offset, split_by_article, take, to_squad_json
from squad_nb.windows import uncovered, window_features

# Texts

AWKWARD = ["e\u0301", "Z\u0351\u036b\u0343", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "שלום עולם", "مرحبا", "\u202eRLO\u202c", "東京都", "ｶﾞ", "नमस्ते", "\u200b", "\u200d", "\u00ad", "\ufeff", "\u00a0", "\u3000", "\u2009",
           "\u2028", "\u2029", "\x85", "\r\n", "\n\n", "\t", "\x0b", "\x1c", "\0", "\x1f", "\x7f", "\ufffd", "\uffff", "\U0010ffff", "ß", "ẞ", "İ", "ı", "ǅ", "ﬁ", "½", "²", "Ⅷ", "𝔘𝔫", "µ", "K", "№", "٣", "a" * 130, "1973",
           "the", "The", " a ", "an", "answer:", "Question:", "<|endoftext|>", "[SEP]", "[UNK]", "<s>", "##ing", "Ġ", "▁", "<0x41>", "U.S.", "rock'n'roll", "19th-century", "“quotes”", "…", "--", "{}", "$5"]
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.sampled_from("The Elbe rises in the Giant Mountains and flows 1,091 km to Cuxhaven Déjà naïve x".split())
texts = st.lists(st.one_of(words, words, st.sampled_from(AWKWARD), any_text, st.text("ab. ", max_size=5)), max_size=14).flatmap(
    lambda parts: st.sampled_from(["", " ", " ", "  "]).map(lambda joint: joint.join(parts)))
answer_texts = st.one_of(texts, st.lists(st.sampled_from(["the", "a", "An", "Elbe", "elbe", "the.", "U.S.", "US", "½", "'s", "the\u00a0", "İ", "-"]), max_size=5).map(" ".join))


def made_of(rows):
    "A data set; `from_list` would pickle it to name it, which takes most of the time here"
    return Dataset(pa.Table.from_pylist(rows, SCHEMA.arrow_schema), info=DatasetInfo(features=SCHEMA), fingerprint=hash_json(rows)[:16])


@st.composite
def datasets(draw, most=5, anchored=True, questions=texts, contexts=texts):
    "A few questions on a few passages; accepted answers anywhere, none, the same twice, and with `anchored` off also where they do not stand"
    passages = draw(st.lists(contexts, min_size=1, max_size=3))
    rows = []
    for i in range(draw(st.integers(1, most))):
        context, spans = draw(st.sampled_from(passages)), []
        for _ in range(draw(st.integers(0, 3))):
            a = draw(st.integers(0, len(context)))
            spans.append((a, draw(st.integers(a, min(len(context), a + 30)))))
        text, start = [context[a:b] for a, b in spans], [a for a, _ in spans]
        if not anchored and draw(st.booleans()):
            text, start = draw(st.lists(st.one_of(answer_texts, st.sampled_from(text or [""])), max_size=3)), draw(st.lists(st.integers(-2**31, 2**31 - 1) | st.integers(-3, 40), max_size=3))
        rows.append(dict(id=f"q{i}", title=draw(st.sampled_from(["A", "B", "", "İ"])), context=context, question=draw(questions), answers=dict(text=text, answer_start=start)))
    return made_of(rows)


# Tokenizers of every family, trained on the sample

def corpus(): return [p["context"] for a in encyclopedia()["data"] for p in a["paragraphs"]]


def wordpiece(**normalizer):
    "As of BERT"
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizers.BertNormalizer(**normalizer), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    made.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", eos_token="[SEP]", model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def byte_level(roberta):
    "As of GPT-2, or RoBERTa"
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=600, special_tokens=["<|endoftext|>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True, add_prefix_space=False) if roberta else processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>" if roberta else "<|endoftext|>", **dict(bos_token="<s>", sep_token="</s>", cls_token="<s>") if roberta else {})


def sentencepiece(unigram):
    "As of T5 and XLM-R, or of the first Llamas, whose pieces fall back on bytes"
    made = Tokenizer(models.Unigram() if unigram else models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    special = ["<s>", "</s>", "<unk>", *([] if unigram else [f"<0x{i:02X}>" for i in range(256)])]
    made.normalizer = normalizers.NFKC() if unigram else None
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False) if unigram else trainers.BpeTrainer(vocab_size=800, special_tokens=special, show_progress=False)
    made.train_from_iterator(corpus(), trainer)
    made.decoder = decoders.Metaspace() if unigram else decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


FAMILIES = dict(uncased=lambda: wordpiece(), cased=lambda: wordpiece(lowercase=False, strip_accents=False, handle_chinese_chars=False), gpt2=lambda: byte_level(False), roberta=lambda: byte_level(True),
                unigram=lambda: sentencepiece(True), llama=lambda: sentencepiece(False))
tokenizer = cache(lambda family: FAMILIES[family]())
families = st.sampled_from(list(FAMILIES))


def quiet(make, *args, **settings):
    "What is made, and what was warned of"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return make(*args, **settings), [str(w.message) for w in caught]


def sentence(error): assert 20 < len(str(error)) < 600 and "\n" not in str(error), error


# Windows

def n_tokens(tok, text): return len(tok(text, add_special_tokens=False)["input_ids"])


def cut_question(text, tok, most):
    "The longest beginning that ends with a token and has at most so many"
    ends = [end for _, end in tok(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]]
    fitting = [text[:end] for end in ends[:most] if n_tokens(tok, text[:end]) <= most]
    return fitting[-1] if fitting else ""


def asked(dataset, tok, max_length, stride):
    "The questions as windows ask them, and the ids of those that were cut; None where there is no room for windows, or for eight tokens of a question"
    room, questions, cut = max_length - tok.num_special_tokens_to_add(pair=True), [], []
    if stride < 0 or room - stride < 1: return None
    for row in dataset:
        text = row["question"].strip()
        n = n_tokens(tok, text)
        if n + n_tokens(tok, row["context"]) > room and room - n < stride + 1:  # no window would begin behind the one before
            if room - stride - 1 < 8: return None
            text = cut_question(text, tok, min(64, room - stride - 1))
            cut.append(row["id"])
        questions.append(text)
    return questions, cut


def recipe(dataset, questions, tok, max_length, stride):
    "The windows of run_qa: the tokenizer's own overflow, and a label where a window holds the whole of the first answer"
    for row, question in zip(dataset, questions):
        made = tok([question], [row["context"]], truncation="only_second", max_length=max_length, stride=stride, return_overflowing_tokens=True, return_offsets_mapping=True)
        for i, (ids, offsets) in enumerate(zip(made["input_ids"], made["offset_mapping"])):
            held = [k for k, side in enumerate(made.sequence_ids(i)) if side == 1]
            label, (a, b) = (0, 0), (row["answers"]["answer_start"][0], row["answers"]["answer_start"][0] + len(row["answers"]["text"][0])) if row["answers"]["text"] else (0, 0)
            first, last = [k for k in held if offsets[k][0] <= a], [k for k in held if offsets[k][1] >= b]
            if a < b and first and last: label = tuple(sorted((first[-1], last[0])))
            yield row["id"], ids, [list(o) if k in held else [-1, -1] for k, o in enumerate(offsets)], label


@cases(150)
@given(datasets(questions=st.lists(words, max_size=14).map(" ".join) | texts, contexts=texts.map(lambda text: text*2)), families, st.integers(0, 20) | st.integers(-1, 5), st.sampled_from([*[9, 10, 11, 12, 14, 20]*5, 8, 8, 0, 1, 2, 4]))
def test_windows_are_the_tokenizers_own(dataset, family, stride, step):
    "A window without a question has `step` tokens that are not in the one before; errors come where there is no room, and nowhere else"
    tok = tokenizer(family)
    max_length = tok.num_special_tokens_to_add(pair=True) + stride + step
    expected = asked(dataset, tok, max_length, stride)
    if expected is None:
        with pytest.raises(SettingError) as caught: window_features(dataset, tok, max_length, stride)
        return sentence(caught.value)
    windows, said = quiet(window_features, dataset, tok, max_length, stride)
    questions, cut = expected
    assert [s.partition(" questions leave")[0] for s in said if "are cut" in s] == [f"{len(cut)} of {len(dataset)}"]*bool(cut) and all(id in " ".join(said) for id in cut[:5])
    assert [(r["example_id"], r["input_ids"], r["offsets"], (r["start_positions"], r["end_positions"])) for r in windows] == list(recipe(dataset, questions, tok, max_length, stride))
    assert all(len(row["input_ids"]) == len(row["offsets"]) <= max_length for row in windows)
    assert uncovered(windows, dataset, tok) == {}


@cases(150)
@given(datasets(questions=words), families, st.integers(10, 40), st.integers(0, 12))
def test_labels_are_the_answer(dataset, family, max_length, stride):
    "The tokens of a label hold the answer and no token that could be left out; neighbours share `stride` tokens"
    assume(max_length - stride > 20)
    windows, said = quiet(window_features, dataset, tokenizer(family), max_length, stride)
    rows = {row["id"]: row for row in dataset}
    before, lost = None, {row["id"] for row in dataset if row["answers"]["text"] and row["answers"]["text"][0]}
    for w in windows:
        row, held = rows[w["example_id"]], [tuple(o) for o in w["offsets"] if o[0] >= 0]
        if before and before[0] == w["example_id"]: assert before[1][-stride:] == held[:stride] if stride else before[1] != held
        before = w["example_id"], held
        if not w["end_positions"]: continue
        lost.discard(w["example_id"])
        a = row["answers"]["answer_start"][0]
        b, span = a + len(row["answers"]["text"][0]), [tuple(o) for o in w["offsets"][w["start_positions"]:w["end_positions"] + 1]]
        assert span[0][0] <= a < b <= max(e for _, e in span)
        assert all(s <= a or e >= b or a <= s < b or a < e <= b for s, e in span)
    assert any("whole in no window" in s for s in said) == bool(lost)


# Prompts

def pieces(tok, family, config, question, context, answer):
    "The parts of a sequence, tokenized each on its own: (segment, ids)"
    bare = family not in ("gpt2", "roberta")  # a word has the same tokens with and without a blank before it
    def ids(text): return tok(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    def joined(head, text): return ids(head.strip() if bare else head), ids(text if bare or not text else " " + text)
    opening = {"cased": [2], "uncased": [2], "roberta": [1], "gpt2": [], "unigram": [0], "llama": [0]}[family]
    first = config.layout == "question_first"
    q, c = joined("Question:" if first else " Question:", question), joined(" Context:" if first else "Context:", context)
    return opening, q, c, ids("answer:" if bare or config.separator else " answer:"), ids(answer if bare or not answer else " " + answer)


@cases(150)
@given(datasets(), families, st.sampled_from(LAYOUTS), st.integers(1, 12), st.integers(1, 30), st.integers(0, 29), st.integers(1, 8), st.booleans(), st.booleans())
def test_prompts_are_their_parts(dataset, family, layout, longest_question, longest_context, stride, longest_answer, separator, learn_cue):
    tok = tokenizer(family)
    try: config = PromptConfig(longest_question, longest_context, longest_answer, stride, layout, separator, learn_cue)
    except SettingError as e:
        sentence(e)
        assert stride >= longest_context
        return
    (made, _), end = quiet(prompt_features, dataset, tok, config), tok.eos_token_id
    assert made["example_id"][:] == dataset["id"][:]
    for row, r in zip(dataset, made):
        answer = row["answers"]["text"][0].strip() if row["answers"]["text"] else ""
        opening, (qh, q), (ch, c), cue, said = pieces(tok, family, config, row["question"].strip(), row["context"], answer)
        step = max(longest_context - stride, 1)
        window, q = c[r["window"]*step:][:longest_context], q[:longest_question]
        parts = [(1, qh + q), (0, ch + window)] if layout == "question_first" else [(0, ch + window), (1, qh + q)]
        parts = [(parts[0][0], opening + parts[0][1]), (parts[1][0], parts[1][1] + [end]*separator)]
        whole = [(s, t, 0) for s, ids in parts for t in ids] + [(2, t, int(learn_cue)) for t in cue] + [(2, t, 1) for t in said[:longest_answer]] + [(2, end, int(len(said) <= longest_answer))]
        assert (r["input_ids"], r["segments"]) == ([t for _, t, _ in whole[:-1]], [s for s, _, _ in whole[:-1]])
        assert (r["labels"], r["labels_mask"], r["input_mask"]) == ([t for _, t, _ in whole[1:]], [m for _, _, m in whole[1:]], [1]*(len(whole) - 1))
        for mode in ("causal", "prefix"): assert attention_mask(r["segments"], mode, layout).diagonal().all()


def context_windows(tok, context, length, stride):
    "Characters of every context token behind its blank, and the first and the last token of each window: all from the tokenizer's own offsets"
    blank = " " if context and tok(" the the", add_special_tokens=False)["input_ids"] != tok("the the", add_special_tokens=False)["input_ids"] else ""
    offsets = tok(blank + context, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]
    offsets, windows = [tuple(max(x - len(blank), 0) for x in o) for o in offsets], [(0, min(length, len(offsets)) - 1)]
    while windows[-1][1] < len(offsets) - 1: windows.append((windows[-1][0] + length - stride, min(windows[-1][0] + 2*length - stride, len(offsets)) - 1))
    return offsets, windows


def most_central(offsets, windows, a, b):
    "The first window with the most tokens between the answer and the nearer edge; fewer than none where the answer is cut"
    begun, done = [k for k, o in enumerate(offsets) if o[0] <= a], [k for k, o in enumerate(offsets) if o[1] >= b]
    first, last = sorted((begun[-1] if begun else 0, done[0] if done else len(offsets) - 1))
    slack = [min(first - low, high - last) for low, high in windows]
    return slack.index(max(slack)), max(slack) >= 0


@cases(100)
@given(datasets(contexts=texts.map(lambda text: text*2)), families, st.sampled_from(LAYOUTS), st.integers(3, 30), st.data())
def test_the_window_learned_from_holds_the_answer_in_its_middle(dataset, family, layout, length, data):
    stride = data.draw(st.integers(0, length - 1))
    tok, config = tokenizer(family), PromptConfig(max_context_length=length, stride=stride, layout=layout)
    (made, said), (asked, _), lost = quiet(prompt_features, dataset, tok, config), quiet(prompt_features, dataset, tok, config, labels=False), 0
    for row, r in zip(dataset, made):
        offsets, places = context_windows(tok, row["context"], length, stride)
        windows = [w for w in asked if w["example_id"] == row["id"]]
        characters = [(offsets[low][0], offsets[high][1]) if offsets else (0, 0) for low, high in places]
        assert [(w["window"], w["context_start"], w["context_end"]) for w in windows] == [(i, *c) for i, c in enumerate(characters)]
        assert (r["context_start"], r["context_end"]) == characters[r["window"]]
        n = len(windows[r["window"]]["input_ids"])
        assert r["input_ids"][:n] == windows[r["window"]]["input_ids"]  # what is asked later is what was learned from
        window, whole = 0, True
        if row["answers"]["text"] and (text := row["answers"]["text"][0]).strip(): window, whole = most_central(offsets, places, a := row["answers"]["answer_start"][0], a + len(text))
        assert r["window"] == window
        lost += not whole
    assert [s.split(" of ")[0] for s in said if "whole in no window" in s] == [f"{lost}"]*bool(lost)


# Spans

HIGHEST = np.finfo(np.float32).max/4  # that a logit counts as


@st.composite
def logits(draw):
    "Windows of a data set cut in any way, and logits for them, some of them infinite or no numbers"
    dataset = draw(datasets(most=3, questions=words))
    windows, _ = quiet(window_features, dataset, tokenizer("uncased"), draw(st.integers(12, 40)), draw(st.integers(0, 2)), labels=False)
    windows = windows.select(draw(st.permutations(range(len(windows)))))
    width = max(map(len, windows["offsets"])) + draw(st.integers(0, 3))
    values = st.lists(st.sampled_from([0., 1., 1., -2., 3.5, 1e-9, 1e30, 3e38, -3e38, math.inf, -math.inf] if draw(st.booleans()) else [0., 1., 2., 3.]), min_size=2*len(windows)*width, max_size=2*len(windows)*width)
    return dataset, windows, np.array(draw(values), np.float32).reshape(2, len(windows), width)


@cases(150)
@given(logits(), st.integers(1, 6), st.integers(1, 5), st.sampled_from([None, 0., 1., -math.inf, math.inf]))
def test_answers_are_spans_of_the_passage_whatever_the_logits(drawn, n_best, longest, threshold):
    dataset, windows, scores = drawn
    offsets, owner = windows["offsets"][:], windows["example_id"][:]
    for p, row in zip(decode_spans(*scores, windows, dataset, n_best, longest, threshold), dataset):
        assert p.id == row["id"] and len(p.candidates) <= n_best + 1 and (not p.candidates or p.text in [c.text for c in p.candidates])
        assert not any(math.isnan(c.score) or not 0 <= c.probability <= 1 for c in p.candidates) and sum(c.probability for c in p.candidates) <= 1 + 1e-6
        assert [c.score for c in p.candidates] == sorted((c.score for c in p.candidates), reverse=True)
        assert (p.text == "") == (p.start is None) and (not p.text or p.text == row["context"][p.start:p.end])
        mine = [i for i, id in enumerate(owner) if id == p.id]
        quotes, nulls = ([c for c in p.candidates if bool(c.text) == has] for has in (True, False))
        for c in quotes:
            held = offsets[mine[c.window]]
            assert c.text == row["context"][c.start:c.end] and any(a == c.start for a, _ in held) and any(b == c.end for _, b in held)
        assert all(a.end <= b.start or b.end <= a.start for i, a in enumerate(quotes) for b in quotes[:i])
        with np.errstate(over="ignore"):
            best = max((min(scores[0, i, s], HIGHEST) + min(scores[1, i, e], HIGHEST) for i in mine for s, (a, b) in enumerate(offsets[i]) if 0 <= a < b for e, (c, d) in enumerate(offsets[i][s:s + longest], s) if 0 <= c < d), default=-math.inf)
            null = min(min(scores[0, i, 0], HIGHEST) + min(scores[1, i, 0], HIGHEST) for i in mine)
        assert bool(quotes) == (best > -math.inf) and (not quotes or quotes[0].score == pytest.approx(float(best), rel=1e-6))
        bar = (0 if is_v2(dataset) else math.inf) if threshold is None else threshold
        assert [c.score for c in nulls] == ([pytest.approx(float(null), rel=1e-6)] if bar < math.inf and null > -math.inf else [])  # infinite: never empty, so no candidate
        assert (p.text == "") == (not quotes or bool(nulls) and nulls[0].score - quotes[0].score > bar)


def test_a_window_without_spans_beside_infinite_logits():
    "Found by a long run: the largest logit less the lowest number was infinite, and infinity less infinity no number"
    top = top_spans(torch.full((1, 3), -math.inf), torch.tensor([[0., math.inf, 3e38]]), torch.tensor([[False, True, True]]))
    assert top.log_sums.tolist() == [-math.inf] and top.starts.eq(-1).all()


@cases(60)
@given(logits(), st.data())
def test_logits_that_are_no_numbers_are_named(drawn, data):
    dataset, windows, scores = drawn
    row = data.draw(st.integers(0, len(windows) - 1))
    inside = [0, *(i for i, (a, b) in enumerate(windows["offsets"][row]) if 0 <= a < b)]
    scores[data.draw(st.integers(0, 1)), row, data.draw(st.sampled_from(inside))] = math.nan
    with pytest.raises(ModelError, match=re.escape(repr(windows["example_id"][row]))) as caught: decode_spans(*scores, windows, dataset)
    sentence(caught.value)


# Metrics

ARTICLES, PUNCTUATION = {"a", "an", "the"}, set(string.punctuation)


def official_words(text):
    "The words that the official scripts compare, found letter by letter: lower case, no punctuation, then no articles, then split at white space"
    runs, kept = [], "".join(c for c in text.lower() if c not in PUNCTUATION)
    for c in kept:
        kind = c.isalnum() or c == "_"
        if runs and runs[-1][0] == kind: runs[-1][1] += c
        else: runs.append([kind, c])
    return "".join(" " if kind and run in ARTICLES else run for kind, run in runs).split()


def official(said, golds, v2):
    "EM and F1 of one question: evaluate-v1.1 and evaluate-v2.0"
    v2, golds = v2 or not golds, ([g for g in golds if official_words(g)] if v2 else golds) or [""]  # without an answer only 2.0 has a rule
    def f1(given, wanted):
        if v2 and not (given and wanted): return float(given == wanted)
        common = sum(min(given.count(w), wanted.count(w)) for w in set(given))
        return 2*(common/len(given))*(common/len(wanted))/(common/len(given) + common/len(wanted)) if common else 0.0
    return max(float(official_words(said) == official_words(g)) for g in golds), max(f1(official_words(said), official_words(g)) for g in golds)


@cases(1000)
@given(answer_texts, st.lists(answer_texts, max_size=4), st.booleans())
def test_one_answer_scores_as_the_official_scripts_do(said, golds, v2):
    assert normalize_answer(said).split() == official_words(said)
    exact, f1 = official(said, golds, v2)
    assert exact_match(said, golds, v2) == exact and f1_score(said, golds, v2) == pytest.approx(f1)
    if golds: assert exact_match(golds[0], golds, v2) == (not v2 or bool(official_words(golds[0])) or not any(map(official_words, golds)))
    assert f1_score(said, golds[::-1]*2, v2) == f1_score(said, golds, v2)


def suits_best(said, golds, v2):
    "The first accepted answer with the highest F1; where none has any words, the first"
    return max([g for g in golds if not v2 or official_words(g)], key=lambda g: official(said, [g], v2)[1], default="") or next(iter(golds), "")


@cases(200)
@given(datasets(anchored=False), st.data())
def test_a_data_set_scores_as_the_official_scripts_do(dataset, data):
    golds = [a["text"] for a in dataset["answers"]]
    said = {id: data.draw(st.one_of(answer_texts, st.sampled_from(gold or [""]))) for id, gold in zip(dataset["id"], golds) if data.draw(st.integers(0, 4))}
    if not any(golds):
        with pytest.raises(DataError, match="nothing to score"): squad_metrics(said, dataset)
        return
    v2, figures = is_v2(dataset), squad_metrics(said, dataset)
    for row, id, gold in zip(question_scores(said, dataset), dataset["id"], golds):
        scores = official(said[id], gold, v2) if id in said else (0., 0.)
        assert row == dict(id=id, exact=scores[0], f1=pytest.approx(scores[1]), answerable=gold != [], gold=suits_best(said[id], gold, v2) if id in said else next(iter(gold), ""), prediction=said.get(id))
    each = [official(said[id], gold, v2) if id in said else (0., 0.) for id, gold in zip(dataset["id"], golds)]
    for name, part in [("", each)] + [(name, [e for e, g in zip(each, golds) if bool(g) == has]) for name, has in (("HasAns_", True), ("NoAns_", False)) if v2]:
        em, f1 = (100*sum(column)/len(part) for column in zip(*part))
        assert figures[f"{name}exact" if name else "exact_match"] == pytest.approx(em) and figures[f"{name}f1"] == pytest.approx(f1) and figures[f"{name}total"] == len(part)
    assert figures.get("missing", 0) == len(missing_ids(said, dataset)) == len(golds) - len(said)
    order = data.draw(st.permutations(range(len(dataset))))
    shuffled = squad_metrics([Prediction(id, said[id], 0.) for id in data.draw(st.permutations(list(said)))], dataset.select(order))
    assert shuffled == pytest.approx(figures)
    with pytest.raises(DataError, match="no question of the data"): squad_metrics(said | {"other": ""}, dataset)
    assert squad_metrics(said | {"other": ""}, dataset, allow_unknown=True) == figures


# Data

NAMED = ["SOFT HYPHEN", "ZERO WIDTH SPACE", "LINE SEPARATOR", "PARAGRAPH SEPARATOR", "WORD JOINER", "ZERO WIDTH NO-BREAK SPACE", "POP DIRECTIONAL FORMATTING", "POP DIRECTIONAL ISOLATE", "FIRST STRONG ISOLATE",
         *(f"{side}-TO-{other} {what}" for side, other in (("LEFT", "RIGHT"), ("RIGHT", "LEFT")) for what in ("EMBEDDING", "OVERRIDE", "ISOLATE"))]
UNSEEN = {*map(unicodedata.lookup, NAMED), *(c for c in map(chr, range(256)) if unicodedata.category(c) == "Cc" and c not in "\t\n\r")}
JOINERS = "\u200c\u200d\u200e\u200f\u2027\u202f\u205f\u2061\u2064\u2065\u206a\ufe0f\ufffd\xa0\xac\xae"  # beside them, and of use in some script


def test_every_character_that_cannot_be_seen_is_named():
    rows = [dict(id=f"{ord(c):04X} {part}", title="", context=f"{c*(part == 'context')}The Elbe {ord(c)}", question=f"Which{c*(part == 'question')} river?", answers=dict(text=["Elbe"], answer_start=[4 + (part == "context")]))
            for c in sorted(UNSEEN | {*JOINERS, *"\t\n\r "}) for part in ("question", "context")]
    found = lint_squad(made_of(rows))
    assert [(r["id"], r["kind"]) for r in found] == [(row["id"], "control_characters") for row in rows if chr(int(row["id"].split()[0], 16)) in UNSEEN]
    assert all(r["detail"] == f"{r['id'].split()[1]}: U+{r['id'].split()[0]} at {5*r['id'].endswith('question')}" for r in found)


def answer_problems(context, text, start, tok, longest):
    "What is wrong with one answer"
    if not text.strip(): return ["empty_answer"]
    padded, end = ["padded"]*(text != text.strip()), start + len(text)
    if start < 0 or context[start:end] != text: return [*padded, "misaligned"]
    if tok is None: return padded + ["long_answer"]*(len(text.split()) > longest)
    pieces = [(a + len(p) - len(p.lstrip()), b - len(p) + len(p.rstrip())) for a, b in tok(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"] if (p := context[a:b]).strip()]
    held = [(a, b) for a, b in pieces if a < end and b > start]
    exact = bool(held) and (held[0][0], held[-1][1]) == (start, end)
    return padded + ["inside_token"]*(not padded and not exact) + ["long_answer"]*(len(held) > longest) + ["exact"]*exact


def problems(dataset, tok, longest_question, longest):
    "What is wrong with a data set: of every problem the question, the kind and the number of the answer"
    rows, told = list(dataset), set()
    for row in rows:
        context, texts, starts = row["context"], row["answers"]["text"], row["answers"]["answer_start"]
        for part in ("id", "context", "question"):
            if row[part].strip() == "": yield row["id"], f"empty_{part}", None
        if row["id"].strip() and sum(r["id"] == row["id"] for r in rows) > 1: yield row["id"], "duplicate_id", None
        if (len(row["question"].split()) if tok is None else n_tokens(tok, row["question"])) > longest_question: yield row["id"], "long_question", None
        if len(texts) != len(starts): yield row["id"], "uneven_answers", None
        for at, text in [(None, context)]*(context not in told) + [(None, row["question"]), *enumerate(texts)]:
            if UNSEEN & set(text): yield row["id"], "control_characters", at
        told.add(context)
        each = [answer_problems(context, text, start, tok, longest) for text, start in zip(texts, starts)]
        yield from ((row["id"], kind, i) for i, kinds in enumerate(each) for kind in kinds if kind != "exact")
        if tok and texts and not any("exact" in kinds for kinds in each): yield row["id"], "no_exact_answer", None


def nearest(context, text, start):
    "Of all places where a text stands, the nearest; of two as near the first"
    return min((i for i in range(len(context) + 1) if context.startswith(text, i)), key=lambda i: abs(i - max(start, 0)), default=None)


@cases(100)
@given(st.text("ab", max_size=14), st.text("ab", min_size=1, max_size=3), st.integers(-3, 16))
def test_the_nearest_place_is_found(context, text, start): assert nearest_offset(context, text, start) == nearest(context, text, start)


@cases(200)
@given(datasets(anchored=False, questions=texts | st.lists(words | st.sampled_from(sorted(UNSEEN)), max_size=4).map(" ".join)), st.booleans(), families, st.data())
def test_lint_names_what_is_wrong_and_changes_nothing(dataset, with_tokenizer, family, data):
    tok = tokenizer(family) if with_tokenizer else None
    (first, *others), id = list(dataset), data.draw(st.sampled_from(["q0", dataset["id"][-1], " "]))  # one that comes twice, or none
    dataset = made_of([first | dict(id=id), *others])
    longest_question = data.draw(st.sampled_from([n_tokens(tok, q) if tok else len(q.split()) for q in dataset["question"]])) - data.draw(st.integers(0, 1))
    longest = data.draw(st.integers(0, 4))
    before = dataset[:]
    found = lint_squad(dataset, tok, longest_question, longest)
    assert Counter((r["id"], r["kind"], r["answer"]) for r in found) == Counter(problems(dataset, tok, longest_question, longest)) and {r["kind"] for r in found} <= set(LINT_KINDS)
    fixed, report = fix_squad(dataset)
    assert dataset[:] == before and fixed.features == SCHEMA and fixed.remove_columns("answers")[:] == dataset.remove_columns("answers")[:]
    again, rest = fix_squad(fixed)
    assert again[:] == fixed[:] and not rest.counts("fixed").get(True)
    assert [row for row in report if not row["fixed"]] == list(rest)
    for row, was in zip(fixed, dataset):
        repaired = list(zip(was["answers"]["text"], was["answers"]["answer_start"]))
        for i, (text, start) in enumerate(repaired):
            place = nearest(row["context"], text.strip(), start + len(text) - len(text.lstrip())) if text.strip() else None
            if place is not None: repaired[i] = text.strip(), place
        assert row["answers"]["text"][:len(repaired)] == [t for t, _ in repaired] and row["answers"]["answer_start"][:len(repaired)] == [s for _, s in repaired]
        assert [len(row["answers"][name]) for name in ("text", "answer_start")] == [len(was["answers"][name]) for name in ("text", "answer_start")]


whole_words = st.lists(st.deferred(lambda: st.sampled_from([w for w in tokenizer("cased").get_vocab() if w.isalpha() and len(w) > 4])), min_size=6, max_size=20).map(" ".join)
PLANTED = dict(empty_id=lambda r: r | dict(id=" "), empty_context=lambda r: r | dict(context="\n"), empty_question=lambda r: r | dict(question=""),
               empty_answer=lambda r: r | dict(answers=dict(text=["\t"], answer_start=[0])), uneven_answers=lambda r: r | dict(answers=dict(text=r["answers"]["text"], answer_start=[])),
               misaligned=lambda r: r | dict(answers=dict(text=r["answers"]["text"], answer_start=[r["answers"]["answer_start"][0] + 1])),
               padded=lambda r: r | dict(answers=dict(text=[" " + r["context"].split()[1]], answer_start=[len(r["context"].split()[0])])),
               inside_token=lambda r: r | dict(answers=dict(text=[r["context"][1:3]], answer_start=[1])), no_exact_answer=lambda r: r | dict(answers=dict(text=[r["context"][1:3]], answer_start=[1])),
               long_question=lambda r: r | dict(question="why "*70), long_answer=lambda r: r | dict(context=r["context"]*9, answers=dict(text=[(r["context"]*9).strip()], answer_start=[0])),
               control_characters=lambda r: r | dict(question=r["question"] + "\u200b"), duplicate_id=lambda r: r | dict(id="other"))


@cases(150)
@given(whole_words, st.data())
def test_what_is_planted_is_named_and_nothing_else_is(context, data):
    "Clean data have no problem; of a planted one the question is named, and only it"
    words = context.split()
    at = data.draw(st.integers(0, len(words) - 1))
    row = dict(id="q", title="", context=context, question="Which river?", answers=dict(text=[words[at]], answer_start=[len(" ".join(words[:at])) + bool(at)]))
    clean = [row, row | dict(id="other"), row | dict(id="none", answers=dict(text=[], answer_start=[]))]
    tok = tokenizer("cased")
    assert lint_squad(made_of(clean), tok) == lint_squad(made_of(clean)) == []
    kind = data.draw(st.sampled_from(list(PLANTED)))
    spoiled = PLANTED[kind](row)
    found = lint_squad(made_of([*clean[1:], spoiled]), tok)
    assert kind in found.counts() and {r["id"] for r in found} == {spoiled["id"]}


def test_every_kind_of_problem_is_planted(): assert set(PLANTED) == set(LINT_KINDS)


@cases(150)
@given(datasets())
def test_squad_json_comes_back(dataset):
    written = json.loads(json.dumps(to_squad_json(dataset)))
    assert from_squad_json(written)[:] == dataset[:] and to_squad_json(from_squad_json(written)) == written


@cases(100)
@given(datasets(most=8), st.integers(-1, 5))
def test_splits_part_the_articles(dataset, n_test):
    titles = sorted(set(dataset["title"]))
    if not 0 < n_test < len(titles):
        with pytest.raises(SettingError) as caught: split_by_article(dataset, n_test)
        return sentence(caught.value)
    train, test = split_by_article(dataset, n_test)
    assert set(test["title"]) == set(titles[-n_test:]) and set(train["title"]) == set(titles[:-n_test])
    assert sorted(train["id"][:] + test["id"][:]) == dataset["id"][:]


@cases(100)
@given(datasets(most=9), st.none() | st.integers(-1, 9), st.none() | st.integers(0, 99), st.booleans())
def test_what_is_taken(dataset, limit, seed, passages):
    "The first ones, or drawn with a seed; of whole passages only the last is cut, and its first questions stay"
    ids = dataset["id"][:]
    if limit is not None and limit < 1:
        with pytest.raises(SettingError) as caught: take(dataset, limit, seed, passages)
        return sentence(caught.value)
    few = take(dataset, limit, seed, passages)["id"][:]
    assert len(few) == min(limit or 9, len(ids)) and few == [id for id in ids if id in few] and few == take(dataset, limit, seed, passages)["id"][:]
    if seed is None: assert few == ids[:limit]
    elif passages:
        asked = [[row["id"] for row in dataset if row["context"] == context] for context in set(dataset["context"])]
        kept = [[id for id in mine if id in few] for mine in asked]
        assert all(some == mine[:len(some)] for some, mine in zip(kept, asked)) and sum(0 < len(some) < len(mine) for some, mine in zip(kept, asked)) <= 1


def test_seeds_draw_everything():
    "Every pair of questions, and every passage, is drawn by some seed"
    dataset = Dataset.from_list([dict(id=str(i), context=str(i//2)) for i in range(6)])
    for passages, several in ((False, 15), (True, 3)): assert len({tuple(take(dataset, 2, seed, passages)["id"]) for seed in range(200)}) == several


values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=12)


@cases(150)
@given(values, st.sampled_from([None, 1]))
def test_json_comes_back_from_the_disk(tmp_path_factory, value, indent):
    assert read_json(write_json(tmp_path_factory.getbasetemp()/"value.json", value, indent)) == value


class Cells(HTMLParser):
    "The text of each cell; nothing but a table"
    def __init__(self, page):
        super().__init__()
        self.cells = []
        self.feed(page)
        self.close()
    def handle_starttag(self, name, attributes):
        assert name in ("table", "tr", "th", "td") and dict(attributes) in ({}, {"style": "text-align:left"})
        if name in ("th", "td"): self.cells.append("")
    def handle_data(self, data): self.cells[-1] += data


@cases(100)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_tables_show_text_as_text(rows):
    table = Table(dict(id=a, detail=b) for a, b in rows)
    assert Cells(table._repr_html_()).cells == ["id", "detail", *(cell for row in rows for cell in row)]
    assert isinstance(repr(table), str)


# Verbatim answers

@cases(150)
@given(texts, st.sampled_from(["gpt2", "roberta", "llama"]), st.data())
def test_verbatim_answers_stand_in_the_passage(context, family, data):
    "Whatever is chosen of what is allowed, the answer is a stretch of the passage, and it is what the tokens say"
    tok = tokenizer(family)
    rule, written = SpanRule(Passage(context, spelling_of(tok)), tok.eos_token_id), []
    for _ in range(data.draw(st.integers(0, 12))):
        allowed = rule.allowed()
        assert allowed and len(set(allowed)) == len(allowed)
        token = data.draw(st.sampled_from(sorted(allowed)))
        if token == tok.eos_token_id: break
        rule.take(token)
        written.append(token)
    place = written_span(rule)
    if not written: assert place is None
    if place is None: return
    text = context[slice(*place)]
    assert text and text == text.strip(" ") and not text[0].isspace() and not text[-1].isspace()
    if rule.place: assert tok.decode(written, clean_up_tokenization_spaces=False).strip() == text.strip()


@cases(100)
@given(texts, st.sampled_from(["gpt2", "llama"]), st.data())
def test_every_stretch_can_be_written_verbatim(context, family, data):
    tok, a = tokenizer(family), data.draw(st.integers(0, max(len(context) - 1, 0)))
    text = context[a:data.draw(st.integers(a, len(context)))]
    assume(text and not text[0].isspace() and not text[-1].isspace())
    ids = tok((" " if family == "gpt2" else "") + text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assume(tok.unk_token_id is None or tok.unk_token_id not in ids)
    assume(tok.decode(ids, clean_up_tokenization_spaces=False).strip(" ") == text)  # SentencePiece takes ▁ for a blank, and says another text
    rule = SpanRule(Passage(context, spelling_of(tok)), tok.eos_token_id)
    for id in ids:
        assert id in rule.allowed()
        rule.take(id)
    assert tok.eos_token_id in rule.allowed() and context[slice(*rule.place)] == text
