"Features on disk, packs and batches: against brute force, against each other, and on the real SQuAD file beside the project"
import json, os, shutil, warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from hypothesis import given, strategies as st
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig

from conftest import cases
from squad_nb import batching
from squad_nb.batching import PromptCollator, config_fingerprint, feature_statistics, pack_shared, read_features, write_features
from squad_nb.core import DataError, ModelError, OutputError, SettingError
from squad_nb.extractive import LengthGroupedSampler
from squad_nb.masks import PLACES, additive_mask, attention_mask, position_ids
from squad_nb.prompts import LAYOUTS, PromptConfig, prompt_features
from squad_nb.squad import load_squad


def test_masks_and_prompts_know_the_same_layouts(): assert set(PLACES) == set(LAYOUTS)


def row(passage, id, context, question, answer):
    "A row as prompts make it, with the layout context_first"
    ids = context + question + answer
    segments = [0]*len(context) + [1]*len(question) + [2]*len(answer)
    return dict(example_id=id, passage=passage, input_ids=ids, segments=segments, labels=ids[1:] + [99], labels_mask=[int(s == 2) for s in segments])


@st.composite
def prompts(draw):
    "Rows of a few passages in any order"
    tokens = lambda low, high: st.lists(st.integers(1, 50), min_size=low, max_size=high)
    contexts = draw(st.lists(tokens(0, 9), min_size=1, max_size=4))
    return [row(p, f"q{i}", contexts[p], draw(tokens(1, 4)), draw(tokens(1, 4))) for i, p in enumerate(draw(st.lists(st.integers(0, len(contexts) - 1), min_size=1, max_size=14)))]


def unpack(pack):
    "The rows a pack was made of, with the labels of the branch alone"
    for k, id in enumerate(pack["example_ids"], 1):
        mine, own = ([i for i, b in enumerate(pack["branches"]) if b in some] for some in ((0, k), (k,)))
        yield id, [[pack[name][i] for i in mine] for name in ("input_ids", "segments", "labels_mask")], [pack["labels"][i] for i in own]


def packed_size(rows):
    "Tokens of a passage's rows in one pack"
    return len(rows[0]["input_ids"]) + sum(segment != 0 for r in rows[1:] for segment in r["segments"])


def greedy(rows, max_length, max_branches):
    "The ids of each pack: a row goes to the last pack of its passage, and where it does not fit begins another"
    packs, last = [], {}
    for r in rows:
        pack = last.get(r["passage"], [])
        if not pack or len(pack) == max_branches or packed_size([*pack, r]) > max_length:
            pack = last[r["passage"]] = []
            packs.append(pack)
        pack.append(r)
    return [[r["example_id"] for r in pack] for pack in packs]


@cases(150)
@given(prompts(), st.sampled_from([8, 4, 3, 2, 1]), st.data())
def test_packs_hold_every_row_once(rows, max_branches, data):
    "A pack is as full as it can be: limits are drawn around the sizes that packs of these rows have"
    longest, passage = max(len(r["input_ids"]) for r in rows), data.draw(st.sampled_from(rows))["passage"]
    mates = [r for r in rows if r["passage"] == passage]
    max_length = packed_size(mates[:data.draw(st.sampled_from(range(len(mates), 0, -1)))]) + data.draw(st.sampled_from([0, 0, 1, -1]))
    if max_length < longest:
        with pytest.raises(SettingError, match=f"alone has {longest} tokens"): pack_shared(Dataset.from_list(rows), max_length, max_branches)
        return
    packs, seen = pack_shared(Dataset.from_list(rows), max_length, max_branches), []
    by_id = {r["example_id"]: r for r in rows}
    for pack in packs:
        assert len(pack["input_ids"]) <= max_length and len(pack["example_ids"]) <= max_branches
        assert sorted(set(pack["branches"]) - {0}) == list(range(1, len(pack["example_ids"]) + 1)) and pack["branches"] == sorted(pack["branches"])
        assert len({by_id[id]["passage"] for id in pack["example_ids"]}) == 1
        for id, columns, labels in unpack(pack):
            assert columns == [by_id[id][name] for name in ("input_ids", "segments", "labels_mask")] and labels == by_id[id]["labels"][-len(labels):]
            seen.append(id)
        attention_mask(pack["segments"], "prefix", "context_first", pack["branches"])  # raises where segments and branches do not fit
    assert sorted(seen) == sorted(by_id)
    assert packs["example_ids"][:] == greedy(rows, max_length, max_branches)  # in the order of their first rows


