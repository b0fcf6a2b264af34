"The predictor gives the answers of the evaluation and of the removed pipeline, whatever way it is asked, and loads from a hub cache but never runs what is in it"
import json, os, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np, pytest, torch
from datasets import concatenate_datasets
from transformers import BertConfig, BertForQuestionAnswering
from typer.testing import CliRunner

from squad_nb.calibration import fit_temperature
from squad_nb.cli import app
from squad_nb.core import DataError, ModelError, OutputError, SettingError, SquadNbError, best_precision
from squad_nb.doctor import doctor
from squad_nb.extractive import ExtractiveConfig, fit_reader, load_reader, tune_temperature
from squad_nb.generative import fit_writer
from squad_nb.predictor import Predictor, QuestionAnswering, evaluated_in, settings_of, track_of
from squad_nb.prompts import PromptConfig
from squad_nb.report import outside_windows
from squad_nb.runs import is_finished
from squad_nb.sample import generate_squad, tiny_model
from squad_nb.squad import from_squad_json

root = Path(__file__).parents[1]
FAST = dict(epochs=1, learning_rate=2e-3, batch_size=32, precision="fp32", save_strategy="no", load_best_model_at_end=False, disable_tqdm=True)


def invented(n, **more): return from_squad_json(generate_squad(n, unanswerable=.3, **more))


def long(questions):
    "The same questions, each about its passage between two others"
    contexts = list(dict.fromkeys(questions["context"]))
    def widen(row):
        i = contexts.index(row["context"])
        before, after = contexts[i - 1] + " ", " " + contexts[(i + 1) % len(contexts)]
        return dict(context=before + row["context"] + after, answers=dict(text=row["answers"]["text"], answer_start=[a + len(before) for a in row["answers"]["answer_start"]]))
    return questions.map(widen)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A trained folder of each track with a fitted temperature, the questions it was scored on, half of them about long passages, and its trainer"
    folder, train, tune = tmp_path_factory.mktemp("runs"), invented(120), invented(4, seed=1)
    short, wide = invented(3, seed=2), long(invented(3, seed=3))
    test = concatenate_datasets([short, wide]).select(np.random.default_rng(0).permutation(len(short) + len(wide)))  # passages are not together
    reader = fit_reader("tiny-bert", train, test, folder/"reader", ExtractiveConfig(max_length=192, stride=64), tune=tune, **FAST)
    writer = fit_writer("tiny-gpt2", train, test, folder/"writer", PromptConfig(layout="context_first", max_context_length=128, stride=32, max_answer_length=8), "prefix", tune=tune, **FAST)
    return folder, test, dict(reader=reader, writer=writer)


def said(predictions): return [(p.id, p.text, p.score, p.probability, p.start, p.end, list(p.candidates)) for p in predictions]
def near(a, b): return all(x[:2] == y[:2] and x[4:6] == y[4:6] and np.allclose(x[2:4], y[2:4], atol=2e-5, rtol=1e-4) for x, y in zip(said(a), said(b), strict=True))


@pytest.mark.parametrize("track", ["reader", "writer"])
def test_a_loaded_folder_answers_as_the_evaluation_did(runs, track):
    folder, test, trainers = runs
    predictor = Predictor.from_pretrained(folder/track)
    predictions = predictor.predict(test)
    assert near(predictions, trainers[track].predictions)
    assert [p.id for p in predictions] == test["id"][:] and {bool(p.text) for p in predictions} == {True, False}
    assert max(c.window or 0 for p in predictions for c in p.candidates) > 0  # long passages were cut
    assert predictor.answers.temperature != 1 and all(0 <= p.probability <= 1 for p in predictions)
    for p, row in zip(predictions, test):
        if p.start is not None: assert row["context"][p.start:p.end] == p.text
    asked = predictor.answer(test["question"][:], test["context"][:])
    assert near([p._replace(id=id) for p, id in zip(asked, test["id"])], predictions)
    alone = [predictor.answer(row["question"], row["context"]) for row in test.select(range(6))]
    assert near([p._replace(id=id) for p, id in zip(alone, test["id"])], predictions[:6])
    qa = QuestionAnswering(predictor)
    for given, p in zip(qa(question=test["question"][:], context=test["context"][:]), asked, strict=True):
        assert (given["answer"], given["score"]) == (p.text, p.probability)
        assert (given["start"], given["end"]) == ((p.start, p.end) if p.text else (0, 0))


