"""Where the time goes: the rates of what is not the model beside the model's own, and the share of a training that is neither forward, backward nor optimizer.

    python benchmarks/time_shares.py --model ENCODER --data squad-v1.1.json [--limit 400] [--threads 1] [--json OUT]
    python benchmarks/time_shares.py --writer DECODER --data squad-v1.1.json [--limit 96]

Seconds are the processor's, so other work on the machine hardly shows. Preparation is everything from questions to batches; decoding is everything from logits to answers, scores included; `model` is a forward pass over the same batches without gradients, and their ratio to it is by questions a second.
`outside` is the share of a training of one epoch, its preparation included, that the loss, backward, clipping and the optimizer's step did not take. Of a model that writes, `decoding` is what `generate_answers` does beside calling the model."""
import argparse, json, tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.utils import logging

from common import clock, number, questions_in, run
from squad_nb.core import best_precision, seed_everything, write_json
from squad_nb.extractive import ExtractiveConfig, ExtractiveTrainer, PadCollator, context_columns, load_reader, merge, row_lengths, training_arguments
from squad_nb.generate import generate_answers
from squad_nb.generative import GenerativeTrainer, load_writer
from squad_nb.metrics import squad_metrics
from squad_nb.prompts import PromptConfig
from squad_nb.spans import TopSpans, top_spans
from squad_nb.squad import take
from squad_nb.windows import window_features

logging.set_verbosity_error()
logging.disable_progress_bar()


class Watch:
    "Seconds, by name"
    def __init__(self): self.seconds = {}

    @contextmanager
    def __call__(self, name):
        began = clock()
        try: yield
        finally: self.seconds[name] = self.seconds.get(name, 0) + clock() - began

    def wrap(self, work, name):
        def timed(*args, **kwargs):
            with self(name): return work(*args, **kwargs)
        return timed


class Steps(TrainerCallback):
    "Times the optimizer"
    def __init__(self, watch): self.watch = watch
    def on_pre_optimizer_step(self, *args, **kwargs): self.began = clock()
    def on_optimizer_step(self, *args, **kwargs): self.watch.seconds["optimizer"] = self.watch.seconds.get("optimizer", 0) + clock() - self.began


def training(make):
    "Seconds of one epoch: in all, and of the parts that are the model's; `make` gives a trainer"
    watch = Watch()
    with watch("all"):
        trainer = make()
        trainer.add_callback(Steps(watch))
        trainer.compute_loss = watch.wrap(trainer.compute_loss, "forward")
        trainer.accelerator.backward, trainer.accelerator.clip_grad_norm_ = watch.wrap(trainer.accelerator.backward, "backward"), watch.wrap(trainer.accelerator.clip_grad_norm_, "clipping")
        trainer.train()
    total = watch.seconds.pop("all")
    return dict(seconds=total, shares={name: part/total for name, part in watch.seconds.items()}, outside=1 - sum(watch.seconds.values())/total)


def autocast(precision): return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


@torch.inference_mode()
def reading(model, tokenizer, questions, config, batch_size, precision):
    "Seconds of a model that points"
    watch = Watch()
    with watch("preparation"):
        windows = window_features(questions, tokenizer, config.max_length, config.stride).with_format("numpy")
        rows, collate = context_columns(windows), PadCollator(tokenizer.pad_token_id or 0)
        order = (-row_lengths(windows)).argsort(kind="stable").tolist()
        batches = [collate([rows[i] for i in order[j:j + batch_size]]) for j in range(0, len(order), batch_size)]
    tops = []
    for batch in batches:
        with watch("model"), autocast(precision): out = model(**{name: x for name, x in batch.items() if name in ("input_ids", "attention_mask", "token_type_ids")})
        with watch("decoding"): tops.append(top_spans(out.start_logits.float(), out.end_logits.float(), batch["context_mask"].bool(), config.n_best, config.max_answer_length))
    with watch("decoding"):
        back = torch.argsort(torch.tensor(order))
        answers = merge(TopSpans(*(torch.cat(column)[back] for column in zip(*tops))), windows, questions, config)
        squad_metrics(answers, questions)
    return watch.seconds


def writing(model, tokenizer, questions, batch_size, precision):
    "Seconds of a model that writes: preparation of its training, and its answers"
    watch, config = Watch(), PromptConfig(layout="context_first")
    with tempfile.TemporaryDirectory() as folder:
        trainer = GenerativeTrainer(model, training_arguments(folder, batch_size=batch_size, precision=precision, evaluates=False, disable_tqdm=True), None, None, tokenizer, config)
        with watch("preparation"): batches = list(trainer.get_eval_dataloader(questions))
    with torch.no_grad(), watch("model"):
        for batch in batches: trainer.prediction_step(model, batch, False)
    forward, model.forward = model.forward, watch.wrap(model.forward, "writing")
    with watch("answers"), autocast(precision): squad_metrics(generate_answers(model, tokenizer, questions, config=config, override=True), questions)
    model.forward = forward
    watch.seconds["decoding"] = watch.seconds.pop("answers") - watch.seconds["writing"]
    return watch.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", help="an encoder")
    parser.add_argument("--writer", help="a causal language model")
    parser.add_argument("--limit", type=number, default=400, help="questions, whole passages")
    parser.add_argument("--batch-size", type=number, default=16)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: as training and asking choose it")
    parser.add_argument("--threads", type=number, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if bool(args.model) == bool(args.writer): parser.error("give either --model or --writer")
    torch.set_num_threads(args.threads)
    seed_everything(0)
    questions = take(questions_in(args.data), args.limit, seed=0, passages=True)
    model, tokenizer = load_reader(args.model) if args.model else load_writer(args.writer)
    precision = best_precision(model.config.hidden_size) if args.precision == "auto" else args.precision
    seconds = reading(model.eval(), tokenizer, questions, ExtractiveConfig(), args.batch_size, precision) if args.model else writing(model.eval(), tokenizer, questions, args.batch_size, precision)
    with tempfile.TemporaryDirectory() as folder:
        how = training_arguments(folder, epochs=1, batch_size=args.batch_size, precision=precision, evaluates=False, save_strategy="no", disable_tqdm=True)
        if args.model: trained = training(lambda: ExtractiveTrainer(model, how, questions, None, tokenizer, ExtractiveConfig()))
        else: trained = training(lambda: GenerativeTrainer(model, how, questions, None, tokenizer, PromptConfig(layout="context_first")))
    beside = seconds["writing" if args.writer else "model"]
    result = dict(questions=len(questions), precision=precision, seconds=seconds, times_the_model=dict(preparation=seconds["model"]/seconds["preparation"], decoding=beside/seconds["decoding"]), training=trained)
    print(json.dumps(result, indent=1))
    if args.json: write_json(args.json, result)


if __name__ == "__main__": run(main)
