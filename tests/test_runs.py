"Runs gone on with from every checkpoint, after damage, with other settings, on full and read-only disks, and by two processes at once"
import errno, json, os, resource, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest, torch

from squad_nb import runs
from squad_nb.core import DataError, ModelError, OutputError, SettingError, write_json
from squad_nb.extractive import ExtractiveConfig, QuestionTrainer, fit_reader, load_reader, training_arguments
from squad_nb.generative import GenerativeTrainer, fit_writer, load_writer
from squad_nb.prompts import PromptConfig
from squad_nb.runs import LOCK, PLAN, RECORD, checkpoints_of, damage, last_checkpoint, open_run, run_hashes, seal, step_of, weights_hash
from squad_nb.sample import generate_squad
from squad_nb.squad import from_squad_json

train, test = from_squad_json(generate_squad(5)), from_squad_json(generate_squad(2, names="test"))
SMALL, HOW = ExtractiveConfig(max_length=96, stride=24), dict(epochs=2.5, learning_rate=1e-3, batch_size=8, precision="fp32", gradient_accumulation_steps=2, save_every=2, disable_tqdm=True)


def fit(run, **more):
    return fit_reader("tiny-bert", **dict(train=train, test=test, output=run, config=SMALL) | HOW | more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    fit(run := tmp_path_factory.mktemp("whole")/"run")
    return run


def as_killed(whole, run, after=None):
    "What stands in the folder when a run is killed after some checkpoint was saved; None: before the final files"
    shutil.copytree(whole, run)
    (run/RECORD).unlink()
    for checkpoint in checkpoints_of(run):
        if after is not None and step_of(checkpoint) > after: shutil.rmtree(checkpoint)
    return run


def steps(run): return [step_of(c) for c in checkpoints_of(run)]


def test_from_every_checkpoint_the_end_is_the_same(whole, tmp_path):
    "In the middle of an epoch too, with gradients of two batches, and from the last one of a training that ends in the middle of an epoch"
    assert steps(whole) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]  # 8 steps an epoch
    for step in (6, 8, 20):
        fit(run := as_killed(whole, tmp_path/str(step), step), resume=True)
        assert run_hashes(run) == run_hashes(whole) and steps(run) == steps(whole), step
        assert (run/"predictions.json").read_bytes() == (whole/"predictions.json").read_bytes()


def test_random_states_are_taken_up(tmp_path):
    "With dropout the end depends on the random numbers drawn until a kill in the middle of an epoch"
    model, tokenizer = load_reader("tiny-bert")
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1
    for part in (model, tokenizer): part.save_pretrained(tmp_path/"model")
    def drop(run, **more): return fit_reader(tmp_path/"model", train, None, run, SMALL, **HOW | dict(epochs=1) | more)
    drop(undisturbed := tmp_path/"undisturbed")
    drop(again := as_killed(undisturbed, tmp_path/"again", 4), resume=True)
    assert run_hashes(again) == run_hashes(undisturbed)
    states = torch.load((mixed := as_killed(undisturbed, tmp_path/"mixed", 4))/"checkpoint-4"/"rng_state.pth", weights_only=False)
    torch.save(states | dict(cpu=torch.Generator().manual_seed(99).get_state()), mixed/"checkpoint-4"/"rng_state.pth")
    seal(mixed/"checkpoint-4", order=[json.loads((mixed/"checkpoint-4"/"checkpoint.json").read_text())["order"][0]])
    drop(mixed, resume=True)
    assert [name for name in run_hashes(mixed) if run_hashes(mixed)[name] != run_hashes(undisturbed)[name]] == ["weights"]


def test_a_folder_can_be_moved(whole, tmp_path, monkeypatch):
    "The best checkpoint is where the run is now"
    as_killed(whole, tmp_path/"elsewhere")
    monkeypatch.chdir(tmp_path)
    fit("elsewhere", resume=True)
    assert run_hashes("elsewhere") == run_hashes(whole)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json", "checkpoint.json"])
