"The doctor on stock models of several families: a clean one passes every check, and each planted bug fails the check that is meant for it"
import copy, json, os, random, subprocess, sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForQuestionAnswering, AutoTokenizer, BertConfig, BloomConfig, DataCollatorForLanguageModeling,
                          DistilBertConfig, GPT2Config, LlamaConfig, LongformerConfig, MistralConfig, PreTrainedTokenizerFast, RobertaConfig, XLNetConfig)
from typer.testing import CliRunner

from squad_nb.cli import app
from squad_nb.core import DataError, ModelError, SettingError
from squad_nb.doctor import CHECKS, HARD, ROWS, Case, Check, Diagnosis, doctor, longest_runs, spelled, uncovered_tokens
from squad_nb.extractive import ExtractiveConfig
from squad_nb.generate import generate_answers, save_settings
from squad_nb.prompts import PromptConfig
from squad_nb.sample import tiny_model
from squad_nb.squad import SCHEMA, lint_squad, load_squad

questions = load_squad("sample", split="validation")
few = questions.filter(lambda context: len(context) < 900, input_columns="context").select(range(8))


def trained_tokenizer(kind):
    "A tokenizer of the sample: RoBERTa's bytes with its frame, or Llama's pieces with bytes to fall back on"
    names = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    if kind == "roberta":
        backend, names = Tokenizer(models.BPE()), names | dict(pad_token="<pad>", cls_token="<s>", sep_token="</s>", mask_token="<mask>")
        backend.pre_tokenizer, backend.decoder, alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    else:
        backend, alphabet = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)), []
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    texts = [*load_squad("sample", split="train")["context"], *questions["context"], *questions["question"]]
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    if kind == "roberta": backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    else: backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    made = json.loads(backend.to_str())
    made["added_tokens"] = [t for t in made["added_tokens"] if not t["content"].startswith("<0x")]  # bytes are pieces like others
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made)), model_input_names=["input_ids", "attention_mask"], **names)


SMALL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
FAMILIES = dict(
    bert=lambda n: BertConfig(vocab_size=n, **SMALL), distilbert=lambda n: DistilBertConfig(vocab_size=n, dim=32, hidden_dim=64, n_layers=2, n_heads=4),
    roberta=lambda n: RobertaConfig(vocab_size=n, max_position_embeddings=514, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SMALL),
    gpt2=lambda n: GPT2Config(vocab_size=n, n_embd=32, n_layer=2, n_head=4, n_positions=512, bos_token_id=0, eos_token_id=0),
    llama=lambda n: LlamaConfig(vocab_size=n, max_position_embeddings=1024, num_key_value_heads=2, bos_token_id=1, eos_token_id=2, **SMALL),
    mistral=lambda n: MistralConfig(vocab_size=n, max_position_embeddings=1024, num_key_value_heads=2, sliding_window=64, bos_token_id=1, eos_token_id=2, **SMALL))
READERS, WRITERS = ("bert", "distilbert", "roberta"), ("gpt2", "llama")


def stock(family):
    "A random model of transformers, its tokenizer and plain settings"
    if family == "bert": tokenizer = AutoTokenizer.from_pretrained(tiny_model("tiny-bert"))
    elif family == "distilbert":
        tokenizer = AutoTokenizer.from_pretrained(tiny_model("tiny-bert"))
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    elif family == "gpt2": tokenizer = AutoTokenizer.from_pretrained(tiny_model("tiny-gpt2"))
    else: tokenizer = trained_tokenizer("roberta" if family == "roberta" else "llama")
    torch.manual_seed(0)
    reads = family in READERS
    model = (AutoModelForQuestionAnswering if reads else AutoModelForCausalLM).from_config(FAMILIES[family](len(tokenizer))).eval()
    return SimpleNamespace(family=family, model=model, tokenizer=tokenizer, config=ExtractiveConfig() if reads else PromptConfig())


@pytest.fixture(scope="module")
def families(): return {name: stock(name) for name in READERS + WRITERS}



def pointable(f, rows):
    "Questions whose answers this tokenizer can point at"
    wrong = {row["id"] for row in lint_squad(rows, f.tokenizer, max_answer_length=1000) if row["kind"] in ("inside_token", "no_exact_answer")} if f.family in READERS else set()
    return rows.filter(lambda id: id not in wrong, input_columns="id")


def ROOM(f): return replace(f.config, max_answer_length=90, **dict(null_threshold=0.0) if f.family in READERS else {})


@pytest.mark.parametrize("family", READERS + WRITERS)
def test_a_clean_model_passes_every_check(families, family):
    f = families[family]
    found = doctor(f.model, f.tokenizer, pointable(f, questions.select(range(0, len(questions), 3))), ROOM(f))
    assert {c.name: c.status for c in found.checks if c.status != "pass"} == {"no_answer_threshold_sane": "skip"}, found


# Somebody's training code, without a line of the package

def stock_windows(f, rows, **how):
    "Windows by the tokenizer's own overflow, a start and an end each"
    tokenizer = copy.deepcopy(f.tokenizer)
    made = tokenizer(rows["question"][:], rows["context"][:], truncation="only_second", padding=True, return_overflowing_tokens=True, return_tensors="pt", max_length=160, stride=40, **how)
    spans = []
    for i, row in enumerate(made.pop("overflow_to_sample_mapping").tolist()):
        answers = rows[row]["answers"]
        at = answers["answer_start"][0] if answers["text"] else 0
        ends = [made.char_to_token(i, c, 1) for c in (at, at + len(answers["text"][0]) - 1)] if answers["text"] else [None]
        spans.append([0, 0] if None in ends else ends)
    starts, ends = torch.tensor(spans).T
    return [dict(made, start_positions=starts, end_positions=ends)]


