"Masks against their definition in words, and models of random weights that must obey them"
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from transformers import AutoModelForCausalLM, BertConfig, DynamicCache, GPT2Config, LlamaConfig, MambaConfig, MptConfig, OPTConfig, Qwen2Config, T5Config, T5ForConditionalGeneration

from conftest import cases
from squad_nb.core import DataError, ModelError, SettingError
from squad_nb.masks import MASK_MODES, PLACES, additive_mask, attention_mask, check_attention, check_sharing, position_ids

CONFIGS = {
    "gpt2": lambda: GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=60, initializer_range=0.5, resid_pdrop=0.1),
    "llama": lambda: LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, vocab_size=60, initializer_range=0.5),
}
GRADIENTS = {"gpt2": 1e-9, "llama": 1e-4}  # transformers keeps Llama's norms in float32,
LOGITS = {("llama", "eager"): 1e-5}  # and the softmax of its eager attention


def tiny(kind, attention="sdpa", dtype=torch.float64):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[kind](), attn_implementation=attention).eval().to(dtype)


def close(a, b, *key): torch.testing.assert_close(a, b, rtol=0, atol=LOGITS.get(key, 1e-11))


models = {(kind, attention): tiny(kind, attention) for kind in CONFIGS for attention in ("sdpa", "eager")}
each_model = pytest.mark.parametrize("kind,attention", models)
each_mode = pytest.mark.parametrize("mask_mode", MASK_MODES)
each_layout = pytest.mark.parametrize("layout", PLACES)


def may_attend(i, j, segments, branches, mask_mode, layout):
    "The table of masks, word by word"
    a, b = segments[i], segments[j]
    if a == -1: return i == j                                       # padding looks at itself
    if b == -1: return False                                        # and nobody looks at padding
    if branches[j] not in (0, branches[i]): return False            # another question
    if j <= i: return True                                          # the left
    if mask_mode == "causal": return False
    if layout == "question_first": return a in (0, 1) and b in (0, 1)  # question and context see each other both ways
    if a == 0: return b == 0                                        # the context sees itself both ways
    if a == 1: return b == 1                                        # so does the question
    return False                                                    # cue and answer: left only


@st.composite
def rows(draw, branched=True):
    "Segments and branches of one row, with padding on either side, sometimes in the middle"
    size = st.integers(0, 4)
    layout = draw(st.sampled_from(list(PLACES)))
    if branched and layout == "context_first" and draw(st.booleans()):
        parts = [(0, 0, draw(size))]
        for k in range(1, draw(st.integers(1, 4)) + 1): parts += [(1, k, draw(size)), (2, k, draw(size))]
    else:
        order = (1, 0, 2) if layout == "question_first" else (0, 1, 2)
        parts = [(s, 0, draw(size)) for s in order]
    parts = [(-1, draw(st.integers(0, 3)), draw(size)), *parts, (-1, draw(st.integers(0, 3)), draw(size))]
    segments, branches = ([part[which] for part in parts for _ in range(part[2])] for which in (0, 1))
    if draw(st.booleans()):
        hole = draw(st.integers(0, len(segments)))
        segments.insert(hole, -1), branches.insert(hole, 0)
    return segments, branches, layout


@cases(300)
@given(rows(), st.sampled_from(MASK_MODES))
def test_every_cell_is_the_tables(row, mask_mode):
    segments, branches, layout = row
    n = len(segments)
    expected = [[may_attend(i, j, segments, branches, mask_mode, layout) for j in range(n)] for i in range(n)]
    assert attention_mask(segments, mask_mode, layout, branches).tolist() == expected
    batch = torch.tensor([segments, segments]), torch.tensor([branches, branches])
    assert attention_mask(batch[0], mask_mode, layout, batch[1]).tolist() == [expected, expected]


