"Two processes are as one: the same global batches make the same weights, every question is answered once, one of them writes. Real processes, started by accelerate, that talk through gloo"
import io, json, os, shutil, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest, torch, yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import TrainingArguments

from squad_nb.cli import app
from squad_nb.core import SettingError, read_json, write_json
from squad_nb.extractive import ExtractiveTrainer, load_reader, training_arguments
from squad_nb.sample import generate_squad

root = Path(__file__).parents[1]
HOW = ["--epochs", "1", "--learning-rate", "1e-3", "--precision", "fp32", "--json"]
TRACKS = {"extractive": ["--model", "tiny-bert", "--max-length", "192", "--stride", "48", "--save-every", "2"],
          "generative": ["--model", "tiny-gpt2", "--layout", "context_first", "--mask-mode", "prefix"]}  # its rows are passages with all their questions
BATCH = dict(extractive=16, generative=24)  # of one process


def train(track, world, output, batch_size, *more): return ["train", track, *TRACKS[track], *HOW, "--data", f"{world}/train.json", "--eval-data", f"{world}/test.json", "--batch-size", str(batch_size), "--output", str(output), *more]


def predict(model, data, output): return ["predict", "--model", str(model), "--data", str(data), "--output", str(output)]


def launch(*words, multi=("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")):
    "`--multi_gpu` starts several processes where there is no GPU too"
    return subprocess.run([sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *multi, "--main_process_port", "0", *map(str, words)],
                          capture_output=True, text=True, timeout=300, env=os.environ | dict(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", PYTHONPATH=str(root)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "48 questions to train on, four batches of two sizes for each process; 35 to score on, which are not twice anything"
    folder, test = tmp_path_factory.mktemp("world"), generate_squad(3, names="test")
    test["data"][-1]["paragraphs"][-1]["qas"].pop()
    write_json(folder/"train.json", generate_squad(4))
    write_json(folder/"test.json", test)
    paragraph = test["data"][0]["paragraphs"][0]
    write_json(folder/"one.json", dict(version="1.1", data=[dict(title="One", paragraphs=[paragraph | dict(qas=paragraph["qas"][:1])])]))
    return folder


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    "What one process makes, by track: folder, and what it said"
    folder, said = tmp_path_factory.mktemp("alone"), {}
    for track in TRACKS:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()): assert not app(train(track, world, folder/track, BATCH[track]), standalone_mode=False)
        said[track] = folder/track, json.loads(out.getvalue())
    return said


@pytest.fixture(scope="module")
def both(world, tmp_path_factory):
    "What two make with half the batch each, and say; which of them writes is in `writes`, by the number of the process"
    folder = tmp_path_factory.mktemp("both")
    done = {"extractive": launch("-m", "squad_nb", *train("extractive", world, folder/"extractive", 8))}
    (folder/"resumed").mkdir()
    for name in ("plan.json", "checkpoint-2"): (shutil.copytree if "-" in name else shutil.copy)(folder/"extractive"/name, folder/"resumed"/name)  # as a kill leaves it
    done["generative"] = launch(root/"tests/several.py", folder/"writes", json.dumps([
        train("generative", world, folder/"generative", 12),
        predict(folder/"generative", world/"test.json", folder/"written.json"),
        predict(folder/"extractive", world/"test.json", folder/"pointed.json"),
        predict(folder/"extractive", world/"one.json", folder/"one.json"),
        predict(folder/"generative", world/"one.json", folder/"one_written.json"),
        train("extractive", world, folder/"resumed", 8, "--resume"),
        train("extractive", world, folder/"extractive", 8)]))  # where something stands already
    return folder, done


def weights(folder):
    "Without the biases of keys, whose gradient is nothing but rounding: softmax does not see what all keys share"
    found = {name: w for name, w in load_file(folder/"model.safetensors").items() if not name.endswith("key.bias")}
    return {name: w.chunk(3)[::2] if name.endswith("c_attn.bias") else [w] for name, w in found.items()}


def assert_alike(one, two):
    one, two = weights(one), weights(two)
    assert one.keys() == two.keys()
    for name, parts in one.items():
        for a, b in zip(parts, two[name], strict=True): torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-3, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("track", TRACKS)
def test_two_processes_train_as_one(track, world, alone, both):
    one, scores = alone[track]
    folder, done = both
    assert (folder/track/"run.json").exists(), done[track].stderr
    assert not [value for name, value in read_json(one/"config.json").items() if "drop" in name and value and name != "summary_first_dropout"]  # of a head that is not there
    assert_alike(one, folder/track)
    printed, *resumed = [json.loads(line) for line in done[track].stdout.splitlines()]  # one process prints, once a training
    assert len(resumed) == (track == "generative")
    assert printed["total"] == scores["total"] == 35 and printed.keys() == scores.keys()
    for name, value in scores.items(): assert printed[name] == pytest.approx(value, abs=1e-4), name
    said = [read_json(run/"predictions.json") for run in (one, folder/track)]
    assert said[0] == said[1] and len(said[0]) == 35
    assert "Warning" not in done[track].stderr


@pytest.mark.parametrize("track", TRACKS)
def test_one_process_writes(track, alone, both):
    "The same files as one process leaves, but for the state of each one's random numbers"
    files = [sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and "rng_state" not in p.name) for run in (alone[track][0], both[0]/track)]
    assert files[0] == files[1]
    assert {tuple(sorted(p.name for p in c.glob("rng_state*"))) for c in (both[0]/track).glob("checkpoint-*")} == {("rng_state_0.pth", "rng_state_1.pth")}
    stderr = both[1][track].stderr
    assert stderr.count("questions to train on") == (1 if track == "extractive" else 3) and stderr.count("The model is in") == (1 if track == "extractive" else 2)
    first, second = (set(read_json(both[0]/"writes"/f"{rank}.json")) for rank in range(2))
    run = "resumed" if track == "extractive" else track  # the first launch is of the command itself
    last = max((both[0]/run).glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2])).name
    assert {f"{run}/{name}" for name in (".lock", "config.json", "model.safetensors", "predictions.json", "run.json", last)} <= first
    assert not second


