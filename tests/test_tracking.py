"What trackers keep of real runs of both tracks, and that they ask for nothing: TensorBoard's files read back, Weights & Biases offline and without a terminal"
import json, os, shutil, struct, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainingArguments

from squad_nb.cli import app
from squad_nb.core import SettingError, write_json
from squad_nb.extractive import ExtractiveConfig, ExtractiveTrainer, fit_reader, load_reader, training_arguments
from squad_nb.generative import fit_writer
from squad_nb.prompts import PromptConfig
from squad_nb.publish import gather
from squad_nb.sample import generate_squad
from squad_nb.squad import from_squad_json
from squad_nb.tracking import check_tracker, tracker_names, tracking_settings, wandb_mode

HOW = dict(epochs=2, learning_rate=1e-3, batch_size=16, precision="fp32", disable_tqdm=True, logging_steps=1)
FIT = {"extractive": lambda *args, **more: fit_reader("tiny-bert", *args, ExtractiveConfig(192, 48), **HOW | more),
       "generative": lambda *args, **more: fit_writer("tiny-gpt2", *args, PromptConfig(layout="context_first"), **HOW | more)}


@pytest.fixture(scope="module")
def world(): return from_squad_json(generate_squad(2)), from_squad_json(generate_squad(1, names="test"))


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("WANDB_"): monkeypatch.delenv(name)


def read(folder):
    events = EventAccumulator(str(folder), size_guidance=dict(tensors=0, scalars=0)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}, {tag: {e.step: e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag)} for tag in events.Tags()["tensors"]}


@pytest.mark.parametrize("track", FIT)
def test_tensorboard_has_the_figures_and_answers_of_every_checkpoint(track, world, tmp_path):
    train, test = world
    trainer = FIT[track](train, test, tmp_path/"run", report_to="tensorboard", project="squad", run_name="first")
    scalars, texts = read(tmp_path/"run/tensorboard/squad/first")
    history = {h["step"]: h for h in trainer.state.log_history if "eval_loss" in h and "epoch" in h}
    steps = [int(path.name.partition("-")[2]) for path in tmp_path.glob("run/checkpoint-*")]
    for name in ["loss", "exact_match", "f1"] + ["stop_rate"]*(track == "generative"):
        assert sorted(scalars[f"eval/{name}"]) == sorted(steps)
        assert all(value == pytest.approx(history[step][f"eval_{name}"]) for step, value in scalars[f"eval/{name}"].items() if step != max(steps))  # the last line of the history is the kept model's
        assert scalars[f"final/{name}"] == {max(steps): pytest.approx(trainer.scores[name])}
    assert len(scalars["train/loss"]) == max(steps) and "final/answers/text_summary" in texts
    assert sorted(texts["eval/answers/text_summary"]) == sorted(steps) and all(q["question"] in text for text in texts["eval/answers/text_summary"].values() for q in test)
    assert not any("tensorboard" in name or "events" in name for name in gather(tmp_path/"run")[0])
    assert "tensorboard" not in json.dumps(json.loads((tmp_path/"run/run.json").read_text()))


def end_early(run):
    "As if it had been killed in its last epoch"
    shutil.rmtree(max(run.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2])))
    (run/"run.json").unlink()


def test_a_resumed_run_goes_on_in_the_same_curve(world, tmp_path):
    train, test = world
    how = dict(report_to="tensorboard", project="squad", logging_steps=1)
    FIT["extractive"](train, test, tmp_path/"run", **how)
    before, _ = read(tmp_path/"run/tensorboard/squad/run")
    first, last = sorted(before["eval/f1"])
    end_early(tmp_path/"run")
    FIT["extractive"](train, test, tmp_path/"run", resume=True, **how)
    after, texts = read(tmp_path/"run/tensorboard/squad/run")
    assert {tag: after[tag] for tag in ("train/loss", "eval/loss", "eval/f1", "final/f1")} == {tag: before[tag] for tag in ("train/loss", "eval/loss", "eval/f1", "final/f1")}
    assert sorted(texts["eval/answers/text_summary"]) == [first, last]
    FIT["extractive"](train, test, tmp_path/"run", resume=True, **how)  # finished: nothing is done, and nothing logged
    assert read(tmp_path/"run/tensorboard/squad/run")[0] == after
    FIT["extractive"](train, test, tmp_path/"run", force=True, **how | dict(epochs=1))  # another run
    assert sorted(read(tmp_path/"run/tensorboard/squad/run")[0]["eval/f1"]) == [first]


