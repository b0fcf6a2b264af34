"""What the recipe is worth: the same model, questions, steps, precision and seeds, trained in the plain way and in ours, scored on the same test questions by the same decoder.

    python benchmarks/accuracy.py --model FOLDER --data squad-v1.1.json --test-articles 8 --limit 700 --epochs 4 --learning-rate 1e-4 --seeds 0 1 2 [--json OUT]

`plain` is transformers' own Trainer on the same windows: random order, padding to the longest of a batch, and the model's own loss, a softmax over every position, padding included. `grouped` is our order of batches with that loss. `ours` is our order
and our loss, a softmax over the context and the first token. Prints EM and F1 of each side and seed, their means, and the 95% interval of the mean difference to `plain` under the paired bootstrap over questions, the seeds of a question kept together."""
import argparse, json, sys, tempfile
from pathlib import Path

import numpy as np, torch
from torch.utils.data import RandomSampler
from transformers.utils import logging

from common import number, questions_in, run
from squad_nb.core import best_precision, seed_everything, write_json
from squad_nb.evaluation import bootstrap_interval
from squad_nb.extractive import ExtractiveConfig, ExtractiveTrainer, load_reader, training_arguments
from squad_nb.metrics import question_scores
from squad_nb.squad import split_by_article, take

logging.set_verbosity_error()
logging.disable_progress_bar()


class Grouped(ExtractiveTrainer):
    "The loss of the model itself"
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        out = model(**{name: x for name, x in inputs.items() if name != "context_mask"})
        return (out.loss, out) if return_outputs else out.loss


class Plain(Grouped):
    "And rows in random order"
    def _get_train_sampler(self, train_dataset=None):
        return RandomSampler(self.train_dataset, generator=torch.Generator().manual_seed(self.args.seed))


SIDES = dict(plain=Plain, grouped=Grouped, ours=ExtractiveTrainer)


def scores(side, seed, train, test, options):
    "(questions, 2): EM and F1 of every test question, 0 to 100"
    seed_everything(seed)
    model, tokenizer = load_reader(options.model)
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(folder, epochs=options.epochs, learning_rate=options.learning_rate, batch_size=options.batch_size, seed=seed, precision=best_precision(model.config.hidden_size),
                                  evaluates=False, save_strategy="no", disable_tqdm=True)
        trainer = SIDES[side](model, args, train, None, tokenizer, ExtractiveConfig(options.max_length, options.stride))
        trainer.train()
        found = np.array([(100*row["exact"], 100*row["f1"]) for row in question_scores(trainer.predict(test).predictions, test)])
    print(f"{side}, seed {seed}: EM {found[:, 0].mean():.1f}, F1 {found[:, 1].mean():.1f}", file=sys.stderr)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an encoder")
    parser.add_argument("--data", required=True)
    parser.add_argument("--test-articles", type=number, default=8)
    parser.add_argument("--limit", type=number, help="questions to train on, drawn with seed 0")
    parser.add_argument("--eval-limit", type=number, help="test questions, whole passages")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=number, default=16)
    parser.add_argument("--max-length", type=number, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--threads", type=number, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = split_by_article(questions_in(options.data), options.test_articles)
    train, test = take(train, options.limit, 0), take(test, options.eval_limit, 0, passages=True)
    found = {side: np.stack([scores(side, seed, train, test, options) for seed in options.seeds]) for side in options.sides}  # (seeds, questions, 2)
    names = ("exact_match", "f1")
    result = dict(trained_on=len(train), scored_on=len(test), seeds=options.seeds,
                  sides={side: dict(zip(names, x.mean((0, 1)).round(2).tolist())) | dict(by_seed=x.mean(1).round(2).tolist()) for side, x in found.items()},
                  less_plain={side: dict(zip(names, bootstrap_interval((x - found["plain"]).mean(0)).round(2).tolist())) for side, x in found.items() if side != "plain" and "plain" in found})
    print(json.dumps(result, indent=1))
    if options.json: write_json(options.json, result)


if __name__ == "__main__": run(main)