@pytest.mark.parametrize("track", ["reader", "writer"])
def test_top_k_begins_with_the_answer(runs, track):
    folder, test, _ = runs
    predictor, (question, context) = Predictor.from_pretrained(folder/track), (test["question"][:12], test["context"][:12])
    for one, several in zip(predictor.answer(question, context), predictor.answer(question, context, top_k=4), strict=True):
        assert (several[0].text, several[0].score) == (one.text, one.score) and len(several) == min(4, len(one.candidates))
        assert len({(p.text, p.start) for p in several}) == len(several)
    if track == "reader":
        shy = predictor.using(null_threshold=-1e9)
        best, *behind = shy.answer(question[0], context[0], top_k=3)
        assert best.text == "" and all(p.text for p in behind) and QuestionAnswering(shy)(question=question[0], context=context[0])["start"] == 0


# The precision

@pytest.mark.parametrize("track", ["reader", "writer"])
def test_a_model_is_asked_in_the_precision_it_was_evaluated_in(runs, monkeypatch, track):
    "Also where the machine would choose another"
    folder, test, trainers = runs
    monkeypatch.setattr("squad_nb.predictor.best_precision", lambda *where: "bf16")
    predictor = Predictor.from_pretrained(folder/track)
    assert predictor.half is None and near(predictor.predict(test), trainers[track].predictions)
    other = Predictor.from_pretrained(folder/track, precision="bf16")
    assert other.half == torch.bfloat16 and not near(other.predict(test), trainers[track].predictions)


def test_half_precision_is_kept_where_it_gains(runs, tmp_path, monkeypatch):
    folder, test, _ = runs
    trainer = fit_reader("tiny-bert", invented(20), test, tmp_path/"half", ExtractiveConfig(max_length=192, stride=64), **FAST | dict(precision="bf16"))
    slow = Predictor.from_pretrained(tmp_path/"half", device="cpu")
    assert slow.half is None  # 128 dimensions are faster in float32
    monkeypatch.setattr("squad_nb.predictor.best_precision", lambda *where: "bf16")
    predictor = Predictor.from_pretrained(tmp_path/"half", device="cpu")
    assert predictor.half == torch.bfloat16 and [p.text for p in predictor.predict(test)] == [p.text for p in trainer.predictions]
    (tmp_path/"half"/"run.json").unlink()  # as before the end
    assert Predictor.from_pretrained(tmp_path/"half", device="cpu").half == torch.bfloat16 == Predictor.from_pretrained(tmp_path/"half", device="cpu", precision="bf16").half
    (tmp_path/"half"/"plan.json").write_text("[]")
    monkeypatch.setattr("squad_nb.predictor.best_precision", lambda *where: "fp16")
    assert Predictor.from_pretrained(tmp_path/"half", device="cpu").half == torch.float16  # nothing is recorded


@pytest.mark.parametrize("record,precision", [(dict(training=dict(bf16=False, fp16=True)), "fp16"), (dict(training=dict(bf16=True, fp16=False)), "bf16"), (dict(training={}), "fp32"), (dict(training=3), None), ([], None), (None, None)])
def test_what_a_run_recorded_goes_for_its_checkpoints(tmp_path, record, precision):
    for name in ("checkpoint-3", "other"): (tmp_path/name).mkdir()
    (tmp_path/"run.json").write_text(json.dumps(record))
    assert [evaluated_in(folder) for folder in (tmp_path, tmp_path/"checkpoint-3", tmp_path/"other", "someone/model")] == [precision, precision, None, None]


def test_a_cpu_beside_a_gpu_has_a_precision_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **how: True)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False, raising=False)
    assert [best_precision(768, device) for device in (None, "cuda:1", "cpu", "mps")] == ["bf16", "bf16", "fp32", "fp32"]
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True, raising=False)
    assert [best_precision(width, "cpu") for width in (768, 128)] == ["bf16", "fp32"]
    assert Predictor.from_pretrained("tiny-bert", device="cpu").half is None  # it is 128 wide
    for wrong in ("int8", None, True):
        with pytest.raises(SettingError, match="choose auto"): Predictor.from_pretrained("tiny-bert", device="cpu", precision=wrong)


# The pipeline