def test_one_folder_for_all_runs_shows_each_of_them(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path/"all"))
    for name in ("first", "run#2"): FIT["extractive"](*world, tmp_path/name, report_to="tensorboard", epochs=1)
    one, two = (read(tmp_path/"all/squad_nb"/name)[0] for name in ("first", "run_2"))
    assert one["eval/f1"] == two["eval/f1"] and one["train/loss"] == two["train/loss"] and not [*tmp_path.glob("*/tensorboard")]
    assert [*(tmp_path/"all").iterdir()] == [tmp_path/"all/squad_nb"]


def records(path):
    "What Weights & Biases wrote: protocol buffers in a log of 32 KiB blocks"
    from wandb.proto.wandb_internal_pb2 import Record
    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7: at += 32768 - at % 32768
        size, kind = struct.unpack("<HB", data[at + 4:at + 7])
        part += data[at + 7:at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(part)
            part = b""


def command(*words, **env):
    return subprocess.run([sys.executable, "-m", "squad_nb", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
                          env={k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | dict(OMP_NUM_THREADS="1") | env)


def test_wandb_without_a_key_keeps_the_run_and_asks_nothing(tmp_path):
    data, run = write_json(tmp_path/"train.json", generate_squad(2)), tmp_path/"run"
    done = command("train", "extractive", "--model", "tiny-bert", "--max-length", 192, "--stride", 48, "--data", data, "--test-articles", 1, "--epochs", 2, "--learning-rate", 1e-3, "--output", run, "--json",
                      "--track", "wandb", "--project", "squad", "--run-name", "first", HOME=str(tmp_path/"home"), https_proxy="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    (folder,) = run.glob("wandb/offline-run-*")
    assert [line for line in done.stderr.splitlines() if line.startswith("wandb")] == [f"wandb keeps the run in {run}/wandb; to send it: wandb sync {run}/wandb/offline-run-*-{folder.name.rpartition('-')[2]}"]
    (path,) = folder.glob("*.wandb")
    said = list(records(path))
    (begun,) = [r.run for r in said if r.WhichOneof("record_type") == "run"][:1]
    assert (begun.project, begun.display_name) == ("squad", "first")
    rows = [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item} for r in said if r.WhichOneof("record_type") == "history"]
    steps = sorted(int(p.name.partition("-")[2]) for p in run.glob("checkpoint-*"))
    assert [row["train/global_step"] for row in rows if "eval/f1" in row] == steps and all({"eval/exact_match", "eval/loss"} <= row.keys() for row in rows if "eval/f1" in row)
    assert [row["train/global_step"] for row in rows if any(name.startswith("eval/answers") for name in row)] == steps and sum(any(name.startswith("final/answers") for name in row) for row in rows) == 1
    tables = [json.loads(p.read_text()) for p in folder.rglob("*.table.json")]
    assert tables[0]["columns"] == ["question", "context", "gold", "prediction", "exact_match", "f1", "score"] and len(tables) == len(steps) + 1
    final = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for r in said if r.WhichOneof("record_type") == "summary" for i in r.summary.update}
    assert final["final/f1"] == json.loads(done.stdout)["f1"]
    assert not (tmp_path/"wandb").exists() and "wandb" not in (run/"run.json").read_text() and not any("wandb" in name for name in gather(run)[0])


@pytest.fixture
def forgetful(monkeypatch, tmp_path):
    "wandb reads its settings once a process; here it reads them anew, and finds no key"
    import wandb
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield monkeypatch.setenv
    wandb.teardown()


@pytest.fixture
def refusing():
    "A server that takes no key"
    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("key, says", [(None, "set WANDB_API_KEY"), ("0123456789"*4, "set WANDB_MODE=offline")])
def test_a_key_is_missed_or_refused_in_one_line_before_anything_is_read(key, says, forgetful, refusing, tmp_path, capsys):
    for name, value in dict(WANDB_MODE="online", WANDB_BASE_URL=refusing, WANDB_API_KEY=key).items(): value and forgetful(name, value)
    assert app(["train", "extractive", "--model", "tiny-bert", "--data", str(tmp_path/"none.json"), "--output", str(tmp_path/"run"), "--track", "wandb"], standalone_mode=False) == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if not line.startswith("wandb: ")]  # its own log may say it too
    assert line.startswith("squad_nb: ") and says in line and "0123456789" not in out + err and not (tmp_path/"run").exists()


def test_a_resumed_run_keeps_its_id_and_the_users_own_run_is_used(world, forgetful, monkeypatch, tmp_path):
    import wandb
    forgetful("WANDB_MODE", "offline")
    for asked, resume in ((None, False), ("b-run-2", True), (None, True)):
        monkeypatch.delenv("WANDB_RUN_ID", raising=False)
        if asked: forgetful("WANDB_RUN_ID", asked)
        wandb.teardown()
        FIT["extractive"](*world, tmp_path/"run", report_to="wandb", resume=resume)
        end_early(tmp_path/"run")
        time.sleep(1.1)  # folders are named by the second
    first, *ids = [record.run.run_id for path in sorted(tmp_path.glob("run/wandb/offline-run-*/*.wandb")) for record in records(path) if record.WhichOneof("record_type") == "run"]
    assert first and ids == ["b-run-2"]*2 and wandb.run is None
    trainer = ExtractiveTrainer(*load_reader("tiny-bert")[:1], training_arguments(tmp_path/"stopped", report_to="wandb", **HOW | dict(epochs=1)), *world, load_reader("tiny-bert")[1], ExtractiveConfig(192, 48))
    trainer.train()  # and nothing after it, as in a notebook whose training was interrupted
    left = wandb.run
    FIT["extractive"](*world, tmp_path/"next", report_to="wandb", epochs=1)
    assert left.dir.startswith(str(tmp_path/"stopped")) and [*tmp_path.glob("next/wandb/offline-run-*")] and wandb.run is None
    with wandb.init(project="mine", dir=str(tmp_path), settings=wandb.Settings(silent=True)) as own:
        FIT["extractive"](*world, tmp_path/"other", report_to="wandb", epochs=1)
        assert wandb.run is own and "final/f1" in own.summary.keys() and not (tmp_path/"other/wandb").exists()


@pytest.mark.parametrize("words, env, says", [
    (["tensorboard", "--project", "a/b"], {}, "The project is 'a/b', which"),
    (["tensorboard", "--project", "huggingface"], {}, "has no name: give another"),
    (["tensorboard", "--run-name", "a#1"], {}, "The run's name is 'a#1', which"),
    (["wandb"], dict(WANDB_PROJECT="team/x"), "WANDB_PROJECT is 'team/x', which"),
    (["wandb", "--project", "x"], dict(WANDB_PROJECT="team/x"), "'team/x'"),  # wandb reads it all the same
    (["tensorboard"], dict(WANDB_PROJECT="team/x"), "none.json"),  # what is wrong is only the data
    (["tensorboard"], {}, "none.json")])
@pytest.mark.parametrize("kind, model", [("extractive", "tiny-bert"), ("generative", "tiny-gpt2")])
def test_names_are_checked_before_anything_is_read(kind, model, words, env, says, forgetful, tmp_path, capsys):
    for name, value in (env | dict(WANDB_MODE="offline")).items(): forgetful(name, value)
    assert app(["train", kind, "--model", model, "--data", str(tmp_path/"none.json"), "--output", str(tmp_path/"a#1"), "--track", *words], standalone_mode=False) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("squad_nb: ")]
    assert says in line and not (tmp_path/"a#1").exists()


