"Two processes train as one does: the same global batches, so the same weights, the same answers, and one of them writes"
import json, os, subprocess, sys

import pytest, torch
from safetensors.torch import load_file

from squad_nb.core import write_json
from squad_nb.sample import generate_squad

LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]  # what accelerate launch starts for several GPUs; it has no way of its own to start several on a CPU without MPI
TRACKS = {"extractive": ["--model", "tiny-bert", "--max-length", "192", "--stride", "48"],
          "generative": ["--model", "tiny-gpt2", "--layout", "context_first", "--mask-mode", "prefix", "--no-share"]}


def train(track, batch_size, world, output, launch=()):
    words = ["-m", "squad_nb", "train", track, *TRACKS[track], "--data", world/"train.json", "--eval-data", world/"test.json", "--epochs", "1", "--learning-rate", "1e-3",
             "--batch-size", batch_size, "--precision", "fp32", "--output", output, "--json"]
    return subprocess.run([sys.executable, *launch, *map(str, words)], capture_output=True, text=True, timeout=300, env=os.environ | dict(OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_json(folder/"train.json", generate_squad(8))
    write_json(folder/"test.json", generate_squad(3, names="test"))
    return folder


def weights(folder):
    "Without the biases of keys, whose gradient is nothing but rounding: softmax does not see what all keys share"
    found = {name: w for name, w in load_file(folder/"model.safetensors").items() if not name.endswith("key.bias")}
    return {name: w.chunk(3)[::2] if name.endswith("c_attn.bias") else [w] for name, w in found.items()}


@pytest.mark.parametrize("track", TRACKS)
def test_two_processes_are_one(track, world, tmp_path):
    alone, both = train(track, 16, world, tmp_path/"alone"), train(track, 8, world, tmp_path/"both", LAUNCH)
    assert alone.returncode == 0, alone.stderr
    assert both.returncode == 0, both.stderr
    one, two = (weights(tmp_path/name) for name in ("alone", "both"))
    for name, parts in one.items():
        for a, b in zip(parts, two[name], strict=True): torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-3, msg=lambda text: f"{name}: {text}")
    scores = [json.loads(result.stdout) for result in (alone, both)]  # one process prints
    assert scores[0]["total"] == scores[1]["total"] == 36
    assert abs(scores[0]["loss"] - scores[1]["loss"]) < 1e-4 and scores[0]["exact_match"] == scores[1]["exact_match"]
    said = [json.loads((tmp_path/name/"predictions.json").read_text()) for name in ("alone", "both")]
    assert said[0] == said[1] and len(said[0]) == 36
