"""Whatever is read may be broken, and whatever is written to may be full or closed: every such fault is one sentence that names the file.

Archives and buckets have such tests in test_publish.py, runs and their checkpoints in those of runs. A file is broken in drawn places:
either what is left can be used, or a `SquadNbError` names it; there is no third way."""
import copy, gzip, io, json, math, os, re, resource, shutil, subprocess, sys, tempfile, warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given, strategies as st
from transformers import AutoTokenizer, Trainer
from typer.testing import CliRunner

from conftest import cases
from squad_nb.cli import app
from squad_nb.core import OutputError, SquadNbError, read_json, whole_file, write_json
from squad_nb.metrics import read_predictions, squad_metrics
from squad_nb.sample import generate_squad, tiny_model
from squad_nb.squad import from_squad_json, is_v2, lint_squad, load_squad, to_squad_json

WORLD = generate_squad(2, unanswerable=.3)


def one_line(error, name):
    "A message that a person can use"
    assert isinstance(error, SquadNbError) and name in str(error) and 20 < len(str(error)) < 700 and "\n" not in str(error), repr(error)


def either(load, path):
    "What a file gives, or None where it was refused as it should be"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: return load(path)
        except SquadNbError as e: one_line(e, path.name)


# How files break

@st.composite
def broken(draw, content):
    "Bytes cut off, turned, taken out, put in or written in another encoding"
    content, at = bytes(content), draw(st.integers(0, len(content)))
    return draw(st.sampled_from([content[:at], content[at:], content[:at] + content[at + draw(st.integers(1, 40)):], content[:at] + draw(st.binary(min_size=1, max_size=4)) + content[at + draw(st.integers(0, 4)):],
                                 content + content[:at], content[:at] + b"\0"*draw(st.integers(1, 99)), b"\xef\xbb\xbf" + content, gzip.compress(content, mtime=0), content[:at] + b"["*5000, content[:at] + b"\xed\xa0\x80" + content[at:]]))


JUNK = st.sampled_from([None, True, False, 0, -1, 1, 2**40, 10**30, 1.5, math.nan, math.inf, "", "x", "0", "\ud800", "../../x", [], [None], [[]], {}, {"": None}, {"track": "extractive"}])


def places(value, path=()):
    "Every place in JSON"
    yield path
    for key, inner in (value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()): yield from places(inner, (*path, key))


@st.composite
def mistaken(draw, data):
    "JSON of which something is of another kind, gone, or there twice"
    data = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(sorted(places(data), key=len)))
        if not path:
            data = draw(st.sampled_from([data, data, [data], {"data": data}])) if draw(st.booleans()) else copy.deepcopy(draw(JUNK))
            continue
        owner = data
        for key in path[:-1]: owner = owner[key]
        kind = draw(st.integers(0, 3))
        if kind == 0: del owner[path[-1]]
        elif kind == 1 and isinstance(owner, list): owner.append(copy.deepcopy(owner[path[-1]]))
        elif kind == 2 and isinstance(owner, dict): owner[str(path[-1]) + "x"] = owner.pop(path[-1])
        else: owner[path[-1]] = copy.deepcopy(draw(JUNK))
    return json.dumps(data).encode()


def spoiled(data):
    "A JSON file in which anything may be wrong"
    content = json.dumps(data, indent=1).encode()
    return st.one_of(mistaken(data), broken(content))


# Questions and answers

def use_questions(path):
    "What the commands do with questions"
    data = load_squad(path)
    assert isinstance(data, Dataset) and len(data)
    lint_squad(data), is_v2(data), to_squad_json(data), repr(data[0])
    return data


