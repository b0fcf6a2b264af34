"The command as a process: what Ctrl-C leaves behind, and wrong input said in one line"
import json, re, shlex, signal, subprocess, sys, time
from pathlib import Path

import pytest

from squad_nb.core import write_json
from squad_nb.sample import generate_squad

TRAIN = ["train", "extractive", "--model", "tiny-bert", "--max-length", "192", "--stride", "48", "--learning-rate", "1e-3"]


def squad_nb(*words, **options):
    return subprocess.run([sys.executable, "-m", "squad_nb", *map(str, words)], capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_json(tmp_path_factory.mktemp("data")/"world.json", generate_squad(20))


@pytest.mark.timeout(2500)
def test_the_demo_learns_what_it_promises(tmp_path):
    "What `make demo` runs, whole: names of the test never occur in training"
    done = subprocess.run([sys.executable, "-m", "squad_nb", "demo", "--output", tmp_path/"demo", "--json"], capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stderr
    em = {name: scores["exact_match"] for name, scores in json.loads(done.stdout.splitlines()[-1]).items()}
    assert max(em[name] for name in ("guess by position", "guess by shared words", "tiny-bert before training", "tiny-gpt2 before training")) < 25
    assert em["tiny-bert, extractive"] >= 85
    written = em["tiny-gpt2, causal mask"], em["tiny-gpt2, prefix mask"]
    assert min(written) >= 60 and max(written) >= 70
    assert em["causal model, prefix mask"] < em["tiny-gpt2, causal mask"] - 30
    for name in ("extractive", "causal", "prefix"): assert (tmp_path/"demo"/name/"model.safetensors").exists() and (tmp_path/"demo"/name/"predictions.json").exists()


@pytest.mark.timeout(900)
def test_the_lines_of_readme_follow_one_another(tmp_path):
    "`On your own data` as it stands, but for smaller models and less of the data"
    lines = re.search(r"^squad_nb lint .*?(?=^```)", (Path(__file__).resolve().parents[1]/"README.md").read_text(), re.M | re.S)[0].splitlines()
    assert [line.split()[1] for line in lines] == ["lint", "train", "train", "predict", "evaluate", "doctor", "compare", "export", "publish"]
    write_json(tmp_path/"my-train.json", generate_squad(6))
    write_json(tmp_path/"my-test.json", generate_squad(3, names="test"))
    for line in lines:
        words = shlex.split(line.replace("distilbert-base-cased", "tiny-bert").replace("--model gpt2", "--model tiny-gpt2"))[1:]
        done = squad_nb(*words, *["--epochs", "1"]*(words[0] == "train"), cwd=tmp_path)
        assert done.returncode == 0 or words[0] == "doctor" and "answers" in done.stdout, line + done.stdout + done.stderr  # a model of so few steps is not well
    assert (tmp_path/"reader.zip").exists()


def test_ctrl_c_keeps_the_last_checkpoint_and_resume_goes_on(world, tmp_path):
    run, log = tmp_path/"run", tmp_path/"log.txt"
    words = [*TRAIN, "--data", str(world), "--epochs", "6", "--output", str(run)]
    with log.open("w") as err:
        process = subprocess.Popen([sys.executable, "-m", "squad_nb", *words], stdout=subprocess.DEVNULL, stderr=err)
        end = time.monotonic() + 240
        while not any(run.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert "--resume" in log.read_text() and "Traceback" not in log.read_text()
    assert squad_nb(*words).returncode == 1  # nothing is overwritten
    done = squad_nb(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((run/"run.json").read_text())["training"]["num_train_epochs"] == 6 and (run/"model.safetensors").exists()


@pytest.mark.parametrize("text, says", [("not json", "is not JSON"), ("[]", "list"), ('{"data": []}', "no questions"), ('{"a": "b"}', "data")])
def test_wrong_data_is_named_in_one_line(tmp_path, text, says):
    (path := tmp_path/"data.json").write_text(text)
    for words in (["lint", "--data", path], [*TRAIN, "--data", path, "--output", tmp_path/"run"]):
        result = squad_nb(*words)
        assert result.returncode == 1 and result.stdout == "" and len(result.stderr.strip().splitlines()) == 1 and says in result.stderr, result.stderr
        assert not (tmp_path/"run").exists()


def test_an_unknown_option_is_a_usage_error():
    assert squad_nb("evaluate", "--nonsense").returncode == 2


def test_hub_names_fail_clearly_without_a_network(tmp_path):
    for words in ([*TRAIN, "--data", "squad", "--output", tmp_path/"a"], ["train", "extractive", "--model", "distilbert-base-cased", "--output", tmp_path/"b"],
                  ["train", "extractive", "--recipe", "distilbert-squad", "--output", tmp_path/"c"]):
        result = squad_nb(*words)
        assert result.returncode == 1 and "give a" in result.stderr and "Traceback" not in result.stderr, result.stderr
