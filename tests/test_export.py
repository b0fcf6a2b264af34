"Exported folders against the models they were made of: other architectures, processes without torch, adapters, stock transformers, and folders that lie"
import json, pickle, re, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'squad_nb[onnx]'")
from squad_nb import export, runner
from squad_nb.core import ModelError, OutputError, SettingError, read_json, write_json
from squad_nb.decoding import best_spans
from squad_nb.extractive import ExtractiveConfig, load_reader
from squad_nb.generate import generate_answers, save_settings
from squad_nb.generative import load_writer
from squad_nb.predictor import Predictor
from squad_nb.prompts import PromptConfig, prompt_features
from squad_nb.spans import top_spans
from squad_nb.squad import load_squad

root = Path(__file__).parents[1]


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def precise(folder, **options):
    "A `Predictor` in float32"
    predictor = Predictor.from_pretrained(folder, device="cpu", **options)
    predictor.half = None
    return predictor


def same(ours, theirs):
    assert [(p.id, p.text, p.start, p.end, len(p.candidates)) for p in ours] == [(p.id, p.text, p.start, p.end, len(p.candidates)) for p in theirs]
    for a, b in zip(ours, theirs): assert np.allclose([(c.score, c.probability) for c in a.candidates], [(c.score, c.probability) for c in b.candidates], atol=1e-3)