def stock_prompts(f, rows, side="right", shifted=False, cut=None, learn_prompt=False):
    "Prompt and answer in one row, labels for a model that shifts them"
    made = []
    for row in rows:
        prompt = f.tokenizer(f"Context: {row['context'][:cut]} Question: {row['question']} answer:")["input_ids"]
        answer = f.tokenizer(" " + (row["answers"]["text"] or [""])[0], add_special_tokens=False)["input_ids"] + [f.tokenizer.eos_token_id]
        made.append((prompt + answer, (prompt if learn_prompt else [-100]*len(prompt)) + answer))
    width = max(len(ids) for ids, _ in made)
    def pad(values, fill): return F.pad(torch.tensor(values), (0, width - len(values)) if side == "right" else (width - len(values), 0), value=fill)
    labels = torch.stack([pad(learned, -100) for _, learned in made])
    if shifted: labels = F.pad(labels[:, 1:], (0, 1), value=-100)
    return [dict(input_ids=torch.stack([pad(ids, f.tokenizer.eos_token_id) for ids, _ in made]), attention_mask=torch.stack([pad([1]*len(ids), 0) for ids, _ in made]), labels=labels)]


def plain_generate(f, prompt="Context: {context} Question: {question} answer:", **how):
    "Evaluation by `generate`"
    def ask(rows):
        prompts = [f.tokenizer(prompt.format(**row), return_tensors="pt") for row in rows]
        return [f.tokenizer.decode(f.model.generate(input_ids=p["input_ids"], attention_mask=p["attention_mask"], max_new_tokens=4, pad_token_id=0, **dict(do_sample=False) | how)[0, p["input_ids"].shape[1]:]) for p in prompts]
    return ask


@pytest.mark.parametrize("family", READERS + WRITERS)
def test_a_clean_training_code_passes_every_check(families, family):
    f = families[family]
    rows = pointable(f, few)
    given = dict(batches=stock_windows(f, rows)) if family in READERS else dict(batches=stock_prompts(f, rows), answer=plain_generate(f))
    found = doctor(f.model, f.tokenizer, rows, ROOM(f), **given)
    assert {c.name: c.status for c in found.checks if c.status != "pass"} == {"no_answer_threshold_sane": "skip"}, found


# Bugs: each gives what `doctor` is called with

def patched(f, change):
    "A copy of the model whose forward is given other arguments"
    model, forward = copy.deepcopy(f.model), type(f.model).forward
    model.forward = lambda input_ids=None, **kwargs: forward(model, input_ids=input_ids, **change(input_ids, kwargs))
    return dict(model=model)


def hooked(f, change):
    "A copy of the model whose output layer says something else"
    model = copy.deepcopy(f.model)
    (model.qa_outputs if f.family in READERS else model.lm_head).register_forward_hook(lambda module, args, out: change(out))
    return dict(model=model)


def other_calls(f, before=lambda text: text, after=lambda made: made):
    "A copy of the tokenizer whose calls are tampered with"
    tokenizer = copy.deepcopy(f.tokenizer)
    def call(self, text, *args, **kwargs): return after(type(f.tokenizer).__call__(self, [before(t) for t in text] if isinstance(text, list) else before(text), *args, **kwargs))
    tokenizer.__class__ = type("Tampered", (type(f.tokenizer),), dict(__call__=call))
    return dict(tokenizer=tokenizer)


def moved_offsets(made):
    if "offset_mapping" in made: made["offset_mapping"] = [[(a + 1, b + 1) for a, b in row] for row in made["offset_mapping"]]
    return made


def dropping(f, what):
    tokenizer = copy.deepcopy(f.tokenizer)
    backend = tokenizer.backend_tokenizer
    drop = normalizers.Replace(Regex(what), "")
    backend.normalizer = normalizers.Sequence([drop, backend.normalizer]) if backend.normalizer else drop
    return dict(tokenizer=tokenizer)