def test_what_cannot_be_packed():
    good = [row(0, "a", [1, 2], [3], [4]), row(0, "b", [1, 2], [5], [6])]
    other = [good[0], row(0, "b", [1, 3], [5], [6])], [good[0], row(0, "b", [1], [5], [6])]
    for rows in other:
        with pytest.raises(DataError, match="'b' and 'a' have the same number"): pack_shared(Dataset.from_list(rows))
    with pytest.raises(SettingError, match="'a' alone has 4 tokens"): pack_shared(Dataset.from_list(good), max_length=3)
    with pytest.raises(SettingError, match="max_branches"): pack_shared(Dataset.from_list(good), max_branches=0)
    with pytest.raises(DataError, match="are learned"): pack_shared(Dataset.from_list([good[0] | dict(labels_mask=[0, 1, 0, 1])]))
    with pytest.raises(SettingError, match="has seen its question"): pack_shared(Dataset.from_list([good[0] | dict(segments=[1, 0, 0, 2])]))
    bare = pack_shared(Dataset.from_list(good).remove_columns(["labels", "labels_mask"]))
    assert bare.column_names == ["input_ids", "segments", "branches", "example_ids"] and bare[0]["branches"] == [0, 0, 1, 1, 2, 2]


@cases(100)
@given(prompts(), st.sampled_from(["left", "right"]), st.sampled_from(["causal", "prefix"]), st.integers(1, 8), st.booleans())
def test_a_batch_is_its_rows(rows, side, mask_mode, multiple, packed):
    "Each cell of mask, positions and labels, found from the rows one by one"
    if packed: rows = list(pack_shared(Dataset.from_list(rows)))
    batch = PromptCollator(77, mask_mode, "context_first", side, multiple, torch.float64)(rows)
    length = batch["input_ids"].shape[1]
    assert length % multiple == 0 and 0 <= length - max(len(r["input_ids"]) for r in rows) < multiple
    assert ("attention_mask" in batch) == ("position_ids" in batch) == (packed or mask_mode == "prefix" or side == "left")
    for i, r in enumerate(rows):
        n = len(r["input_ids"])
        here = slice(length - n, length) if side == "left" else slice(0, n)
        inside = torch.zeros(length, dtype=torch.bool)
        inside[here] = True
        assert batch["input_ids"][i, here].tolist() == r["input_ids"] and (batch["input_ids"][i, ~inside] == 77).all()
        assert batch["labels"][i, here].tolist() == [x if m else -100 for x, m in zip(r["labels"], r["labels_mask"])] and (batch["labels"][i, ~inside] == -100).all()
        if "attention_mask" in batch:
            alone = attention_mask(r["segments"], mask_mode, "context_first", r.get("branches"))
            assert torch.equal(batch["attention_mask"][i, 0, here, here], additive_mask(alone, torch.float64)[0, 0])
            assert (batch["attention_mask"][i, 0][inside][:, ~inside] < -1e300).all()
            assert torch.equal(batch["position_ids"][i, here], position_ids(r["segments"], r.get("branches")))


def test_rows_of_any_kind_make_the_same_batch():
    rows = [row(0, "a", [1, 2], [3], [4]), row(1, "b", [1], [5], [6])]
    expected = PromptCollator(mask_mode="prefix", layout="context_first")(rows)
    for kind in ("numpy", "torch"):
        made = PromptCollator(mask_mode="prefix", layout="context_first")(list(Dataset.from_list(rows).with_format(kind)))
        assert made.keys() == expected.keys() and all(torch.equal(made[k], expected[k]) for k in made)
    assert PromptCollator(None)(rows)["input_ids"][1, -1] == 0
    for wrong in (dict(side="up"), dict(multiple=0), dict(mask_mode="full"), dict(layout="sideways")):
        with pytest.raises(SettingError): PromptCollator(**wrong)
    for column in ("segments", "labels_mask"):
        with pytest.raises(DataError, match=f"{column}.*remove_unused_columns"): PromptCollator()([{k: v for k, v in r.items() if k != column} for r in rows])