@pytest.mark.parametrize("how", ["cut", "gone", "zeros"])
def test_damage_is_found(name, how, whole, tmp_path):
    shutil.copytree(checkpoints_of(whole)[-1], bad := tmp_path/"checkpoint-99")
    assert damage(bad) is None
    size = (bad/name).stat().st_size
    if how == "gone": (bad/name).unlink()
    else: (bad/name).write_bytes((bad/name).read_bytes()[:size//2] if how == "cut" else bytes(size))
    assert name in damage(bad)


def test_what_is_damaged_is_passed_over(whole, tmp_path, caplog):
    run = as_killed(whole, tmp_path/"run")
    *_, older, newest = checkpoints_of(run)
    with open(newest/"model.safetensors", "r+b") as file: file.truncate(5000)
    assert last_checkpoint(run) == older
    assert "5,000 of" in caplog.text and newest.name in caplog.text
    fit(run, resume=True)
    assert run_hashes(run) == run_hashes(whole) and damage(newest) is None


def test_a_damaged_best_checkpoint_leads_further_back(whole, tmp_path, caplog):
    "Going on without it would end with another model"
    run = as_killed(whole, tmp_path/"run")
    best = json.loads((checkpoints_of(run)[-1]/"trainer_state.json").read_text())["best_global_step"]
    (run/f"checkpoint-{best}"/"model.safetensors").write_bytes(b"")
    last = last_checkpoint(run)
    assert last is None or step_of(last) < best
    fit(run, resume=True)
    assert run_hashes(run) == run_hashes(whole) and steps(run) == steps(whole)


def test_a_run_that_stopped_early_is_not_trained_further(tmp_path):
    "With a rate of 0 no epoch is better than the first"
    how = dict(learning_rate=0.0, epochs=6, patience=1)
    fit(run := tmp_path/"run", **how)
    first = run_hashes(run)
    assert steps(run)[-1] == 16  # of 48
    (run/RECORD).unlink()
    trainer = fit(run, resume=True, **how)
    assert run_hashes(run) == first and steps(run)[-1] == trainer.state.global_step == 16


@pytest.mark.parametrize("change, says", [
    (dict(learning_rate=2e-3), "learning_rate was 0.001, is 0.002"), (dict(seed=1), "seed was 0, is 1"), (dict(batch_size=4), "batch_size was 8, is 4"),
    (dict(train=train.select(range(40))), "data.train is another"), (dict(test=test.select(range(3))), "data.test is another"), (dict(train=train.select(range(len(train) - 1, -1, -1))), "data.train is another"),
    (dict(config=ExtractiveConfig(max_length=96, stride=32)), "settings.stride was 24, is 32"), (dict(patience=3), "patience was None, is 3"), (dict(average_tokens_across_devices=False), "average_tokens_across_devices was the default, is False"), (dict(lr_scheduler_type="constant"), "lr_scheduler_type was the default, is constant")])
def test_a_run_goes_on_as_it_began_or_not_at_all(change, says, whole, tmp_path):
    run = as_killed(whole, tmp_path/"run")
    with pytest.raises(SettingError, match=says): fit(run, resume=True, **change)
    assert steps(run) == steps(whole)


def test_another_model_is_noticed(whole, tmp_path):
    model, tokenizer = load_reader("tiny-bert")
    with torch.no_grad(): next(model.parameters()).add_(1e-6)
    for part in (model, tokenizer): part.save_pretrained(tmp_path/"model")
    with pytest.raises(SettingError, match="model is another"): fit_reader(tmp_path/"model", train, test, as_killed(whole, tmp_path/"run"), SMALL, resume=True, **HOW)


@pytest.mark.parametrize("change, says", [(dict(hidden_dropout_prob=0.2), "architecture"), (dict(num_attention_heads=1), "architecture"), ("lowercase", "tokenizer")])
def test_the_same_weights_in_another_model_are_noticed(change, says, whole, tmp_path):
    "The run that is moved to another place and named by another path is the same"
    place = tmp_path/"model"
    for part in load_reader("tiny-bert"): part.save_pretrained(place)
    fit_reader(place, train, test, as_killed(whole, tmp_path/"same"), SMALL, resume=True, **HOW)
    assert run_hashes(tmp_path/"same") == run_hashes(whole)
    name = "tokenizer.json" if change == "lowercase" else "config.json"
    data = json.loads((place/name).read_text())
    if change == "lowercase": data["normalizer"] = dict(type="Lowercase")
    else: data |= change
    (place/name).write_text(json.dumps(data))
    with pytest.raises(SettingError, match=f"{says} is another"): fit_reader(place, train, test, as_killed(whole, tmp_path/"run"), SMALL, resume=True, **HOW)


def test_what_cannot_touch_the_weights_may_change(whole, tmp_path):
    fit(run := as_killed(whole, tmp_path/"run", 14), resume=True, logging_steps=3, save_total_limit=1, save_every=3, per_device_eval_batch_size=7)
    assert run_hashes(run) == run_hashes(whole)


def test_the_last_and_the_best_are_kept(whole, tmp_path):
    fit(run := tmp_path/"run", save_total_limit=2)
    best = json.loads((checkpoints_of(run)[-1]/"trainer_state.json").read_text())["best_global_step"]
    assert steps(run) == sorted({best, *steps(whole)[-2:]}) and run_hashes(run) == run_hashes(whole)


def test_old_checkpoints_go_at_the_end_at_the_latest(whole, tmp_path):
    "A kill between the last checkpoint and the dropping of old ones; or fewer are wanted now"
    fit(run := as_killed(whole, tmp_path/"run"), resume=True, save_total_limit=1)
    best = json.loads((checkpoints_of(run)[-1]/"trainer_state.json").read_text())["best_global_step"]
    assert steps(run) == sorted({best, steps(whole)[-1]}) and run_hashes(run) == run_hashes(whole)


def test_the_same_run_without_resume_and_anew_with_force(whole, tmp_path):
    run = as_killed(whole, tmp_path/"run")
    (run/"notes.txt").write_text("mine")
    (run/"checkpoint-notes").mkdir()
    with pytest.raises(OutputError, match="--resume goes on with it"): fit(run)
    fit(run, force=True, epochs=1, save_every=None)
    assert len(steps(run)) == 1 and run_hashes(run) != run_hashes(whole)
    assert (run/"notes.txt").read_text() == "mine" and (run/"checkpoint-notes").is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "predictions.json", "config.json"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_finished_run_whose_model_is_damaged_is_not_finished(how, name, whole, tmp_path):
    shutil.copytree(whole, run := tmp_path/"run")
    (run/"other.safetensors").write_bytes(b"of something else")
    assert runs.is_finished(run)
    if how == "gone": (run/name).unlink()
    else: (run/name).write_bytes((whole/name).read_bytes()[:-5])
    assert not runs.is_finished(run)


def test_what_is_not_finished_is_finished_again(whole, tmp_path):
    shutil.copytree(whole, run := tmp_path/"run")
    with open(run/"model.safetensors", "r+b") as file: file.truncate(5000)
    (run/"tokenizer.json").unlink()
    fit(run, resume=True)
    for name in json.loads((whole/RECORD).read_text())["files"]: assert (run/name).read_bytes() == (whole/name).read_bytes(), name
    assert runs.is_finished(run) and steps(run) == steps(whole)


@pytest.mark.parametrize("record", ["[]", "{", '{"files": 3}', '{"files": {"config.json": 1}}', '{"hashes": {}}'])
def test_a_record_of_something_else_finishes_nothing(record, whole, tmp_path):
    (tmp_path/RECORD).write_text(record)
    shutil.copy(whole/"config.json", tmp_path)
    assert not runs.is_finished(tmp_path)


def test_checkpoints_without_an_optimizer_are_not_gone_on_from(tmp_path):
    how = dict(save_only_model=True, save_every=None, epochs=1)
    fit(run := tmp_path/"run", **how)
    (run/RECORD).unlink()
    with pytest.raises(SettingError, match="save_only_model"): fit(run, resume=True, **how)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path/"thesis.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match="not empty"): fit(tmp_path, resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_planted_pickle_is_not_run(file, whole, tmp_path):
    run = as_killed(whole, tmp_path/"run", 18)
    newest = checkpoints_of(run)[-1]
    class Bomb:
        def __reduce__(self): return os.mkdir, (str(tmp_path/"exploded"),)
    if file == "pytorch_model.bin": (newest/"model.safetensors").unlink()
    torch.save(Bomb(), newest/file)
    seal(newest)
    with pytest.raises(ModelError, match="would run code"): fit(run, resume=True)
    assert not (tmp_path/"exploded").exists()


class Room:
    "Files may grow to so many bytes, as if there were no room for more"
    def __init__(self, size): self.size = size
    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))
    def __exit__(self, *_): resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_full_disk_is_said_in_one_line_and_nothing_is_lost(name, whole, tmp_path):
    run = as_killed(whole, tmp_path/"run", 16)
    size = (checkpoints_of(run)[-1]/name).stat().st_size
    with Room(size - 1000), pytest.raises(OutputError, match="Cannot write checkpoint-18 .* make room") as said: fit(run, resume=True)
    assert "\n" not in str(said.value)
    assert steps(run)[-1] == 16 and not (run/".writing").exists()
    fit(run, resume=True)
    assert run_hashes(run) == run_hashes(whole)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:4711"), ConnectionResetError(104, "Connection reset by peer"), runs.SafetensorError("Error while serializing: invalid dtype")])