@pytest.fixture(scope="module")
def questions(): return load_squad("sample")["validation"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    "tiny-bert, which has a head that was never trained on questions, with windows that cut the sample's passages"
    folder, (model, tokenizer) = tmp_path_factory.mktemp("reader"), load_reader("tiny-bert")
    ExtractiveConfig(max_length=96, stride=32, temperature=1.5).save_in(model)
    return saved(model, tokenizer, folder/"model")


@pytest.fixture(scope="module")
def program(reader): return export.export_model(reader, reader.parent/"onnx")


def write_model(folder, mask_mode="causal", model=None, **settings):
    "A language model that is not trained to answer, with settings to ask it by"
    small, tokenizer = load_writer("tiny-gpt2")
    save_settings(model or small, PromptConfig(**dict(max_answer_length=10) | settings), mask_mode)
    return saved(model or small, tokenizer, folder)


def test_the_sample_is_answered_alike(reader, program, questions):
    some = questions.select(range(0, len(questions), 2))
    same(runner.OnnxReader(program.folder, threads=1).predict(some), precise(reader).predict(some))


def test_no_answer_is_said_alike(reader, program, questions, tmp_path):
    some, folder, how = questions.select(range(0, len(questions), 7)), shutil.copytree(program.folder, tmp_path/"v2"), ExtractiveConfig(96, 32, null_threshold=0., temperature=1.5)
    score = lambda p, empty: next(c.score for c in p.candidates if (c.text == "") == empty)
    threshold = float(np.median([score(p, True) - score(p, False) for p in precise(reader, config=how).predict(some)]))
    config = read_json(folder/"config.json")
    write_json(folder/"config.json", config | dict(squad_nb=config["squad_nb"] | dict(null_threshold=threshold + 1e-3)))
    said = runner.OnnxReader(folder, threads=1).predict(some)
    assert {p.text == "" for p in said} == {True, False}
    same(said, precise(reader, config=replace(how, null_threshold=threshold + 1e-3)).predict(some))


def test_passages_of_many_windows_and_odd_texts(reader, program, questions):
    texts = [" ".join(questions.unique("context")[:30]), "", "🙂", "Kraków’s “naïve” 19th-century cafés \n\n and 東京 🙂. "*9, "a"*3000]
    rows = [dict(id=str(i), question=" Who  was it? ", context=text) for i, text in enumerate(texts)]
    ours, theirs = runner.OnnxReader(program.folder, threads=1), precise(reader)
    for row in rows: same([ours.answer(row["question"], row["context"])], [theirs.answer(row["question"], row["context"])])
    with ThreadPoolExecutor(4) as pool: assert list(pool.map(lambda row: ours.answer(row["question"], row["context"]).text, rows*3)) == [p.text for p in ours.predict(rows)]*3


ARCHITECTURES = dict(
    distilbert=("DistilBertConfig", dict(dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
    roberta=("RobertaConfig", dict(type_vocab_size=1)),
    modernbert=("ModernBertConfig", dict(num_hidden_layers=3, global_attn_every_n_layers=3, local_attention=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures(name, tmp_path):
    import transformers
    kind, more = ARCHITECTURES[name]
    shape = {} if name == "distilbert" else dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    torch.manual_seed(0)
    model = transformers.AutoModelForQuestionAnswering.from_config(getattr(transformers, kind)(**dict(vocab_size=300, max_position_embeddings=130) | shape | more)).eval()
    for weight in model.parameters(): weight.data.normal_(0, .3) if weight.ndim > 1 else None
    names = ["input_ids", "attention_mask"]
    export.span_program(model, names).save(tmp_path/"model.onnx")
    assert 0 < export.span_difference(runner.open_program(tmp_path/"model.onnx", 1), model, names, longest=120) < export.TOLERANCE


class Spoiled:
    "A program that gives no number in one place of its last call"
    def __init__(self, program, calls, output, place): self.program, self.left, self.output, self.place = program, calls, output, place

    def run(self, names, inputs):
        out, self.left = self.program.run(names, inputs), self.left - 1
        if not self.left: out[self.output][self.place] = np.nan
        return out


def test_what_is_no_number_differs(program, reader, tmp_path):
    "From any call and any output; what stands on padding may be anything"
    (model, _), names, ours = load_reader(reader), ["input_ids", "attention_mask", "token_type_ids"], runner.open_program(program.folder/"model.onnx", 1)
    for calls in (1, 2, 3, 4):
        for output in (0, 1): assert np.isnan(found := export.span_difference(Spoiled(ours, calls, output, (0, 0)), model, names, longest=96))
    with pytest.raises(ModelError, match="by nan of the largest"): export.check_difference(found)
    assert export.span_difference(Spoiled(ours, 4, 0, (slice(1, None), -1)), model, names, longest=96) < export.TOLERANCE
    writer, _ = load_writer(write_model(tmp_path/"model"))
    export.writer_program(writer).save(tmp_path/"model.onnx")
    theirs = runner.open_program(tmp_path/"model.onnx", 1)
    for calls, output in ((1, 0), (4, 0), (4, 3), (7, 0), (7, -1)): assert np.isnan(export.writer_difference(Spoiled(theirs, calls, output, (0, -1)), writer, positions=512))


BLOCKED = """
import sys
class Without:
    "A finder that does not know some packages"
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None): return None if name.partition(".")[0] in {blocked!r} else self.finder.find_spec(name, path, target)
sys.meta_path = [*map(Without, sys.meta_path)]
"""


def without(blocked, code, *words):
    "Run code in a process in which some packages cannot be imported"
    done = subprocess.run([sys.executable, "-c", BLOCKED.format(blocked=blocked) + code, *map(str, words)], capture_output=True, text=True, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


ASK = """
import json
from squad_nb.runner import load_export
rows = json.load(open(sys.argv[2]))
said = load_export(sys.argv[1], threads=1).predict(rows)
print(json.dumps(dict(said=[(p.id, p.text, p.start, p.end) for p in said], loaded=sorted({name.partition('.')[0] for name in sys.modules}))))
"""
HEAVY = ["torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "evaluate", "typer"]


def test_a_reader_needs_three_packages(reader, program, questions, tmp_path):
    some = questions.select(range(0, len(questions), 9))
    rows = write_json(tmp_path/"rows.json", [dict(id=r["id"], question=r["question"], context=r["context"]) for r in some])
    said = json.loads(without(HEAVY[:4] + ["datasets", "pyarrow", "pandas", "evaluate", "typer", "huggingface_hub"], ASK, program.folder, rows))
    assert [tuple(x) for x in said["said"]] == [(p.id, p.text, p.start, p.end) for p in precise(reader).predict(some)]
    assert {"numpy", "tokenizers", "onnxruntime"} <= set(said["loaded"])


def test_the_readme_of_a_program_runs_without_torch(program):
    readme = (program.folder/"README.md").read_text()
    code = re.search(r"~~~python\n(.*?)~~~", readme, flags=re.S)[1].replace("FOLDER", str(program.folder))
    assert without(HEAVY[:6] + ["datasets", "pyarrow", "pandas", "typer"], code).strip() in "It was written by Ada."
    assert str(program.folder) not in readme and "/" + program.folder.parts[1] + "/" not in (program.folder/"config.json").read_text()


def test_missing_packages_are_named(program, tmp_path):
    code = "from squad_nb.runner import load_export\nfrom squad_nb.core import SettingError\ntry: load_export(sys.argv[1])\nexcept SettingError as e: print(e)"
    assert "pip install 'squad_nb[onnx]'" in without(["onnxruntime"], code, program.folder)
    code = "import transformers\nfrom squad_nb.export import export_model\nfrom squad_nb.core import SettingError\ntry: export_model(sys.argv[1], sys.argv[2])\nexcept SettingError as e: print(e)"
    assert "onnxscript" in without(["onnxscript"], code, program.folder.parent/"model", tmp_path/"new") and not (tmp_path/"new").exists()


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(1)
    vocabulary = len(load_writer("tiny-gpt2")[1])
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=512, initializer_range=.4,
                                        bos_token_id=0, eos_token_id=0, tie_word_embeddings=False)).eval()


WRITERS = dict(Qwen2=dict(num_key_value_heads=2), GPTNeoX=dict(rotary_pct=.25))  # GPT-2 and Llama are exported whole below


@pytest.mark.parametrize("name", WRITERS)
def test_other_architectures_that_write(name, tmp_path):
    import transformers
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=130, initializer_range=.3, **WRITERS[name])).eval()
    export.writer_program(model).save(tmp_path/"model.onnx")
    assert 0 < export.writer_difference(runner.open_program(tmp_path/"model.onnx", 1), model, positions=130) < export.TOLERANCE


def test_a_memory_that_forgets_is_refused():
    from transformers import MistralConfig, MistralForCausalLM
    model = MistralForCausalLM(MistralConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64, sliding_window=16))
    with pytest.raises(ModelError, match="does not keep the keys and values of all tokens"): export.writer_program(model)


def test_a_writer_without_torch_writes_the_same(questions, tmp_path):
    some = questions.select(range(0, len(questions), 60))
    folder = write_model(tmp_path/"model", "prefix", llama(), layout="question_first", max_context_length=48, stride=16)
    made = export.export_model(folder, tmp_path/"onnx")
    rows = write_json(tmp_path/"rows.json", [dict(id=r["id"], question=r["question"], context=r["context"]) for r in some])
    said, answers = json.loads(without(HEAVY[:4], ASK, made.folder, rows))["said"], generate_answers(*load_writer(folder), some)
    assert [tuple(x) for x in said] == [(p.id, p.text, p.start, p.end) for p in answers] and any(len(p.candidates) > 1 for p in answers)
    same(runner.OnnxWriter(made.folder, threads=1, batch_size=5).predict(some), answers)


def readme_code(folder):
    "What README.md of weights tells one to run, without its question"
    return re.search(r"~~~python\n(.*?)~~~", (folder/"README.md").read_text(), flags=re.S)[1].replace("FOLDER", str(folder)).rpartition("print(")[0]


@pytest.mark.parametrize("layout", ["question_first", "context_first"])
def test_stock_generate_writes_token_for_token(layout, questions, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    some = questions.select(range(0, len(questions), 60))
    folder = export.export_model(write_model(tmp_path/"model", layout=layout), tmp_path/"weights", "safetensors").folder
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    answers = generate_answers(*load_writer(tmp_path/"model"), some, share_context=False)
    stock = {}
    exec(readme_code(folder), stock)
    prompts = prompt_features(some, tokenizer, PromptConfig(layout=layout, max_answer_length=10), labels=False)
    for row, prompt, answer, written in zip(some, prompts["input_ids"], answers, answers.written, strict=True):
        assert sum(stock["prompt"](row["question"], row["context"]), []) == prompt
        ids = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long))[0, len(prompt):].tolist()
        assert ids == written.tokens + [tokenizer.eos_token_id]*written.stopped
        assert stock["answer"](row["question"], row["context"]) == answer.text


def test_generation_settings_of_the_base_are_left_behind(questions, tmp_path):
    "A chat model's: they would punish what a prompt holds, which is where answers are, and cannot be saved once nothing is drawn at random"
    from transformers import GenerationConfig
    some, folder, stock = questions.select(range(0, len(questions), 60)), write_model(tmp_path/"model"), {}
    GenerationConfig(do_sample=True, temperature=.3, top_p=.8, top_k=20, repetition_penalty=5., bos_token_id=1, eos_token_id=[0, 3]).save_pretrained(folder)
    made = export.export_model(folder, tmp_path/"weights", "safetensors").folder
    end = load_writer(folder)[1].eos_token_id
    said = {k: v for k, v in read_json(made/"generation_config.json").items() if k not in ("transformers_version", "_from_model_config")}
    assert said == dict(do_sample=False, max_new_tokens=10, bos_token_id=1, eos_token_id=end, pad_token_id=end)
    exec(readme_code(made), stock)
    assert [stock["answer"](row["question"], row["context"]) for row in some] == [p.text for p in generate_answers(*load_writer(folder), some, share_context=False)]


def test_both_sides_are_scored_in_float32(questions, tmp_path, monkeypatch):
    "Also where a `Predictor` would choose half precision"
    from squad_nb import predictor
    seen = []
    def watched(model, *args, **options):
        seen.append(torch.is_autocast_enabled(model.device.type))
        return generate_answers(model, *args, **options)
    monkeypatch.setattr(predictor, "best_precision", lambda *args: "bf16")
    monkeypatch.setattr(predictor, "generate_answers", watched)
    some, folder = questions.select(range(2)), write_model(tmp_path/"model")
    Predictor.from_pretrained(folder).predict(some)
    made = export.export_model(folder, tmp_path/"weights", "safetensors", some)
    assert seen == [True, False, False] and made.scores["different"] == 0


def test_an_export_replaces_one_of_another_format(tmp_path):
    "Nothing of the other stays, be it in shards, and what is no export's does"
    model, folder, program, notes = write_model(tmp_path/"model"), tmp_path/"export", {"README.md", "config.json", "model.onnx", "tokenizer.json"}, {"notes.txt"}
    weights = {path.name for path in export.export_model(model, folder, "safetensors").folder.iterdir()}
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"): shutil.copy(folder/"config.json", folder/name)
    export.export_model(model, folder, "onnx", force=True)
    assert {path.name for path in folder.iterdir()} == program | notes and runner.load_export(folder)
    with pytest.raises(ModelError, match="answers without torch"): Predictor.from_pretrained(folder)
    (folder/"model.onnx.data").touch()
    export.export_model(model, folder, "safetensors", force=True)
    assert {path.name for path in folder.iterdir()} == weights | notes and Predictor.from_pretrained(folder)
    with pytest.raises(ModelError): runner.load_export(folder)


@pytest.mark.parametrize("name", ["run.json", "adapter_config.json"])
def test_a_run_is_not_replaced(name, tmp_path):
    model, run = write_model(tmp_path/"model"), write_model(tmp_path/"run")
    (run/name).write_text("{}")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(OutputError, match=f"holds {name}, so a training made it"): export.export_model(model, run, "safetensors", force=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def adapter(folder):
    "tiny-gpt2 with an adapter, as a run leaves it"
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    base, config = write_model(folder/"base"), PromptConfig(max_answer_length=10)
    model, tokenizer = load_writer(base)
    torch.manual_seed(0)
    lora = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True, r=4, init_lora_weights=False)).eval()
    write_json(folder/"run"/"run.json", dict(track="generative", settings=model.config.squad_nb))
    return lora, tokenizer, saved(lora, tokenizer, folder/"run")


def test_an_adapter_is_merged(tmp_path, questions):
    from transformers import AutoModelForCausalLM
    lora, tokenizer, run = adapter(tmp_path)
    made = export.export_model(run, tmp_path/"merged", "safetensors", questions.select(range(4)))
    assert not list(made.folder.glob("adapter*")) and made.scores["different"] == 0 and 0 < made.difference < 1e-5
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        merged, plain = (AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=ids).logits for folder in (made.folder, tmp_path/"base"))
        adapted = lora(input_ids=ids).logits
    assert torch.allclose(merged, adapted, atol=1e-4) and not torch.allclose(merged, plain, atol=1e-1)
    same(precise(made.folder).predict(questions.select(range(4))), generate_answers(lora, tokenizer, questions.select(range(4))))


