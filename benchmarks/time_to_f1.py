"""How long training takes until the answers reach a given F1, preparation of the data included, scoring left out.

    python benchmarks/time_to_f1.py --model ENCODER --data squad-v1.1.json --f1 30 [--limit 2000] [--seeds 0 1 2] [--json OUT]

`padded` is the recipe of run_qa as it stands: random order, every window padded to `--max-length`, the model's own loss. `dynamic` is what its users choose next, `--pad_to_max_length false`: a batch is padded to its longest. `ours` groups batches by length and has the loss over the context and the first token.
All cut the same windows of the same questions, start from the same weights and take the same rates; every `--every` steps the same test questions are answered by the same decoder. Seconds are the processor's, so other work on the machine hardly shows; on a GPU they are those that pass. A side that has not got there when its epochs are over is null, and has no ratio."""
import argparse, json, sys, tempfile
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from accuracy import SIDES
from common import clock, number, questions_in, run
from squad_nb.core import best_precision, seed_everything, write_json
from squad_nb.extractive import ExtractiveConfig, load_reader, training_arguments
from squad_nb.metrics import squad_metrics
from squad_nb.squad import split_by_article, take

logging.set_verbosity_error()
logging.disable_progress_bar()

WAYS = dict(padded="plain", dynamic="plain", ours="ours")


class Until(TrainerCallback):
    "Stops the clock to answer the test questions, and the training once they are answered well enough"
    def __init__(self, trainer, test, f1, every, name):
        self.trainer, self.test, self.f1, self.every, self.name, self.seconds, self.reached, self.scores = trainer, test, f1, every, name, 0.0, None, []

    def on_train_begin(self, args, state, control, **kwargs): self.began = clock()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds += clock() - self.began
        if state.global_step % self.every and state.global_step < state.max_steps:
            self.began = clock()
            return
        was = torch.get_rng_state()
        f1 = squad_metrics(self.trainer.predict(self.test).predictions, self.test)["f1"]
        torch.set_rng_state(was)
        self.trainer.model.train()
        self.scores.append((state.global_step, round(self.seconds, 2), round(f1, 2)))
        print(f"{self.name}: step {state.global_step} of {state.max_steps}, {self.seconds:.0f} s of training, F1 {f1:.1f}", file=sys.stderr)
        if f1 >= self.f1: self.reached, control.should_training_stop = self.seconds, True
        self.began = clock()


def race(way, seed, train, test, options):
    "Seconds, and the curve (step, seconds, F1)"
    seed_everything(seed)
    model, tokenizer = load_reader(options.model)
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(folder, epochs=options.epochs, learning_rate=options.learning_rate, batch_size=options.batch_size, seed=seed, precision=best_precision(model.config.hidden_size), evaluates=False, save_strategy="no", disable_tqdm=True)
        began = clock()
        trainer = SIDES[WAYS[way]](model, args, train, None, tokenizer, ExtractiveConfig(options.max_length, options.stride))
        if way == "padded": trainer.data_collator.multiple = options.max_length
        until = Until(trainer, test, options.f1, options.every, f"{way}, seed {seed}")
        until.seconds = clock() - began
        trainer.add_callback(until)
        trainer.train()
    return dict(seconds=until.reached, curve=until.scores)


def ratios(theirs, ours):
    "How many times as long they took, by seed, where both got there"
    return {seed: race["seconds"]/ours[seed]["seconds"] for seed, race in theirs.items() if race["seconds"] and ours.get(seed, {}).get("seconds")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an encoder")
    parser.add_argument("--data", required=True)
    parser.add_argument("--f1", type=float, required=True)
    parser.add_argument("--test-articles", type=number, default=8)
    parser.add_argument("--limit", type=number, help="questions to train on, drawn with seed 0")
    parser.add_argument("--eval-limit", type=number, default=300, help="test questions, whole passages")
    parser.add_argument("--every", type=number, default=20, help="steps")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=number, default=16)
    parser.add_argument("--max-length", type=number, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=number, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = split_by_article(questions_in(options.data), options.test_articles)
    train, test = take(train, options.limit, 0), take(test, options.eval_limit, 0, passages=True)
    found = {way: {} for way in WAYS}
    for seed in options.seeds:
        for way in WAYS:
            found[way][seed] = race(way, seed, train, test, options)
            result = dict(f1=options.f1, trained_on=len(train), scored_on=len(test), ways=found, ratios={f"to_{way}": ratios(found[way], found["ours"]) for way in ("padded", "dynamic")})
            if options.json: write_json(options.json, result)  # after each, since a race takes many minutes
    print(json.dumps(result, indent=1))


if __name__ == "__main__": run(main)
