"""Training on a GPU: real tokens a second, model FLOPs utilisation and peak memory of each track, by how batches are made, precision and torch.compile.

    python benchmarks/gpu.py --data squad-v1.1.json --tokenizer FOLDER [--shapes distilbert gpt2] [--precisions fp32 bf16] [--compile off on] [--json OUT]

A row that fails, for want of memory say, is told and the others go on; `--json` is written after each. Models have random weights and the shape of the one they are named after, so nothing is downloaded: speed does not depend on weights. Every row is one process: batches first, then `--warmup` steps, the longest batch first, then `--steps` timed ones of forward, backward and AdamW, the device
waited for at both ends. The peak of memory is that of all these steps. `padded` fills every row to the limit, in random order; `grouped` makes batches of like length; `shared` reads a passage once for its questions (GPT-2, passage first). Only tokens of the data count, never padding. Of `shared`,
`questions_per_second` is what compares; its tokens are fewer.

Utilisation is the arithmetic a step needs by the share of what the device could do in that time: 6 FLOPs a token and parameter that multiplies, of the vocabulary's only where something is learned, and 12 a layer, width and pair of tokens that attend (PaLM, arXiv 2204.02311, appendix B; only pairs that the mask lets through), by
the device's dense peak for the precision: fp32 runs in TF32. It is null for a device that the table below does not know, and for bf16 where the device has none; `--peak` says it in TFLOP/s.

Without a GPU the same runs on the CPU, `--layers 1` and a small `--limit` keep it short. Exits with 1 when a row fails, or the mean losses of a model's rows before training differ by more than their precision allows."""
import argparse, json, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np, torch
from transformers import DistilBertConfig, DistilBertForQuestionAnswering, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from common import clock, number, questions_in, run
from squad_nb.batching import PromptCollator, pack_shared
from squad_nb.core import best_device, seed_everything, write_json
from squad_nb.extractive import LengthGroupedSampler, PadCollator, context_columns, load_tokenizer, row_lengths, span_losses
from squad_nb.generative import answer_losses
from squad_nb.prompts import PromptConfig, prompt_features
from squad_nb.squad import take
from squad_nb.windows import window_features

logging.set_verbosity_error()
logging.disable_progress_bar()

# Dense TFLOP/s as the vendor's data sheets give them, by the name torch reports: (bf16, None where there is none; TF32 or, where there is none, fp32)
PEAKS = {"NVIDIA H200": (989, 494), "NVIDIA H100 80GB HBM3": (989, 494), "NVIDIA H100 PCIe": (756, 378), "NVIDIA A100-SXM4-40GB": (312, 156), "NVIDIA A100-SXM4-80GB": (312, 156), "NVIDIA A100-PCIE-40GB": (312, 156),
         "NVIDIA A100 80GB PCIe": (312, 156), "NVIDIA L40S": (362, 183), "NVIDIA L4": (121, 60), "NVIDIA A10G": (70, 35), "Tesla V100-SXM2-16GB": (None, 15.7), "Tesla T4": (None, 8.1)}
ROUNDING = dict(fp32=1e-3, bf16=2e-2)  # of a mean loss
LENGTH = 384
SIDES = dict(distilbert=("padded", "grouped"), gpt2=("padded", "grouped", "shared"))


def peak_flops(name, precision):
    "FLOP/s of a device at its best, or None"
    peak = PEAKS.get(name, (None, None))[precision == "fp32"]
    return peak and peak*1e12


def make_model(shape, vocabulary, layers):
    "Random weights, no dropout"
    seed_everything(0)
    if shape == "distilbert": return DistilBertForQuestionAnswering(DistilBertConfig(vocab_size=max(vocabulary, 28_996), dropout=0, attention_dropout=0, qa_dropout=0, **dict(n_layers=layers) if layers else {}))
    return GPT2LMHeadModel(GPT2Config(vocab_size=max(vocabulary, 50_257), resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **dict(n_layer=layers) if layers else {}))