@cases(300)
@given(spoiled(WORLD))
def test_questions(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp()/"questions.json"
    path.write_bytes(content)
    either(use_questions, path)


@cases(200)
@given(spoiled({f"train-0-{i}-{j}": "Elbe" for i in range(2) for j in range(3)}))
def test_answers(tmp_path_factory, content):
    path, dataset = tmp_path_factory.getbasetemp()/"answers.json", from_squad_json(WORLD)
    path.write_bytes(content)
    said = either(read_predictions, path)
    if said is None: return
    from squad_nb.evaluation import compare, question_table
    question_table({k: v for k, v in said.items() if k in dataset["id"]}, dataset).to_csv(path.with_suffix(".csv"))
    figures = squad_metrics(said, dataset, allow_unknown=True)
    assert 0 <= figures["f1"] <= 100


# Models

@pytest.fixture(scope="module")
def models(tmp_path_factory):
    "A tiny model of each track, as training leaves it"
    from squad_nb.extractive import ExtractiveConfig, load_reader
    from squad_nb.generate import save_settings
    from squad_nb.generative import load_writer
    from squad_nb.prompts import PromptConfig
    folder = tmp_path_factory.mktemp("models")
    for name, (model, tok) in dict(reader=load_reader("tiny-bert"), writer=load_writer("tiny-gpt2")).items():
        if name == "reader": ExtractiveConfig(max_length=96, stride=16).save_in(model)
        else: save_settings(model, PromptConfig(max_context_length=64, stride=16, max_answer_length=4), "prefix")
        tok.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
        model.save_pretrained(folder/name)
        model.save_pretrained(folder/f"{name}-in-shards", max_shard_size="100KB")
        for place in (folder/name, folder/f"{name}-in-shards"):
            tok.save_pretrained(place)
            write_json(place/"special_tokens_map.json", {kind: str(token) for kind, token in tok.special_tokens_map.items()})  # as older ones were saved
            write_json(place/"added_tokens.json", tok.get_added_vocab())
    return folder


def ask(folder):
    "What a model folder answers"
    from squad_nb.predictor import Predictor
    answer = Predictor.from_pretrained(folder, device="cpu").answer("Where does the Elbe rise?", "The Elbe rises in the Giant Mountains.")
    assert isinstance(answer.text, str)
    return answer.text


def spoil(folder, name, content, place):
    "A copy of a model of which one file has other content"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in folder.iterdir():
        if path.name != name: (place/path.name).symlink_to(path)
    (place/name).write_bytes(content)
    return place


@pytest.mark.parametrize("track", ["reader", "writer"])
def test_settings_of_a_model(models, tmp_path, track):
    config = read_json(models/track/"config.json")
    ask(models/track)
    @cases(40)
    @given(st.one_of(spoiled(config), mistaken(config["squad_nb"]).map(lambda content: json.dumps(config | dict(squad_nb=json.loads(content))).encode())))
    def broken_config(content): either(ask, spoil(models/track, "config.json", content, tmp_path/"spoiled"))
    broken_config()


def damaged(path):
    "A file in which anything may be wrong"
    good = path.read_bytes()
    if path.suffix == ".json": return spoiled(json.loads(good))
    return broken(good) | broken(good[:2000]).map(lambda head: head + good[2000:])


@pytest.mark.parametrize("track", ["reader", "writer"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "generation_config.json"])
def test_files_of_a_model(models, tmp_path, track, name):
    if track == "reader" and name == "generation_config.json": return  # it generates nothing
    @cases(25)
    @given(damaged(models/track/name))
    def broken_file(content): either(ask, spoil(models/track, name, content, tmp_path/"spoiled"))
    broken_file()


@pytest.mark.parametrize("track", ["reader", "writer"])
def test_a_model_in_shards(models, tmp_path, track):
    "It is loaded and published; of several files any is broken"
    from squad_nb.publish import model_files, publish
    folder = models/f"{track}-in-shards"
    publish(folder, tmp_path/"sent")
    assert len([*folder.glob("model-*.safetensors")]) > 1 and ask(folder) == ask(tmp_path/"sent") == ask(models/track)
    names = ["model.safetensors.index.json", *sorted(path.name for path in folder.glob("model-*.safetensors"))]
    index = [json.dumps(data).encode() for data in ([], 7, {"weight_map": 3}, {"weight_map": {"a": [1]}}, {"weight_map": {}}, {"weight_map": {"a": "none.safetensors"}})]
    @cases(40)
    @given(st.data())
    def broken_file(data):
        name = data.draw(st.sampled_from([*names[:1]*3, *names]))
        place = spoil(folder, name, data.draw(damaged(folder/name) | st.sampled_from(index) if name == names[0] else damaged(folder/name)), tmp_path/"spoiled")
        either(ask, place), either(model_files_of, place)
    def model_files_of(place):
        for path in place.iterdir():  # a link that leads elsewhere is not sent
            if path.is_symlink(): shutil.copy(path.resolve(), (path.unlink(), path)[1])
        return model_files(place)
    broken_file()


@pytest.mark.parametrize("track", ["reader", "writer"])
def test_an_exported_model(models, tmp_path, track):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'squad_nb[onnx]'")
    from squad_nb.export import export_model
    from squad_nb.runner import load_export
    folder = export_model(models/track, tmp_path/"export").folder
    def ask_it(place): assert isinstance(load_export(place, threads=1).answer("Where does the Elbe rise?", "The Elbe rises in the Giant Mountains.").text, str)
    ask_it(folder)
    names = sorted(path.name for path in folder.iterdir())
    @cases(80)
    @given(st.data())
    def broken_file(data):
        name = data.draw(st.sampled_from([*names, "config.json", "config.json"]))
        either(ask_it, spoil(folder, name, data.draw(damaged(folder/name)), tmp_path/"spoiled"))
    broken_file()


def test_an_adapter(models, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    from squad_nb.export import load_merged
    from squad_nb.generative import load_writer
    model, tok = load_writer(models/"writer")
    settings = model.config.squad_nb
    lora = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True, r=2))
    lora.save_pretrained(tmp_path/"adapter")
    tok.save_pretrained(tmp_path/"adapter")
    write_json(tmp_path/"adapter"/"run.json", dict(settings=settings))
    load_merged(tmp_path/"adapter")
    @cases(50)
    @given(st.data())
    def broken_file(data):
        name = data.draw(st.sampled_from(["adapter_config.json", "adapter_config.json", "adapter_model.safetensors", "run.json"]))
        either(load_merged, spoil(tmp_path/"adapter", name, data.draw(damaged(tmp_path/"adapter"/name)), tmp_path/"spoiled"))
    broken_file()