def test_what_is_no_matter_of_the_disk_is_not_put_down_to_it(error, tmp_path):
    with pytest.raises(type(error)) as said, runs.aside(tmp_path, "checkpoint-2"): raise error
    assert said.value is error


def test_a_disk_that_is_full_at_the_end(whole, tmp_path, monkeypatch):
    run = as_killed(whole, tmp_path/"run")
    def full(self, folder): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="Cannot write the model .*No space left"):
        patch.setattr(QuestionTrainer, "save_model", full)
        fit(run, resume=True)
    assert not (run/RECORD).exists() and not (run/".writing").exists()
    fit(run, resume=True)
    assert run_hashes(run) == run_hashes(whole)


def in_a_child(do):
    "Its process number; it ends with 0 when `do` returns, with 3 on an `OutputError`"
    if pid := os.fork(): return pid
    try:
        do()
        os._exit(0)
    except OutputError: os._exit(3)
    finally: os._exit(1)


def ended(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork") or os.name == "nt", reason="needs processes that fork")
def test_a_read_only_folder(tmp_path):
    "The superuser may write anywhere, so somebody else tries"
    (tmp_path/"closed").mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents): parent.chmod(parent.stat().st_mode | 0o055) if parent.stat().st_uid == os.getuid() and parent not in (Path("/"), Path("/tmp")) else None
    def try_in(folder):
        if os.getuid() == 0: os.setuid(65534)
        with open_run(folder): pass
    for folder in (tmp_path/"closed", tmp_path/"closed"/"run"): assert ended(in_a_child(lambda: try_in(folder))) == 3