def make_rows(shape, side, questions, tokenizer):
    "Rows of an epoch, and what makes a batch of them"
    if shape == "distilbert": return context_columns(window_features(questions, tokenizer, LENGTH, 128).with_format("numpy")), PadCollator(tokenizer.pad_token_id or 0)
    features, pad = prompt_features(questions, tokenizer, PromptConfig(layout="context_first")), tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return pack_shared(features) if side == "shared" else features, PromptCollator(pad, "causal", "context_first")


def make_batches(side, rows, collate, size, limit):
    "(batch, its tokens, its pairs of tokens that attend, its questions or windows), in the order in which a side reads them"
    lengths = row_lengths(rows)
    order = np.random.default_rng(0).permutation(len(rows)).tolist() if side == "padded" else list(LengthGroupedSampler(lengths, size))
    if side == "padded": collate.multiple = limit  # rounds every batch up to one length
    return [(collate(some), sum(len(row["input_ids"]) for row in some), sum(map(pairs, some)), sum(map(asked, some))) for j in range(0, len(order), size) if (some := [rows[i] for i in order[j:j + size]])]


def asked(row): return int(np.max(row["branches"])) if "branches" in row else 1


def pairs(row):
    "Of tokens that attend: all of a window; in a prompt half of them, and none between the questions of a passage"
    if "context_mask" in row: return len(row["input_ids"])**2
    passage, *branches = np.bincount(np.asarray(row.get("branches", np.zeros(len(row["input_ids"]))), np.int64))
    return passage**2/2 + sum(n*passage + n**2/2 for n in branches)


def losses_of(shape, model, batch):
    "One a learned token, or one a window"
    if shape == "gpt2": return answer_losses(model, batch)[0]
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return span_losses(out.start_logits, out.end_logits, batch["context_mask"], batch["start_positions"], batch["end_positions"])


def flops(shape, model, tokens, attending, learned):
    "Of forward and backward: a parameter that multiplies takes 6 a token, a pair of tokens that attend 12 a layer and width; the vocabulary's weights multiply where something is learned"
    config, inner = model.config, sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and not name.startswith(("transformer.wte", "transformer.wpe")))
    layers, width = (config.n_layers, config.dim) if shape == "distilbert" else (config.n_layer, config.n_embd)
    return 6*inner*tokens + 12*layers*width*attending + (6*config.vocab_size*width*learned if shape == "gpt2" else 0)


def one(shape, side, precision, compiled, args):
    "The figures of one row of the table, in a process of its own"
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device(best_device())
    gpu, tokenizer = device.type == "cuda", load_tokenizer(args.tokenizer)
    questions = take(questions_in(args.data), args.limit, seed=0, passages=True)
    rows, collate = make_rows(shape, side, questions, tokenizer)
    per_row, limit = len(questions)/len(rows), LENGTH + (0 if shape == "distilbert" else 112)  # question, cue and answer beside 384 tokens of context
    batches = make_batches(side, rows, collate, max(1, round(args.batch_size/per_row)), limit)
    def there(batch): return {k: (v.pin_memory() if gpu else v).to(device, non_blocking=True) for k, v in batch.items()}
    model = make_model(shape, len(tokenizer), args.layers).to(device)
    if compiled: (model.distilbert if shape == "distilbert" else model.transformer).compile(dynamic=True)
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with torch.no_grad(), half: loss = float(torch.cat([losses_of(shape, model, there(batch)).float() for batch, *_ in batches]).mean())
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=True)
    def step(batch):
        batch = there(batch)
        with half: mean = losses_of(shape, model, batch).mean()
        mean.backward()
        optimizer.step(); optimizer.zero_grad()
    if gpu: torch.cuda.reset_peak_memory_stats()
    step(max((batch for batch, *_ in batches), key=lambda batch: batch["input_ids"].numel()))
    for i in range(args.warmup): step(batches[i % len(batches)][0])
    timed = [batches[(args.warmup + i) % len(batches)] for i in range(args.steps)]
    began = clock()
    for batch, *_ in timed: step(batch)
    seconds, (tokens, attending, done) = clock() - began, map(sum, zip(*(counts for _, *counts in timed)))
    learned = sum(int((batch["labels"] != -100).sum()) for batch, *_ in timed) if shape == "gpt2" else 0
    name, work = torch.cuda.get_device_name() if gpu else "CPU", flops(shape, model, tokens, attending, learned)
    peak = args.peak*1e12 if args.peak else peak_flops(name, precision)
    return dict(questions_per_second=done*(len(questions)/len(rows) if shape == "distilbert" else 1)/seconds, tokens_per_second=tokens/seconds, tflops=work/seconds/1e12,
                utilisation=work/seconds/peak if peak else None, peak_mib=torch.cuda.max_memory_allocated()/2**20 if gpu else None, loss=loss, device=name)