def knows_nothing(f):
    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return dict(tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"))


def displaced(by): return dict(data=questions.select(range(12)).map(lambda row: dict(answers=dict(text=row["answers"]["text"], answer_start=[a + by for a in row["answers"]["answer_start"]]))))


def other_spans(f, change):
    (batch,) = stock_windows(f, few)
    starts, ends = change(batch["start_positions"], batch["end_positions"])
    return dict(data=few, batches=[batch | dict(start_positions=starts.where(batch["end_positions"] > 0, 0), end_positions=ends.where(batch["end_positions"] > 0, 0))])


def gapped(f):
    "A stride taken for what lies between windows"
    rows = []
    for row in few:
        head, passage = f.tokenizer(row["question"])["input_ids"], f.tokenizer(row["context"], add_special_tokens=False)["input_ids"]
        rows += [dict(input_ids=torch.tensor([head + passage[i:i + 60]])) for i in range(0, len(passage), 72)]
    return dict(data=few, batches=rows)


def maskless(f):
    (batch,) = stock_windows(f, few)
    del batch["attention_mask"]
    return dict(data=few, batches=[batch])


def in_eights(batch): return [{k: v[i:i + 8] for k, v in batch.items()} for i in range(0, len(batch["input_ids"]), 8)]


def many_windows(f, **labels):
    "A loader of more rows than are looked at"
    rows = pointable(f, questions.filter(lambda context: len(context) < 900, input_columns="context"))
    (batch,) = stock_windows(f, rows)
    assert len(batch["input_ids"]) > 2*ROWS
    return dict(data=rows, batches=in_eights(batch | {k: fill(batch[k]) for k, fill in labels.items()}))


NULL = dict(start_positions=torch.zeros_like, end_positions=torch.zeros_like)


def many_prompts(f, **how):
    rows = questions.filter(lambda context: len(context) < 1000, input_columns="context").select(range(ROWS + 16))
    return dict(data=rows, batches=in_eights(stock_prompts(f, rows, **how)[0]))


def masked_later(f):
    "No batch has a mask; the first needs none"
    (batch,) = maskless(f)["batches"]
    n = int((batch["input_ids"] != f.tokenizer.pad_token_id).sum(1).max())
    full = (batch["input_ids"] != f.tokenizer.pad_token_id).sum(1) == n
    return dict(data=few, batches=[{k: v[full][:, :n] if v.ndim > 1 else v[full] for k, v in batch.items()}, batch])


def unmasked(f, side):
    (batch,) = stock_prompts(f, few, side=side)
    del batch["attention_mask"]
    return dict(data=few, batches=[batch])


def half_ended(f):
    (batch,) = stock_prompts(f, few)
    for labels in batch["labels"][::2]: labels[labels == f.tokenizer.eos_token_id] = -100
    return dict(data=few, batches=[batch])


def unplaced(f):
    given = packed(f)
    for batch in given["batches"]: del batch["position_ids"]
    return given


def never_stops(f):
    def change(out):
        out = out.clone()
        out[..., f.tokenizer.eos_token_id] = -1e9
        return out
    return hooked(f, change) | dict(trained=True, data=few)


def saved_with(f, **changes):
    "A tokenizer that is saved otherwise than it is"
    tokenizer, other = copy.deepcopy(f.tokenizer), copy.deepcopy(f.tokenizer)
    for name, value in changes.items(): setattr(other, name, value)
    tokenizer.__class__ = type("Otherwise", (type(f.tokenizer),), dict(save_pretrained=lambda self, folder, **kwargs: other.save_pretrained(folder, **kwargs)))
    return dict(tokenizer=tokenizer)


def settings_lost(f):
    model = copy.deepcopy(f.model)
    save = model.save_pretrained
    def without_settings(folder):
        del model.config.squad_nb
        save(folder)
        model.config.squad_nb = dict(track="other")
    model.config.squad_nb, model.save_pretrained = dict(track="other"), without_settings
    return dict(model=model)


def answers_otherwise(f):
    "Its logits are the same until it is asked, which is under a mask of four dimensions"
    model, forward = copy.deepcopy(f.model), type(f.model).forward
    def other(input_ids=None, attention_mask=None, **kwargs):
        out = forward(model, input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        if attention_mask is not None and attention_mask.ndim == 4: out.logits = out.logits.roll(1, -1)
        return out
    model.forward = other
    return dict(model=model)


def late(out): return torch.cat([out[:, :48], 1.5*out[:, 48:] + torch.linspace(0, 1, out.shape[-1])], 1)
def answered_questions(): return questions.filter(lambda answers: len(answers["text"]) > 0, input_columns="answers")
def empty_but_every(n): return lambda rows: ["x" if i % n == 0 and a["text"] else "" for i, a in enumerate(rows["answers"])]


def prompts(f, **how): return dict(data=few, batches=stock_prompts(f, few, **how))


def unshifted(f):
    "A loss of one's own that forgets to shift"
    def loss(model, batch): return F.cross_entropy(model(**{k: v for k, v in batch.items() if k != "labels"}).logits.transpose(1, 2), batch["labels"])
    return prompts(f) | dict(loss=loss)


def masked_ends(f):
    "End-of-text pads, and the stock collator masks padding"
    tokenizer = copy.deepcopy(f.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [dict(input_ids=ids[:n]) for batch in stock_prompts(f, few) for ids, n in zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(1).tolist())]
    return dict(data=few, tokenizer=tokenizer, batches=[DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)])


def packed(f, **more):
    (batch,) = stock_prompts(f, few.select(range(2)))
    rows = [(ids[:n], labels[:n]) for ids, labels, n in zip(batch["input_ids"], batch["labels"], batch["attention_mask"].sum(1).tolist())]
    if f.family == "gpt2": rows = [(ids[-200:], labels[-200:]) for ids, labels in rows]  # it has 512 positions
    made = dict(input_ids=torch.cat([ids for ids, _ in rows])[None], labels=torch.cat([labels for _, labels in rows])[None], position_ids=torch.cat([torch.arange(len(ids)) for ids, _ in rows])[None])
    return dict(data=few, batches=[made | {k: v(made["input_ids"]) for k, v in more.items()}])


def boolean_mask(f, kind):
    model = copy.deepcopy(f.model)
    model.set_attn_implementation(kind)
    case = Case(model, f.tokenizer, few, f.config, "prefix")
    return dict(model=model, data=few, batches=[b | dict(attention_mask=b["attention_mask"] >= 0) for b in case.batches], mask_mode="prefix")


def without(*names): return lambda ids, kwargs: {k: v for k, v in kwargs.items() if k not in names}
def no_four(ids, kwargs): return {k: v for k, v in kwargs.items() if k != "attention_mask" or v is None or v.ndim == 2}
def anew(ids, kwargs): return kwargs | dict(position_ids=torch.arange(ids.shape[1])[None].expand(len(ids), -1)) if kwargs.get("past_key_values") is not None else kwargs
def other_mask(f): return lambda rows: generate_answers(f.model, f.tokenizer, rows, "causal", override=True)


def SHARED(f): return dict(config=replace(ROOM(f), layout="context_first"))  # whose questions share a row


BOTH, TUNED = READERS + WRITERS, dict(null_threshold=0.0, max_answer_length=90)
BUGS = {
    "white space tidied before tokenizing": ("offsets_round_trip", BOTH, lambda f: other_calls(f, before=lambda text: " ".join(text.split()))),
    "offsets one character off": ("offsets_round_trip", BOTH, lambda f: other_calls(f, after=moved_offsets)),
    "a stride that is a gap": ("every_character_covered", READERS, gapped),
    "digits dropped by the tokenizer": ("every_character_covered", BOTH, lambda f: dropping(f, "[0-9]")),
    "signs dropped by the tokenizer": ("every_character_covered", BOTH, lambda f: dropping(f, "[$%€,]")),
    "a tokenizer that knows no word": ("offsets_round_trip", READERS, knows_nothing),
    "answers one character late": ("answers_reachable", BOTH, lambda f: displaced(1)),
    "answers one character early": ("answers_reachable", BOTH, lambda f: displaced(-1)),
    "labels one character early": ("labels_decode_to_gold", READERS, lambda f: displaced(-1)),
    "labels one character late": ("labels_decode_to_gold", READERS, lambda f: displaced(1)),
    "answers cut at two tokens": ("answers_reachable", BOTH, lambda f: dict(config=replace(f.config, max_answer_length=2))),
    "windows without overlap": ("answers_reachable", READERS, lambda f: dict(config=replace(ROOM(f), max_length=70, stride=0))),
    "contexts without overlap": ("answers_reachable", WRITERS, lambda f: dict(config=replace(ROOM(f), max_context_length=24, stride=0))),
    "prompts cut before the answer": ("answers_reachable", WRITERS, lambda f: prompts(f, cut=60)),
    "prompts cut before the answer, of many": ("answers_reachable", WRITERS, lambda f: many_prompts(f, cut=60)),
    "no row teaches an answer, of many": ("answers_reachable", READERS, lambda f: many_windows(f, **NULL)),
    "windows with the answer say there is none": ("labels_decode_to_gold", READERS, lambda f: many_windows(f, **NULL)),
    "ends one token late": ("labels_decode_to_gold", READERS, lambda f: other_spans(f, lambda a, b: (a, b + 1))),
    "starts one token early": ("labels_decode_to_gold", READERS, lambda f: other_spans(f, lambda a, b: (a - 1, b))),
    "both a token late": ("labels_decode_to_gold", READERS, lambda f: other_spans(f, lambda a, b: (a + 1, b + 1))),
    "labels shifted twice": ("one_label_shift", WRITERS, lambda f: prompts(f, shifted=True)),
    "labels not shifted": ("one_label_shift", WRITERS, unshifted),
    "end-of-text masked as padding": ("end_of_text_learned", WRITERS, masked_ends),
    "end-of-text learned by half the rows": ("end_of_text_learned", WRITERS, half_ended),
    "a trained model that never stops": ("end_of_text_learned", WRITERS, never_stops),
    "a later batch without its mask": ("padding_invariance", READERS, masked_later),
    "left padding without a mask": ("padding_invariance", WRITERS, lambda f: unmasked(f, "left")),
    "a batch without its mask": ("padding_invariance", READERS, maskless),
    "left padding without positions": ("padding_invariance", ("gpt2",), lambda f: prompts(f, side="left")),
    "a dropped mask, padded": ("padding_invariance", READERS, lambda f: patched(f, without("attention_mask"))),
    "a dropped mask": ("attention_mask_honoured", BOTH, lambda f: patched(f, without("attention_mask"))),
    "a dropped prefix mask": ("attention_mask_honoured", WRITERS, lambda f: patched(f, no_four) | dict(mask_mode="prefix")),
    "a mask of booleans under eager": ("attention_mask_honoured", WRITERS, lambda f: boolean_mask(f, "eager")),
    "a mask of ones and zeros, added": ("attention_mask_honoured", WRITERS, lambda f: {**(b := boolean_mask(f, "sdpa")), "batches": [x | dict(attention_mask=x["attention_mask"].float()) for x in b["batches"]]}),
    "examples just joined": ("packed_equals_unpacked", WRITERS, unplaced),
    "packing with a mask of ones": ("packed_equals_unpacked", WRITERS, lambda f: packed(f, attention_mask=torch.ones_like)),
    "a model that makes its own positions": ("packed_equals_unpacked", WRITERS, lambda f: patched(f, without("position_ids")) | SHARED(f)),
    "a model that drops the mask of a pack": ("packed_equals_unpacked", WRITERS, lambda f: patched(f, without("attention_mask", "position_ids")) | SHARED(f)),
    "positions that begin anew upon a cache": ("cached_equals_recomputed", WRITERS, lambda f: patched(f, anew)),
    "a layer that is not saved": ("saved_equals_loaded", BOTH, lambda f: hooked(f, lambda out: out*torch.linspace(.5, 1.5, out.shape[1])[None, :, None])),
    "a change that is not saved, from token 48 on": ("saved_equals_loaded", BOTH, lambda f: hooked(f, late)),
    "a change that a cache does not see, from token 48 on": ("cached_equals_recomputed", WRITERS, lambda f: hooked(f, late)),
    "a tokenizer saved with another end-of-text": ("saved_equals_loaded", WRITERS, lambda f: saved_with(f, eos_token=".")),
    "settings that are not saved": ("saved_equals_loaded", READERS, settings_lost),
    "answers that depend on what is not saved": ("saved_equals_loaded", WRITERS, answers_otherwise),
    "a prefix model asked causally": ("evaluation_uses_training_mask", WRITERS, lambda f: dict(mask_mode="prefix", answer=other_mask(f))),
    "other prompts in evaluation": ("evaluation_uses_training_mask", WRITERS, lambda f: prompts(f) | dict(answer=plain_generate(f, "Question: {question} Context: {context} answer:"))),
    "a cue left out in evaluation": ("evaluation_uses_training_mask", WRITERS, lambda f: prompts(f) | dict(answer=plain_generate(f, "Context: {context} Question: {question}"))),
    "another model asked": ("evaluation_uses_training_mask", WRITERS, lambda f: prompts(f) | dict(answer=plain_generate(SimpleNamespace(model=copy.deepcopy(f.model), tokenizer=f.tokenizer)))),
    "dropout in evaluation": ("same_answers_twice", BOTH, lambda f: hooked(f, lambda out: F.dropout(out, 0.2))),
    "answers drawn by chance": ("same_answers_twice", WRITERS, lambda f: prompts(f) | dict(answer=plain_generate(f, do_sample=True))),
    "a threshold that nothing reaches": ("no_answer_threshold_sane", READERS, lambda f: dict(config=replace(f.config, **TUNED | dict(null_threshold=1e9)), trained=True)),
    "a threshold that everything reaches": ("no_answer_threshold_sane", READERS, lambda f: dict(config=replace(f.config, **TUNED | dict(null_threshold=-1e9)), trained=True)),
    "nearly every answered question left empty": ("no_answer_threshold_sane", BOTH, lambda f: dict(data=questions, trained=True, answer=empty_but_every(31))),
    "every question left empty where all have an answer": ("no_answer_threshold_sane", BOTH, lambda f: dict(data=answered_questions(), trained=True, answer=lambda rows: [""]*len(rows))),
    "a writer that answers everything": ("no_answer_threshold_sane", WRITERS, lambda f: dict(data=questions, trained=True, answer=lambda rows: ["x"]*len(rows))),
    "no threshold": ("no_answer_threshold_sane", READERS, lambda f: dict(config=replace(f.config, null_threshold=None))),
}


@pytest.mark.parametrize("bug,family", [(bug, family) for bug, (_, those, _) in BUGS.items() for family in those])
def test_a_planted_bug_is_caught_by_its_check(families, bug, family):
    name, _, plant = BUGS[bug]
    f = families[family]
    given = dict(model=f.model, tokenizer=f.tokenizer, data=questions.select(range(0, len(questions), 6)), config=ROOM(f), only=[name]) | plant(f)
    found = doctor(**given)[name]
    assert found.status == "fail" and found.what_to_do and "could not be carried out" not in found.what_to_do, found


NUMBERS = ["padding_invariance", "attention_mask_honoured", "packed_equals_unpacked", "cached_equals_recomputed", "saved_equals_loaded", "evaluation_uses_training_mask", "same_answers_twice"]


@pytest.fixture(scope="module")
def halves(): return {(name, dtype): SimpleNamespace(**vars(f := stock(name)) | dict(model=f.model.to(dtype))) for name in ("bert", "gpt2", "llama") for dtype in (torch.bfloat16, torch.float16)}


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_clean_model_of_16_bits_passes_and_stays_as_it_is(halves, family, dtype):
    f = halves[family, dtype]
    before, places = {k: v.clone() for k, v in f.model.state_dict().items()}, [p.data_ptr() for p in f.model.parameters()]
    found = doctor(f.model, f.tokenizer, few, ROOM(f), only=NUMBERS)
    assert {c.status for c in found.checks} == {"pass"}, found
    assert same(before, f.model.state_dict()) and places == [p.data_ptr() for p in f.model.parameters()] and f.model.dtype == dtype and not f.model._forward_pre_hooks


@pytest.mark.parametrize("bug,family", [(bug, family) for bug, (name, those, _) in BUGS.items() if name in NUMBERS for family in ("bert", "gpt2", "llama") if family in those])
def test_a_planted_bug_is_caught_in_16_bits(halves, bug, family):
    "Rounding to 16 bits hides none of them"
    name, _, plant = BUGS[bug]
    f = halves[family, torch.bfloat16]
    found = doctor(**dict(model=f.model, tokenizer=f.tokenizer, data=few, config=ROOM(f), only=[name]) | plant(f))[name]
    assert found.status == "fail" and "could not be carried out" not in found.what_to_do, found


def conversation(f):
    "Two questions in turn on one passage: the second is meant to see the first"
    row, other = few[0], few[1]
    assert row["context"] == other["context"]
    def coded(text): return f.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids, labels = [], []
    for text, answer in ((f"Context: {row['context']} Question: {row['question']} answer:", row["answers"]["text"][0]), (f" Question: {other['question']} answer:", other["answers"]["text"][0])):
        prompt, answer = coded(text), coded(" " + answer) + [f.tokenizer.eos_token_id]
        ids, labels = ids + prompt + answer, labels + [-100]*len(prompt) + answer
    return dict(data=few, batches=[dict(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))])


