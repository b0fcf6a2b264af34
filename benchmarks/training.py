"""Training throughput: batches of like length padded to their longest, ours, against three that a user of transformers' Trainer can choose. Same model, windows, precision, optimizer and loss.

    python benchmarks/training.py --model FOLDER --data squad-v1.1.json [--limit 300] [--threads 1] [--json OUT]

`padded` is the recipe of run_qa as it stands, every window padded to `--max-length`; `dynamic` pads a batch to its longest (`--pad_to_max_length false`), both in random order; `by_length` is `train_sampling_strategy="group_by_length"`.
Prints questions a second of each and how many times as fast ours is; seconds are the processor's, the fastest epoch counts. Exits with 1 when padded and unpadded windows do not have the same loss."""
import argparse, json, sys, tempfile
from pathlib import Path

import torch
from transformers import Trainer
from transformers.utils import logging

from common import clock, number, questions_in, run
from squad_nb.core import best_precision, seed_everything, write_json
from squad_nb.extractive import ExtractiveConfig, ExtractiveTrainer, PadCollator, load_reader, training_arguments
from squad_nb.squad import take

logging.set_verbosity_error()
logging.disable_progress_bar()


class Stock(Trainer):
    "transformers' own, with our loss, so that all learn the same"
    compute_loss = ExtractiveTrainer.compute_loss


def make_trainers(model, tokenizer, questions, config, options, folder):
    "Name → trainer; all hold one model and the same windows"
    def how(**more): return training_arguments(folder, epochs=1, batch_size=options.batch_size, precision=best_precision(model.config.hidden_size), evaluates=False, save_strategy="no", disable_tqdm=True, remove_unused_columns=False, **more)
    ours, pad = ExtractiveTrainer(model, how(), questions, None, tokenizer, config), tokenizer.pad_token_id or 0
    def stock(collate, **more):
        trainer = Stock(model, how(**more), train_dataset=ours.train_dataset, data_collator=collate)
        trainer.remove_callback(type(trainer.callback_handler.callbacks[-1]))  # the printer
        return trainer
    return dict(padded=stock(PadCollator(pad, multiple=config.max_length)), dynamic=stock(PadCollator(pad)), by_length=stock(PadCollator(pad), train_sampling_strategy="group_by_length"), ours=ours)


@torch.no_grad()
def loss_difference(trainers, rows=32):
    "Largest difference between the losses of single windows, padded and unpadded, in fp32"
    model, worst = trainers["ours"].model.eval(), 0.0
    for i in range(min(rows, len(trainers["ours"].train_dataset))):
        losses = []
        for name in ("padded", "ours"):
            batch = {k: v.to(model.device) for k, v in trainers[name].data_collator([trainers[name].train_dataset[i]]).items()}
            losses.append(trainers[name].compute_loss(model, batch).item())
        worst = max(worst, abs(losses[0] - losses[1]))
    model.train()
    return worst


def seconds(trainer):
    "One epoch"
    began = clock()
    trainer.train()
    return clock() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=number, default=300, help="questions, drawn at random")
    parser.add_argument("--repeats", type=number, default=2, help="epochs of each, taking turns")
    parser.add_argument("--batch-size", type=number, default=16)
    parser.add_argument("--max-length", type=number, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--threads", type=number, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    questions = take(questions_in(options.data), options.limit, seed=0)
    seed_everything(0)
    model, tokenizer = load_reader(options.model)
    with tempfile.TemporaryDirectory() as folder:
        trainers = make_trainers(model, tokenizer, questions, ExtractiveConfig(options.max_length, options.stride), options, folder)
        difference, times = loss_difference(trainers), {name: [] for name in trainers}
        for _ in range(options.repeats):
            for name, trainer in trainers.items():
                times[name].append(seconds(trainer))
                print(f"{name}: {times[name][-1]:.0f} s", file=sys.stderr)
    best = {name: min(t) for name, t in times.items()}
    result = dict(questions=len(questions), windows=len(trainers["ours"].train_dataset), device=str(model.device), precision=best_precision(model.config.hidden_size), threads=options.threads,
                  questions_per_second={name: len(questions)/t for name, t in best.items()}, ratios={f"to_{name}": t/best["ours"] for name, t in best.items() if name != "ours"}, loss_difference=difference)
    print(json.dumps(result, indent=1))
    if options.json: write_json(options.json, result)
    if difference > 1e-4: return "The losses differ: the sides do not compute the same"


if __name__ == "__main__": run(main)
