"""How long training takes until the answers reach a given F1, preparation of the data included, scoring left out.

    python benchmarks/time_to_f1.py --model ENCODER --data squad-v1.1.json --f1 30 [--limit 2000] [--seeds 0 1 2] [--json OUT]

`padded` is the recipe of run_qa as it stands: random order, every window padded to `--max-length`, the model's own loss. `dynamic` is what its users choose next, `--pad_to_max_length false`: a batch is padded to its longest. `ours` groups batches by length and has the loss over the context and the first token.
All cut the same windows of the same questions, start from the same weights and take the same rates; every `--every` steps the same test questions are answered by the same decoder. Seconds are the processor's (`time.process_time`), so other work on the machine hardly shows. A side that has not got there when its epochs are over is null."""
import argparse, json, sys, tempfile, time
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from accuracy import SIDES
from squad_nb.core import SquadNbError, best_precision, seed_everything
from squad_nb.extractive import ExtractiveConfig, load_reader, training_arguments
from squad_nb.metrics import squad_metrics
from squad_nb.squad import load_squad, split_by_article, take

logging.set_verbosity_error()
logging.disable_progress_bar()

WAYS = dict(padded="plain", dynamic="plain", ours="ours")


class Until(TrainerCallback):
    "Stops the clock to answer the test questions, and the training once they are answered well enough"
    def __init__(self, trainer, test, f1, every, name):
        self.trainer, self.test, self.f1, self.every, self.name, self.seconds, self.reached, self.scores = trainer, test, f1, every, name, 0.0, None, []

    def on_train_begin(self, args, state, control, **kwargs): self.began = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds += time.process_time() - self.began
        if state.global_step % self.every and state.global_step < state.max_steps:
            self.began = time.process_time()
            return
        was = torch.get_rng_state()
        f1 = squad_metrics(self.trainer.predict(self.test).predictions, self.test)["f1"]
        torch.set_rng_state(was)
        self.trainer.model.train()
        self.scores.append((state.global_step, round(self.seconds, 2), round(f1, 2)))
        print(f"{self.name}: step {state.global_step} of {state.max_steps}, {self.seconds:.0f} s of training, F1 {f1:.1f}", file=sys.stderr)
        if f1 >= self.f1: self.reached, control.should_training_stop = self.seconds, True
        self.began = time.process_time()


def race(way, seed, train, test, options):
    "Seconds of the processor, and the curve (step, seconds, F1)"
    seed_everything(seed)
    model, tokenizer = load_reader(options.model)
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(folder, epochs=options.epochs, learning_rate=options.learning_rate, batch_size=options.batch_size, seed=seed, precision=best_precision(model.config.hidden_size), evaluates=False, save_strategy="no", disable_tqdm=True)
        began = time.process_time()
        trainer = SIDES[WAYS[way]](model, args, train, None, tokenizer, ExtractiveConfig(options.max_length, options.stride))
        if way == "padded": trainer.data_collator.multiple = options.max_length
        until = Until(trainer, test, options.f1, options.every, f"{way}, seed {seed}")
        until.seconds = time.process_time() - began
        trainer.add_callback(until)
        trainer.train()
    return dict(seconds=until.reached, curve=until.scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an encoder")
    parser.add_argument("--data", required=True)
    parser.add_argument("--f1", type=float, required=True)
    parser.add_argument("--test-articles", type=int, default=8)
    parser.add_argument("--limit", type=int, help="questions to train on, drawn with seed 0")
    parser.add_argument("--eval-limit", type=int, default=300, help="test questions, whole passages")
    parser.add_argument("--every", type=int, default=20, help="steps")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        train, test = split_by_article(load_squad(options.data), options.test_articles)
        train, test = take(train, options.limit, 0), take(test, options.eval_limit, 0, passages=True)
        found = {way: {seed: race(way, seed, train, test, options) for seed in options.seeds} for way in WAYS}
    except SquadNbError as e: sys.exit(str(e))
    def ratio(way): return {seed: run["seconds"]/found["ours"][seed]["seconds"] for seed, run in found[way].items() if run["seconds"] and found["ours"][seed]["seconds"]}
    result = dict(f1=options.f1, trained_on=len(train), scored_on=len(test), ways=found, ratios={f"to_{way}": ratio(way) for way in ("padded", "dynamic")})
    print(json.dumps(result, indent=1))
    if options.json: options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__": main()