def cut_ends(f):
    "Half the answers are cut at a limit"
    (batch,) = stock_prompts(f, answered_questions().filter(lambda answers, context: len(answers["text"][0]) > 12 and len(context) < 900, input_columns=["answers", "context"]).select(range(4)))
    for labels in batch["labels"][::2]: labels[(labels != -100).nonzero()[-2:, 0]] = -100
    return dict(data=questions, batches=[batch])


def own_loss(f):
    "Labels shifted by hand, and the loss that belongs to them"
    (batch,) = stock_prompts(f, few, learn_prompt=True)
    n = int(batch["attention_mask"].sum(1).min())
    def loss(model, batch): return F.cross_entropy(model(**{k: v for k, v in batch.items() if k != "labels"}).logits.transpose(1, 2), batch["labels"])
    return dict(data=few, batches=[dict(input_ids=batch["input_ids"][:, :n - 1], attention_mask=batch["attention_mask"][:, :n - 1], labels=batch["labels"][:, 1:n])], loss=loss)


TWINS = {
    "windows in a loader of many rows": ("answers_reachable", READERS, many_windows, {"pass", "skip"}),
    "labels in a loader of many rows": ("labels_decode_to_gold", READERS, many_windows, {"pass"}),
    "prompts in a loader of many rows": ("answers_reachable", WRITERS, many_prompts, {"pass"}),
    "right padding without a mask, which none sees": ("padding_invariance", WRITERS, lambda f: unmasked(f, "right"), {"pass"}),
    "questions in turn on one passage": ("packed_equals_unpacked", WRITERS, conversation, {"pass"}),
    "questions in turn, their answers": ("labels_decode_to_gold", WRITERS, conversation, {"pass"}),
    "packed answers": ("labels_decode_to_gold", WRITERS, packed, {"pass"}),
    "answers cut at a limit": ("end_of_text_learned", WRITERS, cut_ends, {"warn"}),
    "labels shifted by hand with their loss": ("one_label_shift", WRITERS, own_loss, {"pass"}),
    "no packed rows for a model that could not read them": ("packed_equals_unpacked", WRITERS, lambda f: prompts(f) | patched(f, without("position_ids")), {"warn"}),
    "every question answered where all have an answer": ("no_answer_threshold_sane", BOTH, lambda f: dict(data=answered_questions(), trained=True, answer=lambda rows: ["x"]*len(rows)), {"pass"}),
    "one in eight left empty where all have an answer": ("no_answer_threshold_sane", BOTH, lambda f: dict(data=answered_questions(), trained=True, answer=lambda rows: ["", *["x"]*(len(rows) - 1)]), {"warn"}),
    "the right questions left empty": ("no_answer_threshold_sane", BOTH, lambda f: dict(data=questions, trained=True, answer=lambda rows: ["x"*bool(a["text"]) for a in rows["answers"]]), {"pass"}),
    "one question left empty, a right one": ("no_answer_threshold_sane", BOTH, lambda f: dict(data=questions, trained=True, answer=lambda rows: ["x"*bool(a["text"] or i) for i, a in enumerate(rows["answers"])]), {"warn"}),
}