@cases(300)
@given(rows())
def test_positions_are_those_of_the_branch_alone(row):
    segments, branches, _ = row
    positions = position_ids(segments, branches).tolist()
    for k in set(branches):
        mine = [i for i, (s, b) in enumerate(zip(segments, branches)) if s >= 0 and b in (0, k)]
        assert [positions[i] for i in mine] == list(range(len(mine)))
    assert all(p == 0 for p, s in zip(positions, segments) if s < 0)


@cases(200)
@given(rows(), st.sampled_from(MASK_MODES))
def test_masks_are_transitive_and_no_row_is_empty(row, mask_mode):
    segments, branches, layout = row
    mask = attention_mask(segments, mask_mode, layout, branches)
    assert mask.diagonal().all()
    assert torch.equal((mask.int() @ mask.int()) > 0, mask)


def test_rows_that_share_may_stand_beside_rows_that_do_not():
    segments = torch.tensor([[0, 0, 1, 2, 1, 2], [0, 1, 1, 2, 2, -1]])
    branches = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0]])
    for mask_mode in MASK_MODES:
        mask = attention_mask(segments, mask_mode, "context_first", branches)
        for i in range(2): assert torch.equal(mask[i], attention_mask(segments[i], mask_mode, "context_first", branches[i]))


PARTS = {"question_first": [1]*3 + [0]*5 + [2]*4, "context_first": [0]*5 + [1]*3 + [2]*4}


def logits(model, ids, mask, positions):
    return model(input_ids=ids, attention_mask=additive_mask(mask, model.dtype), position_ids=positions, use_cache=False).logits


@each_model
@each_mode
@each_layout
def test_who_reacts_is_who_may_attend(kind, attention, mask_mode, layout):
    "By perturbation: another token at one place moves the logits of those that may see it, and of no other"
    model, segments = models[kind, attention], torch.tensor(PARTS[layout])
    mask, positions, n = attention_mask(segments, mask_mode, layout), position_ids(segments)[None], len(segments)
    ids = torch.arange(5, 5 + n)
    before = logits(model, ids[None], mask, positions)[0]
    for j in range(n):
        other = ids.clone()
        other[j] = 40
        moved = (logits(model, other[None], mask, positions)[0] - before).abs().amax(-1) > 10*LOGITS.get((kind, attention), 1e-10)
        assert moved.tolist() == mask[:, j].tolist()


def branched():
    "A passage with three questions of unequal length: ids, segments, branches, labels, and the rows apart"
    parts = [(0, 0, 6), (1, 1, 3), (2, 1, 3), (1, 2, 5), (2, 2, 2), (1, 3, 1), (2, 3, 5)]
    segments, branches = ([p[which] for p in parts for _ in range(p[2])] for which in (0, 1))
    ids = torch.arange(3, 3 + len(segments))
    labels = torch.where(torch.tensor(segments) == 2, (ids*7) % 60, -100)
    return ids, torch.tensor(segments), torch.tensor(branches), labels, [(torch.tensor(branches) == 0) | (torch.tensor(branches) == k) for k in (1, 2, 3)]


def gradients(model, loss): return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
def nll(logits, labels): return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")


def shared_and_apart(model, mask_mode, mask=None, positions=None):
    ids, segments, branches, labels, rows = branched()
    mask = attention_mask(segments, mask_mode, "context_first", branches) if mask is None else mask
    together = logits(model, ids[None], mask, (position_ids(segments, branches) if positions is None else positions)[None])[0]
    alone = [logits(model, ids[r][None], attention_mask(segments[r], mask_mode, "context_first"), position_ids(segments[r])[None])[0] for r in rows]
    return together, alone, labels, rows


@each_model
@each_mode
def test_shared_is_equal_to_apart(kind, attention, mask_mode):
    model = models[kind, attention]
    together, alone, labels, rows = shared_and_apart(model, mask_mode)
    for row, one in zip(rows, alone): close(together[row], one, kind, attention)
    losses = [nll(one, labels[row]) for row, one in zip(rows, alone)]
    torch.testing.assert_close(nll(together, labels), sum(losses), rtol=0, atol=len(labels)*LOGITS.get((kind, attention), 1e-11))
    torch.testing.assert_close(gradients(model, nll(together, labels)), gradients(model, sum(losses)), rtol=0, atol=len(labels)*GRADIENTS[kind])