@pytest.mark.parametrize("said", [dict(peft_type="LORA"), dict(base_model_name_or_path=None), dict(base_model_name_or_path=["base"]), []])
def test_an_adapter_without_a_base_says_so(said, tmp_path):
    _, _, run = adapter(tmp_path)
    write_json(run/"adapter_config.json", said)
    with pytest.raises(ModelError, match="does not name the model that the adapter changes"): export.export_model(run, tmp_path/"new", "safetensors")
    assert not (tmp_path/"new").exists()


class Bomb:
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return Path.touch, (self.mark,)


def test_nothing_is_unpickled(tmp_path, reader, questions):
    mark, _ = tmp_path/"ran", adapter(tmp_path)
    (tmp_path/"run"/"adapter_model.safetensors").unlink()
    bare = shutil.copytree(reader, tmp_path/"bare")
    (bare/"model.safetensors").unlink()
    for place in (tmp_path/"run"/"adapter_model.bin", bare/"pytorch_model.bin"): place.write_bytes(pickle.dumps(Bomb(mark)))
    for folder, kind in ((tmp_path/"run", "safetensors"), (bare, "onnx")):
        with pytest.raises(ModelError): export.export_model(folder, tmp_path/"new", kind)
    assert not mark.exists() and not (tmp_path/"new").exists()