@pytest.mark.parametrize("asked, project", [("wandb", "paper"), (["tensorboard", "wandb"], "paper"), ("tensorboard", "squad_nb")])
def test_the_project_of_wandb_is_not_that_of_tensorboard(asked, project, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "paper")
    assert tracker_names(tmp_path/"a#1", asked) == tracker_names(tmp_path/"a#1", asked, TrainingArguments(tmp_path, use_cpu=True).project) == dict(project=project, run_name="a_1")
    assert tracker_names(tmp_path, asked, "mine", "x") == dict(project="mine", run_name="x")
    monkeypatch.setattr("squad_nb.extractive.check_tracker", lambda report_to: None)
    args = training_arguments(tmp_path/"a#1", report_to=asked)
    assert (args.project, args.run_name) == (project, "a_1")
    with pytest.raises(SettingError, match="The project is 'a/b'"): training_arguments(tmp_path, report_to=asked, project="a/b")


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_what_the_user_set_holds(mode, forgetful):
    forgetful("WANDB_MODE", mode)
    assert wandb_mode() == mode


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.setattr("squad_nb.tracking.find_spec", lambda name: None)
    for ask in (lambda: check_tracker([name]), lambda: tracking_settings(name)):
        with pytest.raises(SettingError, match=rf"pip install 'squad_nb\[{name}\]'"): ask()