def tiny(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).double().eval()


SHAPE = dict(vocab_size=120, initializer_range=0.3)
models = {"gpt2": tiny(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **SHAPE)),
          "llama": tiny(LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, **SHAPE))}
ATOL = dict(gpt2=1e-9, llama=1e-4)  # transformers keeps Llama's norms in float32


def some_rows():
    rng = np.random.default_rng(0)
    def ids(n): return rng.integers(1, 90, n).tolist()
    contexts = [ids(12), ids(7), ids(16)]
    return Dataset.from_list([row(p, f"q{i}", contexts[p], ids(3 + i % 4), ids(1 + i % 5)) for i, p in enumerate([0, 1, 0, 2, 2, 0, 1, 2, 2])])


def question_first(rows):
    "The same questions, in the other order"
    def turn(r):
        order = sorted(range(len(r["segments"])), key=lambda i: PLACES["question_first"][r["segments"][i]])
        return {name: [r[name][i] for i in order] for name in ("input_ids", "segments", "labels", "labels_mask")}
    return rows.map(turn)


def loss_and_gradient(model, batches):
    loss = 0
    for batch in batches:
        batch = dict(batch)
        labels = batch.pop("labels")
        loss = loss + F.cross_entropy(model(**batch, use_cache=False).logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return loss.detach(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def collate(rows, size, mask_mode, layout="context_first", **more):
    collator = PromptCollator(7, mask_mode, layout, dtype=torch.float64, **more)
    return [collator([rows[j] for j in range(i, min(i + size, len(rows)))]) for i in range(0, len(rows), size)]


@pytest.mark.parametrize("kind", models)
@pytest.mark.parametrize("mask_mode", ["causal", "prefix"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_do_not_depend_on_the_batch(kind, mask_mode, layout):
    model, rows = models[kind], some_rows()
    if layout == "question_first": rows = question_first(rows)
    loss, gradient = loss_and_gradient(model, collate(rows, 1, mask_mode, layout, multiple=1))
    builds = [collate(rows, 4, mask_mode, layout), collate(rows, 4, mask_mode, layout, side="left")]
    if layout == "context_first":
        packs = pack_shared(rows, max_branches=3)
        assert max(map(len, pack_shared(rows)["input_ids"])) > 16 and len(packs) < len(rows)
        builds += [collate(packs, 1, mask_mode), collate(packs, 5, mask_mode), collate(packs, 2, mask_mode, side="left")]
    for batches in builds:
        other, moved = loss_and_gradient(model, batches)
        torch.testing.assert_close(other, loss, rtol=0, atol=1e-9)
        torch.testing.assert_close(moved, gradient, rtol=0, atol=ATOL[kind])


@pytest.mark.parametrize("kind", models)
@pytest.mark.parametrize("mask_mode", ["causal", "prefix"])
def test_the_comparison_is_not_blind(kind, mask_mode):
    model, packs = models[kind], pack_shared(some_rows())
    loss, _ = loss_and_gradient(model, collate(packs, 2, mask_mode))
    def without(*names): return [{k: v for k, v in batch.items() if k not in names} for batch in collate(packs, 2, mask_mode)]
    for wrong in (without("position_ids"), without("attention_mask"), without("position_ids", "attention_mask"),
                  collate(packs.remove_columns("branches").map(lambda r: dict(segments=[0]*r["segments"].count(0) + [2]*(len(r["segments"]) - r["segments"].count(0)))), 2, mask_mode)):
        assert (loss_and_gradient(model, wrong)[0] - loss).abs() > 0.01


@pytest.mark.parametrize("kind", models)
def test_without_a_mask_sdpa_takes_its_causal_way(kind, monkeypatch):
    called, real = [], F.scaled_dot_product_attention
    def spy(*args, attn_mask=None, is_causal=False, **kwargs):
        called.append((attn_mask is None, is_causal))
        return real(*args, attn_mask=attn_mask, is_causal=is_causal, **kwargs)
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    batch, = collate(some_rows(), 9, "causal")
    assert batch.keys() == {"input_ids", "labels"}
    models[kind](input_ids=batch["input_ids"], use_cache=False)
    assert set(called) == {(True, True)}
    called.clear()  # with the positions of padded rows, transformers builds a mask
    batch, = collate(some_rows(), 9, "causal", side="left")
    models[kind](input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
    assert set(called) == {(False, False)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from tokenizers import Tokenizer, models as parts, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    backend = Tokenizer(parts.WordLevel({w: i for i, w in enumerate("[UNK] [EOS] a b c d e f".split())}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[EOS]", unk_token="[UNK]")


def test_fingerprints_change_with_what_tokens_depend_on(tokenizer, tmp_path):
    from tokenizers import normalizers
    before = config_fingerprint(tokenizer, None)
    assert config_fingerprint(tokenizer, PromptConfig()) == before
    tokenizer.save_pretrained(tmp_path)
    def loaded(): return AutoTokenizer.from_pretrained(tmp_path)
    assert config_fingerprint(loaded(), None) == before
    busy = loaded()
    busy(["a b c", "a"], truncation=True, max_length=2, stride=1)
    assert config_fingerprint(busy, None) == before
    lower, ended, more = loaded(), loaded(), loaded()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    ended.eos_token = "f"
    more.add_tokens(["g"])
    prints = [config_fingerprint(t, None) for t in (lower, ended, more)]
    defaults = PromptConfig()
    changes = dict(max_question_length=1, max_context_length=200, max_answer_length=1, stride=1, layout="context_first", separator=True, learn_cue=True, question="q {}", context="c {}", cue="a")
    assert changes.keys() == vars(defaults).keys()
    prints += [config_fingerprint(tokenizer, replace(defaults, **{k: v})) for k, v in changes.items()]
    assert len({before, *prints}) == 1 + len(prints)
    with pytest.raises(ModelError, match="not a fast tokenizer"): config_fingerprint(object(), None)


@pytest.mark.parametrize("shards", [None, 1, 4, 100])
def test_features_survive_the_disk(tokenizer, tmp_path, shards):
    rows = some_rows()
    for made in (rows, pack_shared(rows), rows.select([5, 2]), rows.select([])):
        place = write_features(made, tmp_path/"features", tokenizer, shards=shards, force=True)
        again = read_features(place, tokenizer)
        assert again[:] == made[:] and again.features == made.features
        statistics = json.loads((place/"statistics.json").read_text())
        assert statistics["total_records"] == len(made) == sum(f.get("records", 0) for f in statistics["files"].values())
        assert statistics["tokens"]["total"] == sum(map(len, made["input_ids"])) == sum(map(len, made["segments"]))
        assert sum(statistics["tokens"]["histogram"]["counts"]) == len(made) and statistics["learned"]["total"] == sum(map(sum, made["labels_mask"]))
        assert statistics["fingerprint"] == config_fingerprint(tokenizer, None)
        if shards and len(made): assert len(list(place.glob("*.arrow"))) == min(shards, len(made))
    assert [p.name for p in tmp_path.iterdir()] == ["features"]


def test_statistics_find_records_that_teach_nothing():
    rows = some_rows().select(range(3)).map(lambda r, i: dict(labels_mask=[0]*len(r["labels_mask"]) if i == 1 else r["labels_mask"]), with_indices=True)
    assert feature_statistics(rows)["learned"]["records_without"] == 1
    assert "learned" not in feature_statistics(rows.remove_columns("labels_mask"))


def test_a_folder_is_replaced_whole_or_not_at_all(tokenizer, tmp_path, monkeypatch):
    rows = some_rows()
    place = write_features(rows, tmp_path/"features", tokenizer)
    with pytest.raises(OutputError, match="not empty"): write_features(rows, place, tokenizer)
    with monkeypatch.context() as m:
        def full(*args): raise OSError(28, "No space left on device")
        m.setattr(batching, "_describe_file", full)
        with pytest.raises(OutputError, match="No space left"): write_features(rows.select([0]), place, tokenizer, force=True)
    real = os.replace
    def fail_once(a, b):
        if str(a).endswith(".part"): raise OSError(16, "Device or resource busy")
        return real(a, b)
    with monkeypatch.context() as m:
        m.setattr(batching.os, "replace", fail_once)
        with pytest.raises(OutputError): write_features(rows.select([0]), place, tokenizer, force=True)
    assert read_features(place, tokenizer)[:] == rows[:] and [p.name for p in tmp_path.iterdir()] == ["features"]
    mapped = read_features(place, tokenizer)
    write_features(mapped.filter(lambda r: r["passage"] == 0), place, tokenizer, force=True)  # onto the files it is read from
    assert len(read_features(place, tokenizer)) == 3 and mapped[:] == rows[:]
    (tmp_path/"link").symlink_to(place)
    write_features(rows, tmp_path/"link", tokenizer, force=True)
    assert (tmp_path/"link").is_symlink() and len(read_features(place, tokenizer)) == len(rows)
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine"/"thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="something else"): write_features(rows, tmp_path/"mine", tokenizer, force=True)
    assert (tmp_path/"mine"/"thesis.txt").read_text() == "years"
    with pytest.raises(SettingError, match="shards"): write_features(rows, tmp_path/"none", tokenizer, shards=0)


def test_damage_is_named(tokenizer, tmp_path):
    place = write_features(some_rows(), tmp_path/"features", tokenizer, shards=3)
    def damaged(change):
        copy = tmp_path/"copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(place, copy)
        change(copy)
        with pytest.raises(DataError) as caught: read_features(copy, tokenizer)
        return str(caught.value)
    for name in [p.name for p in place.iterdir() if p.name != "statistics.json"]:
        def flip(folder):
            content = bytearray((folder/name).read_bytes())
            content[len(content)//2] ^= 4
            (folder/name).write_bytes(content)
        assert name in damaged(flip) and name in damaged(lambda f: (f/name).unlink()) and name in damaged(lambda f: (f/name).write_bytes((f/name).read_bytes()[:-1]))
    for content in ("{", "[]", "{}", '{"made_with": {}, "files": {}, "total_records": 9}', "7"): assert "statistics.json" in damaged(lambda f: (f/"statistics.json").write_text(content))
    assert "holds no features" in damaged(lambda f: (f/"statistics.json").unlink())
    with pytest.raises(DataError, match="stride was 128 and is 5"): read_features(place, tokenizer, PromptConfig(stride=5))


def test_workers_read_every_record_once_an_epoch(tokenizer, tmp_path):
    rows = Dataset.from_list([row(i, f"q{i}", [1]*(i % 7), [2], [3]*(1 + i % 3)) for i in range(50)])
    features = read_features(write_features(rows, tmp_path/"f", tokenizer, shards=4), tokenizer)
    def epoch(number, seed):
        sampler = LengthGroupedSampler([len(x) for x in features["input_ids"]], 8, seed)
        sampler.set_epoch(number)
        return [id for ids in DataLoader(features, 8, sampler=sampler, num_workers=2, collate_fn=lambda rows: [r["example_id"] for r in rows]) for id in ids]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        orders = [epoch(0, 1), epoch(0, 1), epoch(1, 1), epoch(0, 2)]
    assert all(sorted(order) == sorted(rows["example_id"]) for order in orders)
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) == 3


def test_real_questions_take_less_than_a_third_of_the_tokens(shared, smollm2, tmp_path):
    config = PromptConfig(layout="context_first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = prompt_features(load_squad(shared/"squad"/"squad-v1.1.json"), smollm2, config)
    packs = pack_shared(features)
    apart, together = (sum(map(len, rows.with_format("numpy")["input_ids"])) for rows in (features, packs))
    assert together < apart/3
    by_id = {r["example_id"]: r for r in features.select(range(400))}
    for pack in packs.select(range(60)):
        for id, columns, _ in unpack(pack): assert columns == [by_id[id][name] for name in ("input_ids", "segments", "labels_mask")]
    place = write_features(packs, tmp_path/"packs", smollm2, config, shards=3)
    assert read_features(place, smollm2, config)[7] == packs[7]
    with pytest.raises(DataError, match="layout was 'context_first'"): read_features(place, smollm2)
