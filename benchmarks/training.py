"""Training throughput: windows in batches of like length, padded to their longest, against windows padded to 384. Same model, windows, precision, optimizer and loss.

    python benchmarks/training.py --model FOLDER --data squad-v1.1.json [--limit 600] [--json OUT]

Prints questions a second of both and their ratio. Exits with 1 when the two do not compute the same loss for the same windows.
"""
import argparse, json, statistics, sys, tempfile, time
from pathlib import Path

import torch
from transformers import Trainer, default_data_collator
from transformers.utils import logging

from squad_nb.core import best_precision, seed_everything
from squad_nb.extractive import ExtractiveConfig, ExtractiveTrainer, PadCollator, load_reader, training_arguments
from squad_nb.squad import load_squad, take

logging.set_verbosity_error()
logging.disable_progress_bar()


class Plain(Trainer):
    "A stock Trainer with our loss, so that both learn the same"
    compute_loss = ExtractiveTrainer.compute_loss


def make_trainers(model, tokenizer, questions, config, args):
    "A stock Trainer on windows padded to the full length, and ours"
    ours = ExtractiveTrainer(model, args, questions, None, tokenizer, config)
    columns = [c for c in ours.train_dataset.column_names if c in ("input_ids", "token_type_ids")]
    def pad(rows):
        return dict(tokenizer.pad({c: rows[c] for c in columns}, padding="max_length", max_length=config.max_length),
                    context_mask=[mask + [0]*(config.max_length - len(mask)) for mask in rows["context_mask"]])
    padded = ours.train_dataset.with_format(None).map(pad, batched=True)
    plain = Plain(model, args, train_dataset=padded, data_collator=default_data_collator)
    plain.remove_callback(type(plain.callback_handler.callbacks[-1]))  # the printer
    return dict(plain=plain, ours=ours)


@torch.no_grad()
def loss_difference(trainers, rows=32):
    "Largest difference between the losses of single windows, padded and unpadded, in fp32"
    model, worst = trainers["ours"].model.eval(), 0.0  # both trainers hold it
    for i in range(min(rows, len(trainers["plain"].train_dataset))):
        losses = []
        for name, collate in (("plain", default_data_collator), ("ours", PadCollator())):
            batch = {k: v.to(model.device) for k, v in collate([trainers[name].train_dataset[i]]).items()}
            losses.append(trainers[name].compute_loss(model, batch).item())
        worst = max(worst, abs(losses[0] - losses[1]))
    model.train()
    return worst


def seconds(trainer):
    "One epoch"
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=600, help="questions, drawn at random")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each, alternating")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--stride", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_squad(options.data)
    questions = take(data["train"] if isinstance(data, dict) else data, options.limit, seed=0)
    seed_everything(0)
    model, tokenizer = load_reader(options.model)
    precision = best_precision(model.config.hidden_size)
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(folder, epochs=1, batch_size=options.batch_size, precision=precision, evaluates=False, save_strategy="no", disable_tqdm=True, remove_unused_columns=False)
        trainers = make_trainers(model, tokenizer, questions, ExtractiveConfig(options.max_length, options.stride), args)
        difference = loss_difference(trainers)
        times = {name: [] for name in trainers}
        for _ in range(options.repeats):
            for name, trainer in trainers.items(): times[name].append(seconds(trainer))
    middle = {name: statistics.median(t) for name, t in times.items()}
    result = dict(questions=len(questions), windows=len(trainers["ours"].train_dataset), device=str(model.device), precision=precision, threads=options.threads,
                  questions_per_second={name: len(questions)/t for name, t in middle.items()}, ratio=middle["plain"]/middle["ours"], loss_difference=difference)
    print(json.dumps(result, indent=1))
    if options.json: options.json.write_text(json.dumps(result, indent=1) + "\n")
    if difference > 1e-4: sys.exit("The losses differ: the two do not compute the same")


if __name__ == "__main__":
    main()