@pytest.mark.parametrize("twin,family", [(twin, family) for twin, (_, those, *_) in TWINS.items() for family in those])
def test_a_clean_twin_is_no_bug(families, twin, family):
    name, _, plant, wanted = TWINS[twin]
    f = families[family]
    found = doctor(**dict(model=f.model, tokenizer=f.tokenizer, data=questions, config=ROOM(f), only=[name]) | plant(f))[name]
    assert found.status in wanted, found


def test_how_a_foreign_model_is_asked_is_not_guessed(families):
    "Prompts that it never saw say nothing about it"
    f = families["gpt2"]
    found = doctor(f.model, f.tokenizer, few, ROOM(f), batches=stock_prompts(f, few), trained=True, only=["end_of_text_learned", "evaluation_uses_training_mask", "same_answers_twice", "no_answer_threshold_sane"])
    assert [c.status for c in found.checks] == ["pass", "skip", "skip", "skip"] and "stop_rate" not in found["end_of_text_learned"].figures, found
    assert all("is asked is not known" in c.why and "answer=" in c.what_to_do for c in found.checks[1:])


def other_kind(name, tokenizer):
    "Clean models whose ways differ from those above"
    n = len(tokenizer)
    if name == "bloom": return AutoModelForCausalLM.from_config(BloomConfig(vocab_size=n, hidden_size=32, n_layer=2, n_head=4)).eval()
    configs = dict(gpt2=lambda: GPT2Config(vocab_size=n, n_embd=32, n_layer=2, n_head=4, n_positions=512), xlnet=lambda: XLNetConfig(vocab_size=n, d_model=32, n_layer=2, n_head=4, d_inner=64),
                   longformer=lambda: LongformerConfig(vocab_size=n, attention_window=32, max_position_embeddings=1026, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SMALL))
    return AutoModelForQuestionAnswering.from_config(configs[name]()).eval()


