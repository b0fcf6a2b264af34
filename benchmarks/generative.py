"""The generative track against the plain way, in one run: training a GPT-2 shape, and greedy answers of a model.

    python benchmarks/generative.py --data squad-v1.1.json --tokenizer FOLDER                 # training: random weights, 6 layers, vocabulary 50,257
    python benchmarks/generative.py --data squad-v1.1.json --model FOLDER --limit 192         # greedy answers of a fine-tuned model

Each side works in a process of its own, so that its peak memory is its own, on the same questions in the layout context_first, with the same number of threads. Training: `plain` is one sequence a question, padded to the limit of the
prompts, the logits of all positions; `dynamic` pads to the longest of a batch, with the logits of the answer only; `ours` groups batches by length too; `shared` reads a passage once for its questions. Answers: `generate` of transformers on
left-padded batches of 8, in file order and sorted by length, against `generate_answers`, whose best window of each question is compared; bf16 is weights cast once. Seconds are the processor's.

Exits with 1 when losses or tokens differ."""
import argparse, json, resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np, torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from common import clock, number, questions_in, run
from squad_nb.batching import PromptCollator, pack_shared
from squad_nb.core import DataError, seed_everything, write_json
from squad_nb.extractive import LengthGroupedSampler, load_tokenizer, row_lengths
from squad_nb.generate import generate_answers
from squad_nb.generative import answer_losses, load_writer
from squad_nb.prompts import PromptConfig, prompt_features

logging.set_verbosity_error()
logging.disable_progress_bar()


def questions_of(args):
    "The first questions of a file: whole passages, as they come"
    data = questions_in(args.data)
    if args.skip >= len(data): raise DataError(f"--skip {args.skip} leaves none of the {len(data)} questions in {args.data}")
    return data.select(range(args.skip, min(args.skip + args.limit, len(data))))


def peak():
    "Highest resident memory of this process, MiB"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


def full_sequences(rows, limit, pad):
    "Sequences with unshifted labels, padded to the limit: what a model of transformers takes"
    batch = {name: torch.full((len(rows), limit), fill) for name, fill in (("input_ids", pad), ("attention_mask", 0), ("labels", -100))}
    for i, row in enumerate(rows):
        ids = row["input_ids"] + row["labels"][-1:]
        batch["input_ids"][i, :len(ids)] = torch.tensor(ids)
        batch["attention_mask"][i, :len(ids)] = 1
        batch["labels"][i, 1:len(ids)] = torch.tensor([label if learned else -100 for label, learned in zip(row["labels"], row["labels_mask"])])
    return batch


def batches_of(side, args, features, collate):
    "The batches of one epoch, of `batch_size` questions each"
    if side == "shared":
        rows = pack_shared(features)
        size = max(1, round(args.batch_size*len(rows)/len(features)))
    else: rows, size = features, args.batch_size
    order = list(LengthGroupedSampler(row_lengths(rows), size)) if side in ("ours", "shared") else np.random.default_rng(0).permutation(len(rows)).tolist()
    return [collate([rows[i] for i in order[j:j + size]]) for j in range(0, len(order), size)]


def train_side(side, args):
    "Seconds, mean loss before training, and peak memory of one epoch"
    torch.set_num_threads(args.threads)
    tokenizer, config = load_tokenizer(args.tokenizer), PromptConfig(layout="context_first")
    features = prompt_features(questions_of(args), tokenizer, config)
    pad, limit = tokenizer.eos_token_id, config.max_question_length + config.max_context_length + config.max_answer_length + 16
    batches = batches_of(side, args, features, (lambda rows: full_sequences(rows, limit, pad)) if side == "plain" else PromptCollator(pad, args.mask_mode, config.layout))
    seed_everything(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50_257, n_layer=args.layers, n_positions=1024, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)).train()
    optimizer, fp = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True), args.precision == "bf16"
    def loss_of(batch, reduce=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=fp):
            if side == "plain": return model(**batch, use_cache=False).loss
            return answer_losses(model, batch)[0].mean()
    with torch.no_grad(): sums = [(loss_of(batch).item()*(n := int((batch["labels"] != -100).sum())), n) for batch in batches]
    began = clock()
    for batch in batches:
        loss_of(batch).backward()
        optimizer.step(); optimizer.zero_grad()
    return dict(questions_per_second=len(features)/(clock() - began), loss=sum(s for s, _ in sums)/sum(n for _, n in sums), peak_mib=peak(),
                tokens=sum(batch["input_ids"].numel() for batch in batches))