def test_two_processes_and_one_folder(tmp_path):
    def hold():
        with open_run(tmp_path/"run", resume=True) as run:
            run.agree(dict(data={}))
            (tmp_path/"held").touch()
            time.sleep(60)
    pid = in_a_child(hold)
    for _ in range(1000):
        if (tmp_path/"held").exists(): break
        time.sleep(0.01)
    for how in (dict(resume=True), dict(force=True)):
        with pytest.raises(OutputError, match="Another process is training"): open_run(tmp_path/"run", **how).__enter__()
    assert (tmp_path/"run"/PLAN).exists()
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    with open_run(tmp_path/"run", resume=True) as run: run.agree(dict(data={}))  # the lock went with the process


TOGETHER = """
import os, runpy, sys, time
from squad_nb.extractive import fit_reader  # what takes long
ready, go = sys.argv[1:3]
sys.argv[1:3] = []
open(ready, "w").close()
while not os.path.exists(go): time.sleep(.001)
runpy.run_module("squad_nb", run_name="__main__")
"""


def test_two_commands_begin_one_folder_at_once(tmp_path):
    "One trains, the other says so and ends; what the first leaves is whole. Without --resume the later one may also find that a run has begun"
    data = write_json(tmp_path/"data.json", generate_squad(3))
    words = ["train", "extractive", "--model", "tiny-bert", "--data", data, "--test-articles", "1", "--output", tmp_path/"run", "--epochs", "2", "--precision", "fp32", "--resume"]
    both = [subprocess.Popen([sys.executable, "-c", TOGETHER, tmp_path/name, tmp_path/"go", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for name in "ab"]
    while not all((tmp_path/name).exists() for name in "ab"):
        assert all(process.poll() is None for process in both)
        time.sleep(.01)
    (tmp_path/"go").touch()
    said = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    refused = said[both[0].returncode == 0]
    assert [line for line in refused.splitlines() if line.startswith("squad_nb: ")] == [f"squad_nb: Another process is training in {tmp_path/'run'}: let it finish, or give another folder"] and "Traceback" not in "".join(said)
    assert runs.is_finished(tmp_path/"run") and all(damage(checkpoint) is None for checkpoint in checkpoints_of(tmp_path/"run")) and checkpoints_of(tmp_path/"run")
    load_reader(tmp_path/"run", new_head=False)


def test_killed_before_the_first_step(tmp_path):
    "Nothing but the lock is there: the command begins, with or without --resume"
    for resume in (False, True):
        (run := tmp_path/str(resume)).mkdir()
        (run/LOCK).touch()
        with open_run(run, resume) as opened: assert opened.checkpoint is None and not opened.finished


def test_killed_while_the_plan_is_written(tmp_path):
    (run := tmp_path/"run"/".writing").mkdir(parents=True)
    (run/".plan.json.abc").write_text("{")
    with open_run(run.parent, resume=True) as opened: opened.agree(dict(data={}))
    assert sorted(p.name for p in run.parent.iterdir()) == [LOCK, PLAN]


class Died(Exception): "In place of a kill"


@pytest.mark.parametrize("moment", range(4))
def test_begun_by_force_and_killed_at_once(moment, whole, tmp_path, monkeypatch):
    "Nothing of the former run is taken for this one's, and from then on --resume is enough"
    shutil.copytree(whole, run := tmp_path/"run")
    moments = iter(range(moment, -1, -1))
    def dying(function):
        def die_at(*args):
            if next(moments) == 0: raise Died
            return function(*args)
        return die_at
    with monkeypatch.context() as patch, pytest.raises(Died):
        for name in ("_write_plan", "remove"): patch.setattr(runs, name, dying(getattr(runs, name)))
        fit(run, force=True, epochs=1, save_every=None)
    if moment == 0: assert tree(run) == tree(whole)
    else:
        with pytest.raises(OutputError, match="holds a run"): fit(run, epochs=1)
        fit(run, resume=True, epochs=1, save_every=None)
        assert steps(run) == [8]


def tree(folder): return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != LOCK}


@pytest.mark.parametrize("wrong", [dict(model="tiny-bret"), dict(config=ExtractiveConfig(max_length=4096)), dict(precision="fp12"), dict(resume=True)])
def test_a_slip_beside_force_costs_nothing(wrong, whole, tmp_path):
    "The former run goes when the new one begins, not when it is asked for"
    shutil.copytree(whole, run := tmp_path/"run")
    with pytest.raises((ModelError, SettingError)): fit_reader(**dict(model="tiny-bert", train=train, test=test, output=run, config=SMALL, force=True) | HOW | wrong)
    assert tree(run) == tree(whole)


LEFT = ("adapter_config.json", "vocab.txt", "generation_config.json", "model-00001-of-00002.safetensors", "model.onnx")


def test_nothing_of_a_former_model_is_read_with_the_new_one(whole, tmp_path):
    "What a person wrote beside it stays"
    shutil.copytree(whole, run := tmp_path/"run")
    for name in (*LEFT, "README.md", "LICENSE"): (run/name).write_text("{}")
    fit(run, force=True, epochs=1, save_every=None)
    assert not any((run/name).exists() for name in LEFT) and (run/"README.md").read_text() == (run/"LICENSE").read_text() == "{}"
    load_reader(run, new_head=False)


@pytest.mark.parametrize("name", LEFT)
def test_no_run_begins_beside_the_model_of_something_else(name, tmp_path):
    (tmp_path/name).write_text("{}")
    with pytest.raises(OutputError, match=f"left there, such as {name}"): fit(tmp_path, force=True)
    assert tree(tmp_path) == {name: b"{}"}


def test_a_model_is_not_trained_in_its_own_folder(whole, tmp_path):
    shutil.copytree(whole, run := tmp_path/"run")
    with pytest.raises(SettingError, match="what the run begins with"): fit_reader(run, train, test, run, SMALL, force=True, **HOW)
    assert tree(run) == tree(whole)


@pytest.mark.parametrize("plan", ['[1]', '{"steps": ["buy milk"]}', '{"squad_nb": 1}', '{'])
def test_the_plan_of_something_else(plan, tmp_path):
    "A file by that name makes a folder no run of ours"
    (tmp_path/PLAN).write_text(plan)
    (tmp_path/"checkpoint-5").mkdir()
    with pytest.raises(OutputError, match="holds no run to go on with"): fit(tmp_path, resume=True)
    with pytest.raises(OutputError, match="no run of squad_nb left there, such as checkpoint-5"): fit(tmp_path, force=True)
    assert (tmp_path/PLAN).read_text() == plan and (tmp_path/"checkpoint-5").is_dir()


def test_without_questions_to_score_on_the_last_weights_stay(tmp_path):
    how = dict(test=None, epochs=1.5)
    fit(run := tmp_path/"run", **how)
    hashes, saved = run_hashes(run), steps(run)
    for after in (None, 4):
        fit(as_killed(run, tmp_path/str(after), after), resume=True, **how)
        assert run_hashes(tmp_path/str(after)) == hashes and steps(tmp_path/str(after)) == saved


@pytest.mark.parametrize("name, says", [("train", "train on"), ("test", "score on"), ("tune", "tune on")])
@pytest.mark.parametrize("fit_in", [lambda run, **data: fit(run, **data), lambda run, **data: fit_writer("tiny-gpt2", output=run, epochs=1, **dict(train=train, test=test) | data)], ids=["reader", "writer"])
def test_no_questions(fit_in, name, says, tmp_path):
    with pytest.raises(DataError, match=f"nothing to {says}"): fit_in(tmp_path/"run", **{name: train.select([])})
    assert not (tmp_path/"run").exists()


def test_what_is_tuned_after_training_comes_out_the_same(tmp_path):
    v2 = [from_squad_json(generate_squad(n, names=name, unanswerable=0.4)) for n, name in ((6, "train"), (2, "test"), (3, "test"))]
    how = dict(train=v2[0], test=v2[1], tune=v2[2], epochs=1, save_every=None)
    fit(run := tmp_path/"run", **how)
    again = as_killed(run, tmp_path/"again")
    for name in ("config.json", "predictions.json"): (again/name).unlink()
    fit(again, resume=True, **how)
    for name in ("config.json", "predictions.json"): assert (again/name).read_bytes() == (run/name).read_bytes()
    finished = fit(again, resume=True, **how)
    assert json.loads((run/"predictions.json").read_text()) == {p.id: p.text for p in finished.predictions}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks(code, tmp_path, monkeypatch, caplog):
    "It is said, and nothing is left that a kill would leave for ever"
    fcntl = pytest.importorskip("fcntl", reason="Windows has other locks")
    def none(*_): raise OSError(code, os.strerror(code))
    monkeypatch.setattr(fcntl, "flock", none)
    for resume in (False, True):
        with open_run(tmp_path/"run", resume) as run:
            run.agree(dict(data={}))
            with open_run(tmp_path/"run", resume=True): pass  # as after a kill
    assert "has no locks" in caplog.text


def test_lora_goes_on_as_well(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    def trainer(run):
        torch.manual_seed(0)
        model, tokenizer = load_writer("tiny-gpt2")
        lora = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True, r=4))
        args = training_arguments(run, epochs=2, learning_rate=1e-2, batch_size=16, precision="fp32", disable_tqdm=True)
        return GenerativeTrainer(lora, args, train, test.select(range(4)), tokenizer, PromptConfig(layout="context_first"), "prefix", save_every=2)
    (undisturbed := trainer(tmp_path/"whole")).train()
    for checkpoint in checkpoints_of(tmp_path/"whole"):
        for earlier in checkpoints_of(tmp_path/"whole"):
            if step_of(earlier) <= step_of(checkpoint): shutil.copytree(earlier, tmp_path/checkpoint.name/earlier.name)
        (again := trainer(tmp_path/checkpoint.name)).train(resume_from_checkpoint=True)
        assert (weights_hash(again.model), again.data_order()) == (weights_hash(undisturbed.model), undisturbed.data_order())


def test_a_writer_is_compared_by_what_decides_its_end(tmp_path):
    how = dict(train=train, test=test, config=PromptConfig(layout="context_first"), epochs=1, precision="fp32", disable_tqdm=True)
    for name, more in (("a", {}), ("b", dict(share_context=False))): fit_writer("tiny-gpt2", output=tmp_path/name, generate=4, **how, **more)
    a, b = run_hashes(tmp_path/"a"), run_hashes(tmp_path/"b")
    assert [name for name in a if a[name] != b[name]] == ["config", "order", "weights"]  # the same data, another way through it
    with pytest.raises(SettingError, match="generate was 4, is None"): fit_writer("tiny-gpt2", output=tmp_path/"a", resume=True, **how)