def test_a_gguf_file(smollm2_file, tmp_path):
    "Its beginning, in which everything is described, broken or not: the weights behind it are gone"
    from squad_nb.generative import load_writer
    with smollm2_file.open("rb") as file: head = file.read(5_000)
    (tmp_path/"model").mkdir()
    @cases(20)
    @given(broken(head) | st.just(head))
    def broken_file(content):
        (tmp_path/"model"/"model.gguf").write_bytes(content)
        assert either(load_writer, tmp_path/"model") is None
    broken_file()


# What runs and features leave on the disk

RUN = dict(track="extractive", model="tiny-bert", questions=60, settings=dict(track="extractive", max_length=384), training=dict(seed=0), scores=dict(loss=1.5, exact_match=50.0, f1=61.5, total=24),
           history=[dict(eval_loss=1.5, eval_exact_match=40.0, eval_f1=50.5, eval_total=24, epoch=1.0, step=4), dict(eval_loss=1.2, eval_exact_match=50.0, eval_f1=61.5, eval_total=24, epoch=2.0, step=8)])


@cases(200)
@given(spoiled(RUN))
def test_the_record_of_a_run(tmp_path_factory, content):
    from squad_nb.report import report_run
    folder = tmp_path_factory.getbasetemp()/"recorded"
    folder.mkdir(exist_ok=True)
    (folder/"run.json").write_bytes(content)
    page = either(lambda path: report_run(path.parent), folder/"run.json")
    if page: str(page.view), json.dumps(page.to_dict())
    from squad_nb.publish import model_card
    from squad_nb.runs import acknowledge
    either(lambda path: model_card(path.parent), folder/"run.json")
    write_json(folder/"config.json", {})
    either(lambda path: acknowledge(path.parent, "config.json"), folder/"run.json")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    from squad_nb.batching import write_features
    from squad_nb.prompts import prompt_features
    tok = AutoTokenizer.from_pretrained(tiny_model("tiny-gpt2"))
    return tok, write_features(prompt_features(from_squad_json(WORLD), tok), tmp_path_factory.mktemp("features")/"rows", tok, shards=2)