@pytest.mark.parametrize("name,tokens", [("gpt2", "gpt2"), ("longformer", "roberta"), ("xlnet", "bert")])
def test_other_readers_pass(families, name, tokens):
    "Without a token for null; with separators that it looks for; without a limit, and seeing both sides"
    f, found_of = families[tokens], SimpleNamespace(family="bert", tokenizer=families[tokens].tokenizer)
    checks = [c for c, (tracks, _) in CHECKS.items() if "extractive" in tracks and (name != "xlnet" or c != "same_answers_twice")]  # a Reader asks XLNet for its -1 positions
    found = doctor(other_kind(name, f.tokenizer), f.tokenizer, pointable(found_of, questions.select(range(0, len(questions), 6))), only=checks)
    assert {c.name: c.status for c in found.checks if c.status != "pass"} == {"no_answer_threshold_sane": "skip"}, found


def test_a_model_that_takes_no_mask_of_four_dimensions(families):
    "Nobody needs one for a causal model whose questions come first; with rows that share a passage it is a fault"
    tokenizer = families["gpt2"].tokenizer
    model = other_kind("bloom", tokenizer)
    found = doctor(model, tokenizer, few)
    assert found.ok and {c.name: c.status for c in found.checks if c.status != "pass"} == dict(packed_equals_unpacked="warn", evaluation_uses_training_mask="skip", same_answers_twice="skip", no_answer_threshold_sane="skip"), found
    assert "cannot ask this model" in found["same_answers_twice"].why and "answer=" in found["same_answers_twice"].what_to_do
    shared = doctor(model, tokenizer, few, PromptConfig(layout="context_first"), only=["packed_equals_unpacked", "same_answers_twice"])
    assert [c.status for c in shared.checks] == ["fail", "fail"], shared