def table(rows):
    "Markdown"
    lines = ["| model | batches | precision | compiled | questions/s | tokens/s | TFLOP/s | utilisation | peak memory |", "|"+"---|"*9]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['shape']} | {row['side']} | {row['precision']} | {'yes' if row['compiled'] else 'no'} | {row['error']} |")
            continue
        share, memory = ("" if row["utilisation"] is None else f"{row['utilisation']:.1%}"), ("" if row["peak_mib"] is None else f"{row['peak_mib']/1024:.1f} GiB")
        lines.append(f"| {row['shape']} | {row['side']} | {row['precision']} | {'yes' if row['compiled'] else 'no'} | {row['questions_per_second']:,.1f} | {row['tokens_per_second']:,.0f} | {row['tflops']:,.2f} | {share} | {memory} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True, help="folder of a fast tokenizer; its vocabulary does not matter for speed")
    parser.add_argument("--shapes", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--compile", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--limit", type=number, default=2000, help="questions, whole passages")
    parser.add_argument("--batch-size", type=number, default=32, help="questions a step")
    parser.add_argument("--layers", type=number, help="fewer than the named model has")
    parser.add_argument("--warmup", type=int, default=10, help="steps, more where torch.compile still compiles")
    parser.add_argument("--steps", type=number, default=50)
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, for utilisation, where the script does not know it")
    parser.add_argument("--threads", type=number, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    load_tokenizer(args.tokenizer), questions_in(args.data)  # what is wrong with these is said once
    rows = []
    for shape in args.shapes:
        for precision in args.precisions:
            for compiled in args.compile:
                for side in SIDES[shape]:
                    about = dict(shape=shape, side=side, precision=precision, compiled=compiled == "on")
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                        try: rows.append(about | pool.submit(one, shape, side, precision, compiled == "on", args).result())
                        except Exception as e: rows.append(about | dict(error=f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"))  # out of memory is a result too
                    print(table(rows).splitlines()[-1], file=sys.stderr)
                    result = dict(torch=torch.__version__, limit=args.limit, batch_size=args.batch_size, rows=rows)
                    if args.json: write_json(args.json, result)
    device = next((row["device"] for row in rows if "device" in row), "no device")
    print(f"{device}, torch {torch.__version__}\n\n{table(rows)}")
    if failed := sum("error" in row for row in rows): return f"{failed} of {len(rows)} rows failed"
    for shape, precision in {(row["shape"], row["precision"]) for row in rows}:
        exact = [row["loss"] for row in rows if row["shape"] == shape and row["precision"] == "fp32"]
        mine = [row["loss"] for row in rows if (row["shape"], row["precision"]) == (shape, precision)]
        if (spread := max(mine + exact) - min(mine + exact)) > ROUNDING[precision]: return f"{shape}, {precision}: the mean losses of the rows differ by {spread:.2g}"


if __name__ == "__main__": run(main)