def test_features_on_the_disk(features, tmp_path):
    from squad_nb.batching import read_features
    tok, folder = features
    names = sorted(path.name for path in folder.iterdir())
    @cases(150)
    @given(st.data())
    def broken_features(data):
        name = data.draw(st.sampled_from(names))
        good = (folder/name).read_bytes()
        content = data.draw(spoiled(json.loads(good)) if name.endswith("json") else broken(good))
        place = spoil(folder, name, content, tmp_path/"spoiled")
        rows = either(lambda path: read_features(path, tok), place)
        if rows is not None: assert rows[:] == read_features(folder, tok)[:]
    broken_features()


def test_questions_in_a_folder(tmp_path):
    "What `Dataset.save_to_disk` wrote, and a disk has changed"
    good = from_squad_json(WORLD)
    good.save_to_disk(str(tmp_path/"good"))
    names = sorted(path.name for path in (tmp_path/"good").iterdir())
    @cases(150)
    @given(st.data())
    def broken_folder(data):
        name = data.draw(st.sampled_from(names))
        content = (tmp_path/"good"/name).read_bytes()
        spoil(tmp_path/"good", name, data.draw(spoiled(json.loads(content)) if name.endswith("json") else broken(content)), tmp_path/"spoiled")
        either(use_questions, tmp_path/"spoiled")
    broken_folder()


# Places that are full, closed or something else

def write_page(path, home=None):
    from squad_nb.views import View, tag
    View("text", "A page", tag("div", "words " * 20_000)).save(path)


def write_table(path, home):
    from squad_nb.cli import evaluate
    evaluate.__wrapped__(home/"answers.json", str(home/"world.json"), path, force=True)


def write_differences(path, home):
    from squad_nb.cli import compare
    compare.__wrapped__(home/"answers.json", home/"others.json", str(home/"world.json"), path, draws=1, force=True)


def write_repaired(path, home):
    from squad_nb.cli import lint
    lint.__wrapped__(str(home/"world.json"), fix=path, force=True)


def write_answers(path, home):
    from squad_nb.cli import predict
    predict.__wrapped__(str(home/"reader"), str(home/"world.json"), path, force=True)


def write_plot(path, home=None):
    from matplotlib.figure import Figure
    with whole_file(path) as part: Figure().savefig(part)


def write_rows(folder, home):
    from squad_nb.batching import write_features
    from squad_nb.prompts import prompt_features
    tok = AutoTokenizer.from_pretrained(tiny_model("tiny-gpt2"))
    write_features(prompt_features(from_squad_json(WORLD), tok), folder, tok, force=True)


WRITERS = {"data.json": lambda path, home=None: write_json(path, to_squad_json(from_squad_json(WORLD))), "page.html": write_page, "table.csv": write_table, "plot.png": write_plot, "features": write_rows,
           "differences.csv": write_differences, "repaired.json": write_repaired, "predicted.json": write_answers}
each_writer = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture
def out(tmp_path, models):
    "A folder to write to, beside what is written about"
    shutil.copytree(models/"reader", tmp_path/"reader")
    write_json(tmp_path/"world.json", WORLD)
    write_json(tmp_path/"answers.json", {id: "Elbe " * 200 for id in from_squad_json(WORLD)["id"]})
    write_json(tmp_path/"others.json", {row["id"]: row["answers"]["text"][0] if row["answers"]["text"] else "" for row in from_squad_json(WORLD)})
    (tmp_path/"out").mkdir()
    return tmp_path/"out"


def everything(folder): return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def full(room):
    "A disk on which no file can grow beyond so many bytes: the system refuses the rest of a write, as when there is no space"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # Python ignores the signal that comes with it
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()): yield  # which pytest keeps in files
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 300])
@each_writer
def test_a_full_disk_leaves_what_was_there(out, name, room):
    for old in (False, True):
        if old: WRITERS[name](out/name, out.parent)
        before = everything(out)
        with full(room), pytest.raises(OutputError) as caught: WRITERS[name](out/name, out.parent)
        one_line(caught.value, name)
        assert everything(out) == before and bool(before) == old
    WRITERS[name](out/name, out.parent)
    assert everything(out).keys() == before.keys()


@contextmanager
def somebody():
    "Someone who may not write everywhere, as root may"
    if os.geteuid(): yield; return
    os.seteuid(65534)
    try: yield
    finally: os.seteuid(0)