@each_model
@each_mode
def test_what_breaks_sharing_shows(kind, attention, mask_mode):
    "The checks above are not blind: without the mask, or with positions that count on, logits are far off"
    model, (ids, segments, branches, *_) = models[kind, attention], branched()
    dropped = torch.ones(len(ids), len(ids)).tril().bool()
    for wrong in (dict(mask=dropped), dict(positions=torch.arange(len(ids)))):
        together, alone, _, rows = shared_and_apart(model, mask_mode, **wrong)
        assert max((together[row] - one).abs().max() for row, one in zip(rows, alone)) > 0.1


@each_mode
@pytest.mark.parametrize("kind", CONFIGS)
def test_additive_is_right_under_both_and_bool_only_under_sdpa(kind, mask_mode):
    ids, segments, branches, *_ = branched()
    mask, positions = attention_mask(segments, mask_mode, "context_first", branches), position_ids(segments, branches)[None]
    sdpa, eager = (models[kind, a] for a in ("sdpa", "eager"))
    right = logits(sdpa, ids[None], mask, positions)
    def with_bool(model): return model(input_ids=ids[None], attention_mask=mask[None, None], position_ids=positions, use_cache=False).logits
    close(logits(eager, ids[None], mask, positions), right, kind, "eager")
    close(with_bool(sdpa), right)
    assert (with_bool(eager) - right).abs().max() > 0.1


@each_model
@each_mode
@each_layout
def test_padding_changes_nothing(kind, attention, mask_mode, layout):
    model, n = models[kind, attention], len(PARTS[layout])
    ids, labels = torch.arange(5, 5 + n), torch.tensor([-100]*(n - 3) + [8, 9, 10])
    bare = logits(model, ids[None], attention_mask(PARTS[layout], mask_mode, layout), position_ids(PARTS[layout])[None])[0]
    sides = [(4, 0), (0, 4), (1, 3)]
    segments = torch.tensor([[-1]*a + PARTS[layout] + [-1]*b for a, b in sides])
    x = torch.stack([F.pad(ids, side, value=11) for side in sides])
    padded = logits(model, x, attention_mask(segments, mask_mode, layout), position_ids(segments))
    assert padded.isfinite().all()
    for row, (a, _) in zip(padded, sides): close(row[a:a + n], bare, kind, attention)
    targets = torch.stack([F.pad(labels, side, value=-100) for side in sides])
    torch.testing.assert_close(gradients(model, nll(padded, targets)), 3*gradients(model, nll(bare, labels)), rtol=0, atol=3*GRADIENTS[kind])


@each_model
@each_mode
def test_last_rows_of_a_mask_are_a_caches(kind, attention, mask_mode):
    "The passage is read once; then each question with its answer against it, and answers token by token"
    model, (ids, segments, branches, *_) = models[kind, attention], branched()
    row = branches <= 1
    ids, segments = ids[row], segments[row]
    mask, positions = attention_mask(segments, mask_mode, "context_first"), position_ids(segments)[None]
    whole, cache, parts = logits(model, ids[None], mask, positions)[0], DynamicCache(config=model.config), []
    for a, b in ((0, 6), (6, 10), (10, 11), (11, 12)):
        out = model(input_ids=ids[None, a:b], attention_mask=additive_mask(mask[a:b, :b], torch.float64), position_ids=positions[:, a:b], past_key_values=cache)
        parts.append(out.logits[0])
    close(torch.cat(parts), whole, kind, attention)