@torch.inference_mode()
def plain_answers(model, tokenizer, questions, config, by_length, size=8):
    "`generate` of transformers on left-padded batches"
    rows = prompt_features(questions, tokenizer, config, labels=False)
    ids = [row for row in rows["input_ids"]]
    order, said = sorted(range(len(ids)), key=lambda i: -len(ids[i])) if by_length else range(len(ids)), {}
    for j in range(0, len(ids), size):
        some = [order[i] for i in range(j, min(j + size, len(ids)))]
        width = max(len(ids[i]) for i in some)
        batch = torch.tensor([[tokenizer.eos_token_id]*(width - len(ids[i])) + list(ids[i]) for i in some])
        mask = torch.tensor([[0]*(width - len(ids[i])) + [1]*len(ids[i]) for i in some])
        out = model.generate(input_ids=batch, attention_mask=mask, max_new_tokens=config.max_answer_length, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id)
        for i, row in zip(some, out[:, width:].tolist()):
            said[rows[i]["example_id"], rows[i]["window"]] = row[:row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row
    return said


def answer_side(side, args):
    "Answers a second, and the tokens of each, by question and window"
    torch.set_num_threads(args.threads)
    model, tokenizer = load_writer(args.model)
    model.eval()
    if args.precision == "bf16": model.bfloat16()
    questions, config = questions_of(args), PromptConfig(layout="context_first")
    model.config.squad_nb = None  # asked in the same way whatever it was trained with
    model.generation_config.update(temperature=None, top_p=None, top_k=None)
    began = clock()
    if side == "shared":
        answers = generate_answers(model, tokenizer, questions, "causal", config)
        said = {(p.id, p.candidates[0].window): written.tokens for p, written in zip(answers, answers.written)}  # the window that won
    else: said = plain_answers(model, tokenizer, questions, config, side == "sorted")
    return dict(answers_per_second=len(questions)/(clock() - began), peak_mib=peak(), answers=said)


def alone(work, side, args):
    "In a fresh process"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool: return pool.submit(work, side, args).result()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", help="training: folder of a tokenizer with at most 50,257 tokens")
    parser.add_argument("--model", help="answers: a causal language model, as `squad_nb train generative` takes it")
    parser.add_argument("--limit", type=number, default=160, help="questions")
    parser.add_argument("--skip", type=int, default=0, help="questions to leave out at the beginning")
    parser.add_argument("--batch-size", type=number, default=16, help="training: questions a step")
    parser.add_argument("--layers", type=number, default=6)
    parser.add_argument("--mask-mode", default="causal", choices=("causal", "prefix"), help="training: of all sides but plain")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=number, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if bool(args.tokenizer) == bool(args.model): parser.error("give either --tokenizer, for training, or --model, for answers")
    common = dict(questions=args.limit, precision=args.precision, threads=args.threads)
    result, differ = training(args) if args.tokenizer else answering(args)
    result = common | result
    print(json.dumps(result, indent=1))
    if args.json: write_json(args.json, result)
    return differ or None


def training(args):
    sides = {side: alone(train_side, side, args) for side in ("plain", "dynamic", "ours", "shared")}
    rate = {side: figures["questions_per_second"] for side, figures in sides.items()}
    ratios = dict(shared_to_plain=rate["shared"]/rate["plain"], shared_to_dynamic=rate["shared"]/rate["dynamic"], unshared_to_plain=rate["ours"]/rate["plain"])
    compared = [figures["loss"] for side, figures in sides.items() if side != "plain" or args.mask_mode == "causal"]
    spread = max(compared) - min(compared)
    return dict(mask_mode=args.mask_mode, layers=args.layers, sides=sides, ratios=ratios, loss_spread=spread), "The losses differ" if spread > (1e-2 if args.precision == "bf16" else 1e-4) else ""


def answering(args):
    sides = {side: alone(answer_side, side, args) for side in ("file_order", "sorted", "shared")}
    said = {side: figures.pop("answers") for side, figures in sides.items()}
    rate = {side: figures["answers_per_second"] for side, figures in sides.items()}
    other = [id for id, window in said["shared"] if any(said["shared"][id, window] != said[side][id, window] for side in ("file_order", "sorted"))]
    return dict(sides=sides, ratios=dict(to_file_order=rate["shared"]/rate["file_order"], to_sorted=rate["shared"]/rate["sorted"]), different_answers=other), f"{len(other)} answers differ" if other else ""


if __name__ == "__main__": run(main)