@pytest.fixture
def closed(out):
    "A folder that can be looked into, and not written to"
    folder = Path(tempfile.mkdtemp())
    for path in out.parent.glob("*.json"): shutil.copy(path, folder)
    shutil.copytree(out.parent/"reader", folder/"reader")
    for path in (folder/"reader").iterdir(): path.chmod(0o444)  # weights are saved for their owner alone
    (folder/"out").mkdir()
    for path in (folder, folder/"out", folder/"reader"): path.chmod(0o555)
    yield folder/"out"
    for path in (folder, folder/"out", folder/"reader"): path.chmod(0o755)
    shutil.rmtree(folder)


@each_writer
def test_a_closed_folder_is_named(out, closed, name):
    WRITERS[name](out/name, out.parent)  # imports what it needs
    for place in (closed/name, closed/"new"/"folder"/name, closed.parent/"world.json"/"out"/name):
        before = everything(closed.parent)
        with somebody(), pytest.raises(OutputError) as caught: WRITERS[name](place, closed.parent)
        one_line(caught.value, name)
        assert everything(closed.parent) == before


def test_the_temperature_that_cannot_be_saved(out, closed):
    "config.json stays what it was, on a full disk and in a closed folder"
    from squad_nb.predictor import Predictor
    for place, fault in ((out.parent/"reader", full(700)), (closed.parent/"reader", somebody())):
        predictor, before = Predictor.from_pretrained(place, device="cpu"), everything(place)
        questions = from_squad_json(WORLD)
        with fault, pytest.raises(OutputError) as caught: predictor.calibrate(questions)
        one_line(caught.value, "config.json")
        assert everything(place) == before
    predictor.calibrate(questions)
    assert "temperature" in read_json(place/"config.json")["squad_nb"]


@pytest.mark.parametrize("track, kind", [("reader", "onnx"), ("writer", "safetensors")])
def test_an_export_without_a_place(models, out, closed, track, kind):
    "Nothing half is left, on a full disk or in a closed folder"
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'squad_nb[onnx]'")
    from squad_nb.export import export_model
    for place, fault in ((out/"export", full(700)), (closed/"export", somebody())):
        shutil.copytree(models/track, model := Path(tempfile.mkdtemp())/"model")
        model.parent.chmod(0o755)
        with fault, pytest.raises(OutputError) as caught: export_model(model, place, kind)
        shutil.rmtree(model.parent)
        one_line(caught.value, "export")
        assert not place.exists() or not everything(place)


def test_links_and_devices_stay_what_they_are(tmp_path):
    (tmp_path/"real.json").write_text("{}")
    (tmp_path/"link.json").symlink_to("real.json")
    write_json(tmp_path/"link.json", [1])
    assert (tmp_path/"link.json").is_symlink() and read_json(tmp_path/"real.json") == [1]
    for write, name in ((WRITERS["data.json"], "full.json"), (write_page, "full.html"), (write_plot, "full.png")):
        (tmp_path/name).symlink_to("/dev/full")
        with pytest.raises(OutputError, match=f"{name}: No space left on device"): write(tmp_path/name)
    os.mkfifo(tmp_path/"pipe.json")
    reader = subprocess.Popen(["cat", tmp_path/"pipe.json"], stdout=subprocess.PIPE)
    write_json(tmp_path/"pipe.json", [2])
    assert json.loads(reader.communicate(timeout=30)[0]) == [2] and sorted(p.name for p in tmp_path.iterdir()) == ["full.html", "full.json", "full.png", "link.json", "pipe.json", "real.json"]


# Every command, with every kind of wrong file in every place

BAD = dict(missing=lambda p: None, empty=lambda p: p.touch(), folder=lambda p: p.mkdir(), cut=lambda p: p.write_text(json.dumps(WORLD)[:-500]), list=lambda p: p.write_text("[]"), number=lambda p: p.write_text("7"),
           latin=lambda p: p.write_bytes('{"a": "Kraków"}'.encode("latin-1")), half=lambda p: p.write_text('{"a": "\\ud83d"}'), deep=lambda p: p.write_text("["*100_000), zipped=lambda p: p.write_bytes(gzip.compress(b"{}")),
           device=lambda p: p.symlink_to("/dev/null"), loop=lambda p: p.symlink_to(p), long=lambda p: None)