def test_a_program_reads_nothing_outside_its_folder(tmp_path):
    import onnx
    from onnx import TensorProto, helper
    (tmp_path/"secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path/"folder").mkdir()
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])], [tensor])
    (tmp_path/"folder"/"model.onnx").write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString())
    with pytest.raises(ModelError): runner.open_program(tmp_path/"folder"/"model.onnx")


def test_damaged_folders_say_so(program, tmp_path):
    for name, damage, words in (("model.onnx", lambda p: p.write_bytes(p.read_bytes()[:5000]), "cannot load"), ("tokenizer.json", lambda p: p.write_text("{}"), "no tokenizer"),
                                ("config.json", lambda p: p.write_text("{}"), "export the model again"), ("model.onnx", Path.unlink, "no model.onnx")):
        folder = shutil.copytree(program.folder, tmp_path/f"{name}-{words[:4]}")
        damage(folder/name)
        with pytest.raises(ModelError, match=words): runner.load_export(folder)


def test_a_window_longer_than_the_model_is_refused(reader, tmp_path):
    folder = shutil.copytree(reader, tmp_path/"long")
    config = read_json(folder/"config.json")
    write_json(folder/"config.json", config | dict(squad_nb=config["squad_nb"] | dict(max_length=600)))
    with pytest.raises((SettingError, ModelError), match="512 positions"): export.export_model(folder, tmp_path/"new")
    assert not (tmp_path/"new").exists()