def plain_pipeline(model, tokenizer, question, context, max_answer_len, handle_impossible_answer):
    "One window, as transformers 4 did it: two softmaxes over passage and first token, the best product of start and end; and all products"
    encoded = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")
    offsets, inside = encoded.pop("offset_mapping")[0].tolist(), torch.tensor([s == 1 for s in encoded.sequence_ids(0)])
    with torch.no_grad(): out = model(**encoded)
    kept = inside.clone()
    kept[0] = True
    start, end = (x[0].double().masked_fill(~kept, -10000.).softmax(0) for x in (out.start_logits, out.end_logits))
    null = (start[0]*end[0]).item()
    products = {(i, j): (start[i]*end[j]).item() for i in range(len(inside)) for j in range(i, min(i + max_answer_len, len(inside))) if inside[i] and inside[j]}
    (i, j), best = max(products.items(), key=lambda item: item[1])
    legal = sum(products.values()) + handle_impossible_answer*null
    if handle_impossible_answer and null > best: return dict(answer="", start=0, end=0), null, legal
    return dict(answer=context[offsets[i][0]:offsets[j][1]], start=offsets[i][0], end=offsets[j][1]), best, legal


@pytest.mark.parametrize("none", [False, True])
def test_the_pipeline_would_have_said_the_same(runs, none):
    model, tokenizer = load_reader(runs[0]/"reader")
    model.eval()
    questions, qa, empty = invented(4, seed=6), QuestionAnswering(runs[0]/"reader", config=ExtractiveConfig(), device="cpu"), 0
    answers = qa([dict(question=row["question"], context=row["context"]) for row in questions], max_answer_len=15, handle_impossible_answer=none)
    for row, ours in zip(questions, answers, strict=True):
        theirs, product, legal = plain_pipeline(model, tokenizer, row["question"], row["context"], 15, none)
        assert {k: ours[k] for k in ("answer", "start", "end")} == theirs
        assert abs(ours["score"] - product/legal) < 1e-4 and ours["score"] >= product - 1e-6  # a share of the possible answers
        empty += not ours["answer"]
    assert bool(empty) == none


def test_a_pipelines_way_of_asking_is_understood(runs):
    folder, test, _ = runs
    qa, row, other = QuestionAnswering(folder/"reader"), test[0], test[1]
    pairs = [dict(question=r["question"], context=r["context"]) for r in (row, other)]
    one, two = (qa(question=p["question"], context=p["context"]) for p in pairs)
    assert qa(pairs[0]) == qa(pairs[0]["question"], pairs[0]["context"]) == one and set(one) == {"score", "start", "end", "answer"}
    both = qa(pairs)
    assert both == qa(*pairs) == qa(question=[p["question"] for p in pairs], context=(p["context"] for p in pairs))
    for together, alone in zip(both, (one, two), strict=True): assert together | dict(score=0) == alone | dict(score=0) and abs(together["score"] - alone["score"]) < 1e-5  # longer rows round otherwise
    assert [len(found) for found in qa(pairs, top_k=3)] == [3, 3]
    for options, reason in ((dict(padding=True), "padded"), (dict(topk=2), "top_k"), (dict(nonsense=1), "none of that name"), (dict(align_to_words=True), "whole tokens")):
        with pytest.raises(SettingError, match=reason): qa(pairs[0], **options)
    for inputs in ((["Who?"],), (dict(context="A."),), (3,)):
        with pytest.raises((DataError, TypeError)): qa(*inputs)
    with pytest.raises(ValueError, match="not NoneType"): qa(question="Who?")
    with pytest.raises(ValueError, match="either"): qa(pairs[0], question="Who?", context="A.")


# Models from elsewhere

def test_a_short_model_from_elsewhere_has_short_windows():
    _, tokenizer = load_reader("tiny-bert")
    model = BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=64))
    config = settings_of(model, tokenizer)
    assert (config.max_length, config.stride, config.null_threshold) == (64, 32, None)


def hub_cache(home, name, folder):
    "A model as the hub client keeps it"
    made = home/"hub"/f"models--{name.replace('/', '--')}"
    (made/"refs").mkdir(parents=True)
    (made/"refs"/"main").write_text("c0ffee")
    shutil.copytree(folder, made/"snapshots"/"c0ffee", ignore=shutil.ignore_patterns("checkpoint-*"))