def test_a_resumed_run_ends_as_if_never_stopped(both):
    "Each process takes up its own random numbers, and its own hash of the batches until then"
    folder, done = both
    assert f"Going on from {folder}/resumed/checkpoint-2" in done["generative"].stderr
    assert read_json(folder/"resumed/run.json")["hashes"] == read_json(folder/"extractive/run.json")["hashes"]
    assert len(read_json(folder/"resumed/checkpoint-2/checkpoint.json")["order"]) == 2


@pytest.mark.parametrize("track, name", [("generative", "written"), ("extractive", "pointed")])
def test_every_question_is_answered_once(track, name, alone, both):
    said = read_json(both[0]/f"{name}.json")
    assert said == read_json(alone[track][0]/"predictions.json") and [*said] == [*read_json(alone[track][0]/"predictions.json")]
    assert both[1]["generative"].stderr.count(f"35 answers in {both[0]/name}.json") == 1


def test_more_processes_than_questions(both):
    pointed, written = (read_json(both[0]/f"{name}.json") for name in ("one", "one_written"))
    assert len(pointed) == len(written) == 1
    assert pointed.items() <= read_json(both[0]/"pointed.json").items() and written.items() <= read_json(both[0]/"written.json").items()


def test_an_error_of_the_first_ends_the_others(both):
    done = both[1]["generative"]
    assert done.returncode and [line for line in done.stderr.splitlines() if line.startswith("squad_nb: ")] == [line for line in done.stderr.splitlines() if "is not empty" in line] != []


def test_fsdp_leaves_what_one_process_leaves(world, alone, tmp_path):
    "The given configuration; accelerate would not shard without a GPU, so the processes say that they have some"
    config = yaml.safe_load((root/"configs/fsdp.yaml").read_text())
    assert load_config_from_file(str(root/"configs/fsdp.yaml")).fsdp_config == config["fsdp_config"]
    assert (root/"configs/fsdp.yaml").read_text() in (root/"nbs/many_devices.md").read_text()
    again = ["--model", str(alone["generative"][0]), "--generate", "1"]  # after the epoch one process has an answer to write, and the other none
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()): assert not app(train("generative", world, tmp_path/"alone", 24, *again), standalone_mode=False)
    done = launch(root/"tests/several.py", "fsdp", json.dumps([train("extractive", world, tmp_path/"extractive", 8), train("generative", world, tmp_path/"generative", 12, *again)]),
                  multi=("--config_file", root/"configs/fsdp.yaml"))
    assert done.returncode == 0, done.stderr
    for one, two in ((alone["extractive"][0], tmp_path/"extractive"), (tmp_path/"alone", tmp_path/"generative")):
        assert_alike(one, two)
        assert read_json(one/"predictions.json") == read_json(two/"predictions.json")
        assert read_json(one/"config.json")["architectures"] == read_json(two/"config.json")["architectures"]
        assert [*two.glob("checkpoint-*/pytorch_model_fsdp.bin")], "it was not sharded"


def test_other_commands_are_for_one_process(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert app(["evaluate", "runs/none", "--data", "sample"], standalone_mode=False) == 1
    assert "only train and predict" in capsys.readouterr().err


@pytest.mark.parametrize("said, wanted", [("fp32", "no"), ("bf16", "bf16")])
def test_precision_is_not_the_launchers(said, wanted, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert training_arguments(tmp_path, precision=said).mixed_precision == wanted


def test_several_gpus_without_a_launcher_are_refused(monkeypatch, tmp_path):
    "transformers would use nn.DataParallel"
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    model, tokenizer = load_reader("tiny-bert")
    with pytest.raises(SettingError, match="accelerate launch"): ExtractiveTrainer(model, training_arguments(tmp_path, evaluates=False), processing_class=tokenizer)