@pytest.mark.parametrize("scale", [None, 1e-7, 1., 1e4, 1e30])
def test_the_search_in_numpy_is_the_search_in_torch(scale):
    "None: whole numbers, with many ties"
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = rng.integers(1, 60 if scale else 18)
        start, end = (rng.normal(0, 1, (2, 8, n))*scale if scale else rng.integers(-2, 3, (2, 8, n))).astype(np.float32)
        inside = rng.random((8, n)) < .9
        if rng.random() < .3: start[rng.random((8, n)) < .2], end[rng.random((8, n)) < .1] = -np.inf, np.inf
        k, longest = rng.integers(1, 9), rng.integers(1, 13)
        fast, plain = top_spans(*map(torch.from_numpy, (start, end, inside)), k, longest), best_spans(start, end, inside, k, longest)
        for name in ("scores", "starts", "ends", "null_scores"): assert np.array_equal(getattr(fast, name).numpy(), getattr(plain, name)), name
        if scale == 1.: assert np.allclose(fast.log_sums, plain.log_sums, atol=1e-4)


def test_the_readme_says_what_a_card_says(questions, tmp_path):
    "Data, recipe, scores with intervals and kinds of error, of a run; nothing of this machine"
    from squad_nb.publish import card_scores
    some, model = questions.select(range(12)), write_model(tmp_path/"model")
    write_json(model/"run.json", dict(track="generative", model=str(tmp_path/"bases"/"small"), questions=1234, settings=dict(question="Q|A: {}", cue="\nanswer:", layout=None), training=dict(learning_rate=1e-4, seed=3), scores=dict(exact_match=25., f1=50., total=8)))
    made = export.export_model(model, tmp_path/"weights", "safetensors", some)
    readme, scores = (made.folder/"README.md").read_text(), made.scores
    for said in ("Trained on 1,234 questions. The model it began as: small. When it was trained, it answered 8 questions with an EM of 25.00 and an F1 of 50.00.", "| question | Q\\|A: {} |", "| cue | answer: |", "| learning_rate | 0.0001 |", "| seed | 3 |"): assert said in readme
    assert str(tmp_path) not in readme and "layout |" not in readme
    write_json(tmp_path/"predictions.json", {p.id: p.text for p in precise(model).predict(some)})
    table, kinds = card_scores(tmp_path, some)
    assert scores["kinds"] == kinds and [(row["percent"], row["interval"]) for row in table] == [(f"{scores['exported'][name]:.2f}", "{:.1f} to {:.1f}".format(*scores["intervals"][name])) for name in ("exact_match", "f1")]
    assert all(row["interval"] in readme for row in table) and all(f"| {kind} | {n} |" in readme for kind, n in kinds.items()) and json.dumps(made.to_dict())


def test_an_export_is_published_with_its_readme(program, questions, tmp_path):
    from squad_nb.publish import fetch, publish
    publish(program.folder, tmp_path/"model.zip", progress=False)
    fetch(str(tmp_path/"model.zip"), tmp_path/"back", progress=False)
    assert all((tmp_path/"back"/name).read_bytes() == (program.folder/name).read_bytes() for name in ("README.md", "model.onnx", "config.json", "tokenizer.json"))
    row = questions[0]
    assert runner.load_export(tmp_path/"back").answer(row["question"], row["context"]) == runner.load_export(program.folder).answer(row["question"], row["context"])