@pytest.mark.parametrize("normalizer", [normalizers.NFKC(), normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents()])], ids=["nfkc", "xlnet"])
def test_characters_that_a_normalizer_makes_several_of(normalizer):
    "Tokens that share a character are laid beside it together; two that become one are not lost"
    backend = Tokenizer(models.Unigram())
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, pre_tokenizers.Metaspace(), decoders.Metaspace()
    context = "He said ``yes'' … and it was ½ of “the” room™ … ok… He kept a ﬁsh."
    backend.train_from_iterator([*load_squad("sample", split="train")["context"], context], trainers.UnigramTrainer(vocab_size=1000, special_tokens=["<pad>", "<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>", model_input_names=["input_ids", "attention_mask"])
    model, data = AutoModelForQuestionAnswering.from_config(BertConfig(vocab_size=len(tokenizer), **SMALL)).eval(), Dataset.from_list([squad_row(context, "What did he say?", "yes")], features=SCHEMA)
    found = doctor(model, tokenizer, data, only=["offsets_round_trip", "every_character_covered"])
    assert {c.status for c in found.checks} == {"pass"}, found
    assert not doctor(model, other_calls(SimpleNamespace(tokenizer=tokenizer), after=moved_offsets)["tokenizer"], data, only=["offsets_round_trip"]).ok


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
def test_a_question_without_letters(families, family):
    f, data = families[family], Dataset.from_list([squad_row("She lived in Kraków.", "???", "Kraków")], features=SCHEMA)
    found = doctor(f.model, f.tokenizer, data, ROOM(f))
    assert found.ok and found["labels_decode_to_gold"].status == "pass", found


def test_what_is_not_for_the_doctor_is_said_at_once(families):
    "In one line, and not once a check"
    f, seen = families["bert"], []
    padded = copy.deepcopy(f.tokenizer)
    padded.add_special_tokens(dict(pad_token="<another pad>"))
    for given, kind, words in [(dict(model=AutoModelForMaskedLM.from_config(f.model.config)), ModelError, "neither points at answers nor writes them"), (dict(model=AutoModel.from_config(f.model.config)), ModelError, "BertModel neither"),
                               (dict(tokenizer=padded), ModelError, "<another pad>"), (dict(model=""), ModelError, "model is empty"), (dict(data=[*few]), DataError, "not a list"),
                               (dict(data=dict(few[:])), DataError, "not a list"), (dict(data=few.remove_columns("answers")), DataError, "no column answers"), (dict(data=few.remove_columns(["id", "context"])), DataError, "id and context")]:
        with pytest.raises(kind, match=words): doctor(**dict(model=f.model, tokenizer=f.tokenizer, data=few, tell=seen.append) | given)
    assert seen == []


def test_every_check_has_its_bug(): assert {name for name, *_ in BUGS.values()} == {*CHECKS}


def state(model, tokenizer):
    "All that a check might leave changed"
    backend = tokenizer.backend_tokenizer
    writes = model.can_generate()
    return dict(generation=model.generation_config.to_dict() if writes else None, weights={k: v.clone() for k, v in model.state_dict().items()}, config=model.config.to_dict(), modes=[m.training for m in model.modules()], learns=[p.requires_grad for p in model.parameters()],
                grads=[p.grad for p in model.parameters()], hooks=sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()), limits=(backend.truncation, backend.padding),
                tokenizer=(backend.to_str(), tokenizer.truncation_side, tokenizer.padding_side), random=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state())


def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, np.ndarray): return np.array_equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_nothing_is_changed(families, family, tmp_path, monkeypatch):
    "Weights, config, modes, gradients, hooks, tokenizer and random numbers; and no file is left"
    f = families[family]
    model, tokenizer = copy.deepcopy(f.model).train(), copy.deepcopy(f.tokenizer)
    list(model.parameters())[3].requires_grad = False
    next(model.children()).eval()
    tokenizer.backend_tokenizer.enable_truncation(100); tokenizer.backend_tokenizer.enable_padding(length=100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    random.seed(1); np.random.seed(2); torch.manual_seed(3)
    before = state(model, tokenizer)
    assert doctor(model, tokenizer, few, ROOM(f)).ok
    after = state(model, tokenizer)
    assert [k for k in before if not same(before[k], after[k])] == [] and list(tmp_path.iterdir()) == []


def test_a_foreign_function_is_asked_in_the_mode_that_the_model_came_in(families):
    "A model left in training mode is caught, and put in evaluation mode only for what the doctor computes himself"
    f = copy.copy(families["gpt2"])
    f.model = copy.deepcopy(f.model)
    f.model.lm_head.register_forward_hook(lambda module, args, out: F.dropout(out, 0.3, training=module.training))
    assert doctor(f.model.eval(), f.tokenizer, few, answer=plain_generate(f), only=["same_answers_twice"]).ok
    assert not doctor(f.model.train(), f.tokenizer, few, answer=plain_generate(f), only=["same_answers_twice"]).ok


def squad_row(context, question, text, start=None, id="1"):
    answers = dict(text=[text], answer_start=[context.index(text) if start is None else start]) if text is not None else dict(text=[], answer_start=[])
    return dict(id=id, title="", context=context, question=question, answers=answers)


TEXT = ["offsets_round_trip", "every_character_covered", "labels_decode_to_gold", "answers_reachable"]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("context,text", [("She lived in Kraków’s Old Town.", "Kraków"), ("東京は日本の首都です。", "日本"), ("Moons: 🙂🙃 and 🙂.", "🙂🙃"), ("a\u0301e\u0301 ﬁne ½ — “x”", "ﬁne"), ("one", "one")])
def test_one_question_of_any_characters(families, family, context, text):
    f = families[family]
    found = doctor(f.model, f.tokenizer, Dataset.from_list([squad_row(context, "What is it, then?", text)], features=SCHEMA), ROOM(f), only=TEXT)
    failed = {c.name for c in found.checks if c.status == "fail"}
    assert failed <= ({"labels_decode_to_gold"} if f.tokenizer.unk_token_id is not None and f.tokenizer.unk_token_id in f.tokenizer(text)["input_ids"] else set()), found


REPEATING = dict(letter="a "*900, song="Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream. "*20, table="| 0 | 0 | 1 |\n"*120, ending="la "*700 + "and that was all of it.")


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("passage", REPEATING)
def test_a_passage_that_repeats_itself_is_covered(families, family, passage):
    "One stretch of it stands at many places, and so does what a row holds; what no row holds is still missed"
    f, data = families[family], Dataset.from_list([squad_row(REPEATING[passage], "What is it, then?", None)], features=SCHEMA)
    config = replace(ROOM(f), max_length=128, stride=32) if f.family in READERS else replace(ROOM(f), max_context_length=128, stride=32)
    own = doctor(f.model, f.tokenizer, data, config, only=["every_character_covered"]).checks[0]
    assert own.status == "pass" and own.figures["rows"] > 3, own
    if f.family not in READERS: return
    batches = stock_windows(f, data)
    assert doctor(f.model, f.tokenizer, data, batches=batches, only=["every_character_covered"]).ok
    if passage == "ending": assert not doctor(f.model, f.tokenizer, data, batches=[{k: v[:-1] for k, v in batches[0].items()}], only=["every_character_covered"]).ok


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_data_without_answers(families, family):
    f = families[family]
    rows = Dataset.from_list([squad_row("The sea is wide.", f"Who swam it {i}?", None, id=str(i)) for i in range(3)], features=SCHEMA)
    found = doctor(f.model, f.tokenizer, rows, ROOM(f))
    assert found.ok and found["answers_reachable"].status == "skip", found


def test_a_sliding_window_is_no_dropped_mask():
    "Who may see a token, may see it through others; and what cannot be asked is said"
    f = stock("mistral")
    found = doctor(f.model, f.tokenizer, few, ROOM(f))
    assert {c.name for c in found.checks if c.status == "fail"} == {"evaluation_uses_training_mask", "same_answers_twice"} and "sliding window" in found["same_answers_twice"].why, found


@pytest.mark.parametrize("family", WRITERS)
def test_a_mask_of_booleans_is_obeyed_under_sdpa(families, family):
    given = boolean_mask(families[family], "sdpa")
    found = doctor(given["model"], families[family].tokenizer, given["data"], batches=given["batches"], mask_mode="prefix", only=["attention_mask_honoured"])
    assert found.ok and found.checks[0].status == "pass", found


def test_a_prompt_that_is_learned_is_a_warning(families):
    found = doctor(families["gpt2"].model, families["gpt2"].tokenizer, few, batches=stock_prompts(families["gpt2"], few, learn_prompt=True), only=["labels_decode_to_gold", "one_label_shift"])
    assert found["labels_decode_to_gold"].status == "warn" and "more than the answer" in found["labels_decode_to_gold"].why and found["one_label_shift"].status == "pass"


def test_packed_batches_that_are_kept_apart_pass(families):
    for family in WRITERS:
        given = packed(families[family])
        found = doctor(families[family].model, families[family].tokenizer, given["data"], batches=given["batches"], only=["packed_equals_unpacked", "one_label_shift", "attention_mask_honoured"])
        assert {c.status for c in found.checks} == {"pass"}, found


def test_only_so_many_rows_are_looked_at(families):
    "Of many batches the first, and then nothing is said of windows that may stand in others"
    f = families["bert"]
    batch = {k: v[:16] for k, v in stock_windows(f, few)[0].items()}
    drawn = []
    def batches():
        for i in range(100): drawn.append(i); yield batch
    found = doctor(f.model, f.tokenizer, few, ROOM(f), batches=batches(), only=["every_character_covered", "padding_invariance"])
    assert len(drawn) == ROWS//16 + 1 and found["every_character_covered"].status == "skip" and found["padding_invariance"].status == "pass"


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_logits_that_are_no_numbers_pass_nothing(families, family):
    "Every comparison with NaN is false, and must not be taken for equal"
    f = families[family]
    model = copy.deepcopy(f.model)
    with torch.no_grad(): list(model.parameters())[-1].fill_(torch.nan)
    found = doctor(model, f.tokenizer, few, ROOM(f))
    numeric = {"padding_invariance", "attention_mask_honoured", "packed_equals_unpacked", "cached_equals_recomputed", "saved_equals_loaded", "evaluation_uses_training_mask", "same_answers_twice"}
    assert {c.name for c in found.checks if c.status in ("fail", "warn")} >= numeric & {c.name for c in found.checks}, found
    json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_what_a_model_raises_is_its_finding(families):
    f = families["bert"]
    def broken(input_ids, kwargs): raise IndexError("index out of range in self")
    found = doctor(patched(f, broken)["model"], f.tokenizer, few, ROOM(f))
    assert found["padding_invariance"].why == "IndexError: index out of range in self" and found["offsets_round_trip"].status == "pass" and not found.ok


@pytest.mark.parametrize("given,kind,words", [
    (dict(data=few.select([])), DataError, "no questions"), (dict(tokenizer=None), SettingError, "needs its tokenizer"), (dict(only=["nothing"]), SettingError, "no check nothing"),
    (dict(config=PromptConfig()), SettingError, "not for a model that points"), (dict(loss=lambda model, batch: 0), SettingError, "belongs to batches"), (dict(model="no/such-model", tokenizer=None), ModelError, "no/such-model")])
def test_what_cannot_be_checked_is_said(families, given, kind, words):
    f = families["bert"]
    with pytest.raises(kind, match=words): doctor(**dict(model=f.model, tokenizer=f.tokenizer, data=few) | given)


def test_batches_that_cannot_be_read_are_findings(families):
    f = families["bert"]
    used_up = iter([])
    assert "used up" in doctor(f.model, f.tokenizer, few, batches=used_up, only=["labels_decode_to_gold"]).checks[0].why
    unlabelled = [{k: v for k, v in b.items() if "positions" not in k} for b in stock_windows(f, few)]
    assert "they need labels" in doctor(f.model, f.tokenizer, few, batches=unlabelled, only=["labels_decode_to_gold"]).checks[0].why
    others = questions.filter(lambda context: len(context) > 1000, input_columns="context")
    assert "give the questions that the batches were made of" in doctor(f.model, f.tokenizer, others, batches=stock_windows(f, few), only=["labels_decode_to_gold"]).checks[0].why


@pytest.mark.parametrize("family,room", [("bert", 64), ("gpt2", 192)])
def test_a_model_of_few_positions_is_checked_within_them(family, room):
    f = stock(family)
    config = FAMILIES[family](len(f.tokenizer))
    config.max_position_embeddings = room
    model = type(f.model)(config).eval()
    f.tokenizer.model_max_length = room
    found = doctor(model, f.tokenizer, few)
    assert {c.name for c in found.checks if c.status == "fail"} <= {"answers_reachable"}, found


def test_tables_escape_and_keep_their_order(families):
    bad = Diagnosis("<img src=x onerror=alert(1)>", "extractive", 3, [Check("fail", "it says <script>alert(2)</script>\x1b[31m", "do <b>this</b>", dict(n=1), "one_label_shift"), Check("pass", "fine", name="same_answers_twice")])
    page = bad._repr_html_()
    assert "<img" not in page and "<script>alert" not in page and "<b>" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in repr(bad) and repr(bad).splitlines()[1].startswith("FAIL  one label shift") and bad.counts == {"fail": 1, "pass": 1}
    assert json.loads(json.dumps(bad.to_dict()))["checks"][0]["figures"] == {"n": 1} and not bad.ok


def test_small_parts():
    assert longest_runs(np.array([1, 2, 3, 9, 2, 3, 4, 5]), np.array([2, 3, 4, 5])) == ([0], 4) and longest_runs(np.array([7]), np.array([1])) == ([], 0)
    assert longest_runs(np.array([3, 1, 2, 9, 4, 5]), np.array([1, 2, 0, 4, 5, 0, 1, 2])) == ([0, 3, 6], 2)
    assert uncovered_tokens([], [1, 2]) == [0, 1] and uncovered_tokens([[], [2]], [1, 2, 2]) == [0] and uncovered_tokens([[1]], []) == []
    assert spelled(" Kraków’s\tﬁne STRASSE ") == spelled("krakow’s fine straße") and spelled(HARD)


def test_the_command_in_a_process(tmp_path):
    "A folder with its own settings; a name that is none is one line; no file is left"
    def squad_nb(*words): return subprocess.run([sys.executable, "-m", "squad_nb", "doctor", *map(str, words)], capture_output=True, text=True, timeout=300, cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    f = stock("gpt2")
    save_settings(f.model, PromptConfig(layout="context_first"), "prefix")
    f.model.save_pretrained(tmp_path/"writer"); f.tokenizer.save_pretrained(tmp_path/"writer")
    done = squad_nb("--model", tmp_path/"writer", "--data", "sample", "--limit", 12, "--json")
    found = json.loads(done.stdout)
    assert "Traceback" not in done.stderr and found["track"] == "generative" and found["questions"] == 12 and len(found["checks"]) == 14 and done.stderr.count("\npass") + done.stderr.startswith("pass") == found["counts"]["pass"]
    assert done.returncode == (not found["ok"]) and {c["name"] for c in found["checks"] if c["status"] == "fail"} <= {"end_of_text_learned", "no_answer_threshold_sane"}, done.stdout  # it is said to be trained, and is not
    wrong = CliRunner().invoke(app, ["doctor", "--model", str(tmp_path/"none"), "--data", "sample"])
    assert wrong.exit_code == 1 and wrong.stdout == "" and len(wrong.stderr.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["writer"]