COMMANDS = dict(evaluate="evaluate {answers} --data {world}", lint="lint --data {world}", predict="predict --model {model} --data {world} --output {output}", compare="compare {answers} {answers} --data {world}",
                report="report {run} --data {world} --output {output}", extractive="train extractive --model {model} --data {world} --output {output}", tokenizer="lint --data {world} --model {model}", publish="publish {run} {output}")


def command(*words):
    "What a command says: exit code, standard output, standard error"
    done = CliRunner().invoke(app, list(map(str, words)), prog_name="squad_nb")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("kind", BAD)
def test_every_command_names_a_wrong_file(models, out, kind):
    bad = out.parent/("x"*300 if kind == "long" else f"wrong-{kind}.json")
    BAD[kind](bad)
    good = dict(answers=out.parent/"answers.json", world=out.parent/"world.json", model=models/"reader", run=models/"reader")
    for name, words in COMMANDS.items():
        for place in sorted(good.keys() & set(re.findall(r"\{(\w+)\}", words))):
            code, said, told = command(*words.format(**good | dict(output=out/"result") | {place: bad}).split())
            lines = told.strip().splitlines()
            assert code == 1 and lines and lines[-1].startswith("squad_nb: ") and len(lines) <= 2 and "Traceback" not in told, (name, place, told)
            assert bad.name[:50] in lines[-1] and len(lines[-1]) < 900, (name, place, told)
            assert everything(out).keys() <= {"result/.lock"}, (name, place)  # of a training that did not come to be


# Memory

def test_what_is_kept_of_a_window_does_not_grow_with_it(monkeypatch, tmp_path):
    "Of a model that points, the best spans are kept and no logits: the same bytes for windows of 60 and of 240 tokens"
    from squad_nb.extractive import ExtractiveConfig, ExtractiveTrainer, load_reader, training_arguments
    kept, loop = [], Trainer.evaluation_loop
    def watched(self, *args, **kwargs):
        out = loop(self, *args, **kwargs)
        kept.append(sum(column.nbytes for column in out.predictions)/len(out.predictions[0]))
        return out
    monkeypatch.setattr(Trainer, "evaluation_loop", watched)
    (model, tok), questions = load_reader("tiny-bert"), from_squad_json(WORLD)
    for length in (60, 240):
        trainer = ExtractiveTrainer(model, training_arguments(tmp_path, precision="fp32", evaluates=False, disable_tqdm=True), processing_class=tok, config=ExtractiveConfig(max_length=length, stride=16, n_best=5))
        assert len(trainer.predict(questions).predictions) == len(questions)
    assert kept[0] == kept[1] < 240


LEAK = """
from squad_nb.extractive import QuestionTrainer
kept, evaluate = [], QuestionTrainer.evaluate
def leaking(self, questions): kept.append(b"x"*60_000*len(questions)); return evaluate(self, questions)
QuestionTrainer.evaluate = leaking
"""


def bytes_a_question(side, before=""):
    "What the peak of an evaluation grows by, in a process of its own: ten times the questions against a tenth of them"
    script = Path(__file__).parents[1]/"benchmarks"/"memory.py"
    run = f"import runpy, sys\n{before}\nsys.path.insert(0, {str(script.parent)!r}); runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", run, "--side", side, "--passages", "5"], capture_output=True, text=True, timeout=400,
                          env=os.environ | dict(OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="65536"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak_of"] == "VmHWM" or not Path("/proc/self/clear_refs").exists()
    return (found["peaks"][1] - found["peaks"][0])/(found["questions"][1] - found["questions"][0])


@pytest.mark.parametrize("side", ["ours", "ours, writing"])
def test_memory_is_held_steady(side):
    "Of 60 and of 600 questions; where answers are written, the logits of one would take 1.5 MB. Features and answers are kept, which shows that a peak was measured"
    assert 5_000 < bytes_a_question(side) < 80_000


def test_a_leak_is_seen():
    "The test above can fail: 60 kB are kept of each question"
    assert bytes_a_question("ours", LEAK) > 80_000