@each_model
def test_a_float32_mask_serves_autocast(kind, attention):
    ids, segments, branches, *_ = branched()
    model = tiny(kind, attention, torch.float32)
    mask, positions = attention_mask(segments, "prefix", "context_first", branches), position_ids(segments, branches)[None]
    with torch.autocast("cpu", torch.bfloat16): half = logits(model, ids[None], mask, positions)[0]
    with torch.autocast("cpu", torch.bfloat16):
        row = branches <= 2
        row &= branches != 1
        alone = logits(model, ids[row][None], attention_mask(segments[row], "prefix", "context_first"), position_ids(segments[row])[None])[0]
    assert half.isfinite().all()
    assert (half[row] - alone).abs().mean() < 0.05*(half[row].std())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_additive_masks_have_two_values(dtype):
    mask = attention_mask([[0, 1, 2, -1], [0, 0, 1, 2]], "prefix", "context_first")
    added = additive_mask(mask, dtype)
    assert added.dtype == dtype and added.shape == (2, 1, 4, 4)
    assert torch.equal(added[:, 0] == 0, mask) and torch.equal(added[:, 0] == torch.finfo(dtype).min, ~mask)
    assert torch.equal(additive_mask(mask[0, 2:], dtype), added[:1, :, 2:])
    with pytest.raises(DataError, match="twice"): additive_mask(added)


@pytest.mark.parametrize("segments,branches,message", [
    ([[0, 1], [0]], None, "pad them"), ([0.0, 1.0], None, "must be integers"), ([True, False], None, "must be integers"), ([0, 4], None, "range from 0 to 4"), ([-2, 0], None, "range from -2"),
    ([0, 1, 2], [0, 1], "shape"), ([0, 1, 1], [0, 2, 1], "upwards"), ([0, 1, 2], [0, -1, 1], "upwards"), ([0, 0, 1, 2], [0, 0, 0, 1], "context only"),
    ([0, 1, 2, 1, 2], [0, 1, 1, 1, 1], "do not stand in the order of context_first"), ([1, 0, 2], None, "do not stand in the order of context_first")])
def test_rows_that_mean_nothing(segments, branches, message):
    with pytest.raises(DataError, match=message): attention_mask(segments, "prefix", "context_first", branches)


def test_settings_that_do_not_exist():
    with pytest.raises(SettingError, match="causal or prefix"): attention_mask([0], "full")
    with pytest.raises(SettingError, match="question_first or context_first"): attention_mask([0], "causal", "answer_first")
    for mask_mode in MASK_MODES:
        check_sharing(mask_mode, "context_first")
        with pytest.raises(SettingError, match="has seen its question"): check_sharing(mask_mode, "question_first")
    assert attention_mask([1, 0, 2], branches=[0, 0, 0]).shape == (3, 3)  # zeros alone share nothing


small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=60)


@pytest.mark.parametrize("config", [OPTConfig(word_embed_proj_dim=16, ffn_dim=16, max_position_embeddings=64, **small), Qwen2Config(intermediate_size=16, num_key_value_heads=1, **small)])
def test_other_decoders_obey(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    check_attention(model)
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("make,message", [
    (lambda: AutoModelForCausalLM.from_config(BertConfig(intermediate_size=16, **small)), "not a decoder"),
    (lambda: T5ForConditionalGeneration(T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=60)), "not a decoder"),
    (lambda: tiny("gpt2").transformer, "not a decoder"),
    (lambda: AutoModelForCausalLM.from_config(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=60, state_size=4)), "fails on a mask"),
    (lambda: AutoModelForCausalLM.from_config(MptConfig(d_model=16, n_layers=1, n_heads=2, vocab_size=60)), "does not obey"),
    (lambda: torch.nn.Linear(2, 2), "not a decoder")])
def test_models_that_cannot(make, message):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=message): check_attention(make())


@pytest.mark.parametrize("kind", ["flash_attention_2", "flex_attention", "paged|sdpa"])
def test_attention_that_takes_no_mask(kind):
    model = tiny("llama")
    model.config._attn_implementation_internal = kind
    assert model.config._attn_implementation == kind
    with pytest.raises(ModelError, match="use sdpa or eager"): check_attention(model)