def test_a_hub_name_is_answered_from_the_cache_without_a_network(runs, tmp_path):
    folder, test, _ = runs
    for track in ("reader", "writer"): hub_cache(tmp_path, f"someone/{track}", folder/track)
    row = test[0]
    code = f"""
import json, sys
from squad_nb.cli import main
from squad_nb.predictor import Predictor, track_of
row = json.loads(sys.stdin.read())
found = dict(tracks=[track_of("someone/" + name) for name in ("reader", "writer", "nobody")])
for name in ("reader", "writer"): found[name] = Predictor.from_pretrained("someone/" + name).answer(row["question"], row["context"]).text
try: Predictor.from_pretrained("someone/nobody")
except Exception as e: found["error"] = [type(e).__name__, str(e)]
print(json.dumps(found))
sys.argv = ["squad_nb", "predict", "--model", "someone/reader", "--question", row["question"], "--context", row["context"], "--json"]
main()
"""
    home = os.environ | dict(HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1", PYTHONPATH=str(root), OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(dict(row)), capture_output=True, text=True, env=home, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    found, line = map(json.loads, done.stdout.splitlines())
    assert found["tracks"] == ["extractive", "generative", ""]
    expected = {track: Predictor.from_pretrained(folder/track).answer(row["question"], row["context"]) for track in ("reader", "writer")}
    assert all(found[track] == p.text for track, p in expected.items())
    assert found["error"][0] == "ModelError" and "someone/nobody" in found["error"][1]
    assert line["text"] == expected["reader"].text


def test_nothing_in_a_model_is_run(tmp_path):
    source = tiny_model("tiny-bert")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"): shutil.copy(source/name, tmp_path)
    torch.save(load_reader("tiny-bert")[0].state_dict(), tmp_path/"pytorch_model.bin")
    with pytest.raises(ModelError, match="pickles"): Predictor.from_pretrained(tmp_path)
    shutil.copy(source/"model.safetensors", tmp_path)
    assert Predictor.from_pretrained(tmp_path).answer("Who?", "Ada wrote it.").text


def test_code_in_a_model_is_not_run_though_the_user_says_yes(tmp_path, monkeypatch):
    "transformers asks whether to run what config.json and tokenizer_config.json name, unless it is told not to"
    monkeypatch.setattr("builtins.input", lambda *question: "y")
    shutil.copytree(tiny_model("tiny-bert"), run := tmp_path/"run")
    (run/"evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path/'ran')!r}).write_text('')")
    settings = dict(track="extractive", **asdict(ExtractiveConfig()))
    for name, evil in {"config.json": dict(model_type="evil", squad_nb=settings, auto_map={"AutoConfig": "evil.Config", "AutoModelForQuestionAnswering": "evil.Model", "AutoModelForCausalLM": "evil.Model"}),
                       "tokenizer_config.json": dict(tokenizer_class="Evil", auto_map=dict(AutoTokenizer=["evil.Slow", "evil.Fast"]))}.items():
        (run/name).write_text(json.dumps(json.loads((run/name).read_text()) | evil))
    def command(*words): return lambda folder: CliRunner().invoke(app, [*words, str(folder), "--data", "sample"])
    for load in (Predictor.from_pretrained, track_of, doctor, lambda folder: outside_windows(folder, invented(1)), command("lint", "--model"), command("report")):
        try: load(run)
        except (SquadNbError, ValueError, OSError): pass  # refused; a tokenizer that is tokenizer.json alone may do
        assert not (tmp_path/"ran").exists(), load
    with pytest.raises(ModelError): Predictor.from_pretrained(run)
    assert track_of(run) == ""


# Calibration of what is there already

def test_a_temperature_that_cannot_be_saved_is_not_kept(runs, tmp_path, monkeypatch):
    shutil.copytree(runs[0]/"reader", tmp_path/"reader")
    predictor = Predictor.from_pretrained(tmp_path/"reader")
    before, config = predictor.answers.temperature, (tmp_path/"reader"/"config.json").read_bytes()
    def full(*args, **kwargs): raise OutputError("Cannot write: no space left on device")
    monkeypatch.setattr("squad_nb.predictor.write_json", full)
    with pytest.raises(OutputError): predictor.calibrate(invented(4, seed=5))
    assert predictor.answers.temperature == before and (tmp_path/"reader"/"config.json").read_bytes() == config


def test_threads_that_load_at_once_get_whole_models(runs):
    "While one thread loads, transformers leaves the weights of others untied: the output layer of tiny-gpt2 would be random"
    names = [runs[0]/"reader", runs[0]/"writer"]*3
    alone = [predictor.predict(invented(2, seed=5)) for predictor in map(Predictor.from_pretrained, names[:2])]
    with ThreadPoolExecutor(len(names)) as pool: found = [*pool.map(Predictor.from_pretrained, names)]
    assert [predictor.predict(invented(2, seed=5)) for predictor in found] == alone*3


@pytest.mark.parametrize("track", ["reader", "writer"])
def test_calibrating_changes_the_temperature_and_nothing_else(runs, tmp_path, track):
    shutil.copytree(runs[0]/track, tmp_path/track)
    files = {path: path.read_bytes() for path in sorted((tmp_path/track).iterdir()) if path.is_file()}
    assert is_finished(tmp_path/track)
    predictor, questions = Predictor.from_pretrained(tmp_path/track), invented(4, seed=5)
    before = predictor.predict(questions)
    found = predictor.calibrate(questions)
    after = Predictor.from_pretrained(tmp_path/track).predict(questions)
    assert [(p.text, p.score) for p in before] == [(p.text, p.score) for p in after] == [(p.text, p.score) for p in predictor.predict(questions)]
    assert [p.probability for p in after] == [p.probability for p in predictor.predict(questions)]
    assert {path.name for path in (tmp_path/track).iterdir() if path.is_file()} == {path.name for path in files}
    assert [path.name for path, old in files.items() if path.read_bytes() != old] == ["config.json", "run.json"] and is_finished(tmp_path/track)
    now, then = (json.loads(text) for text in ((tmp_path/track/"config.json").read_bytes(), files[tmp_path/track/"config.json"]))
    assert now["squad_nb"].pop("temperature") == found.temperature and then["squad_nb"].pop("temperature") and now == then


@pytest.mark.parametrize("track", ["reader", "writer"])
@pytest.mark.parametrize("had", [.2, 1.0, 6.5])
def test_whatever_temperature_a_model_had_the_same_questions_give_the_same(runs, tmp_path, track, had):
    shutil.copytree(runs[0]/track, tmp_path/track)
    predictor, questions = Predictor.from_pretrained(tmp_path/track), invented(2, seed=5)
    predictor.answers.warm(1.0)
    from_one = fit_temperature(predictor.predict(questions), questions)
    predictor.answers.warm(had)
    assert [predictor.calibrate(questions) for _ in range(3)] == [from_one]*3 and from_one.temperature != 1
    assert Predictor.from_pretrained(tmp_path/track).calibrate(questions) == from_one


@pytest.mark.parametrize("track", ["reader", "writer"])
def test_tuning_a_trainer_again_gives_the_same(runs, track):
    trainer, questions = runs[2][track], invented(2, seed=5)
    kept = trainer.model.config.squad_nb["temperature"]
    found = [tune_temperature(trainer, questions) for _ in range(2)]
    assert found[0] == found[1] and trainer.model.config.squad_nb["temperature"] == found[0].temperature != 1
    with pytest.raises(DataError): tune_temperature(trainer, questions.map(lambda row: dict(answers=dict(text=[], answer_start=[]))))
    assert trainer.model.config.squad_nb["temperature"] == found[0].temperature
    trainer.keep_temperature(kept)


def test_a_temperature_of_answers_held_to_the_passage_is_not_saved(runs, tmp_path):
    shutil.copytree(runs[0]/"writer", tmp_path/"writer")
    predictor, config = Predictor.from_pretrained(tmp_path/"writer", verbatim=True), (tmp_path/"writer"/"config.json").read_bytes()
    with pytest.raises(SettingError, match="held to the passage.*save=False"): predictor.calibrate(invented(2, seed=5))
    found = predictor.calibrate(invented(2, seed=5), save=False)
    assert predictor.answers.temperature == found.temperature and (tmp_path/"writer"/"config.json").read_bytes() == config


def test_a_model_from_elsewhere_keeps_its_settings_with_its_temperature(tmp_path):
    shutil.copytree(tiny_model("tiny-bert"), tmp_path/"model")
    found = Predictor.from_pretrained(tmp_path/"model", ExtractiveConfig(max_length=96, stride=16)).calibrate(invented(4))
    assert Predictor.from_pretrained(tmp_path/"model").config == ExtractiveConfig(max_length=96, stride=16, temperature=found.temperature)
    with pytest.raises(SettingError, match="save=False"): Predictor.from_pretrained("tiny-bert").calibrate(invented(1))


def test_training_again_forgets_the_temperature(runs, tmp_path):
    again = fit_reader(runs[0]/"reader", invented(2), None, tmp_path/"again", **FAST)
    assert again.settings.temperature == 1 == again.model.config.squad_nb["temperature"]
