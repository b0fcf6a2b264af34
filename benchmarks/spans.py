"""Every question's n best spans, ours against the usual loops over the 20 best starts and ends, on the same logits with the same threads.

    python benchmarks/spans.py --data squad-v1.1.json --model FOLDER --save logits.npz   # logits of a fine-tuned model, kept
    python benchmarks/spans.py --data squad-v1.1.json --tokenizer FOLDER --logits logits.npz   # the same logits again
    python benchmarks/spans.py --data sample --limit 200          # seeded logits, peaked at the answers as a trained model's are

Both sides start from the logits and the windows, run with the same number of threads, and give each question its answer and n best candidates.
The loops write out every candidate with text, place, score and probability. Ours finds, ranks and scores all of its candidates too, but cuts
texts and makes objects only when they are read. So there are three ratios: `ratio` is the loops' time by that of `decode_spans` alone, which is
what evaluation waits for; `ratio_lean` the same for loops that read each row once, and of it nothing but id and offsets, which is cheaper than
the recipe's way; `ratio_read` is the loops' time by that of `decode_spans` and reading every candidate of every question. Ours do not
overlap one another, so they are often fewer than n; `candidates` counts both sides'.

The exit code is 1 when a span of the loops scores higher than ours, or another one than ours, of the same score, stands before it, or when one of our candidates is no span of a window, or has not the score of its two logits. Seconds are the processor's."""
import argparse, json, sys, time
from collections import defaultdict

import numpy as np
import torch

from common import number, run
from squad_nb.extractive import load_tokenizer
from squad_nb.spans import decode_spans
from squad_nb.squad import load_squad, take
from squad_nb.windows import window_features


def loop_spans(start_logits, end_logits, windows, dataset, n_best=20, max_answer_length=30, lean=False):
    """The usual recipe, step by step as run_qa's utils_qa.py of transformers post-processes: group the windows by question, in each window pair the n_best highest starts with the n_best highest ends,
    skip what is no span, sort what is left. It reads a window's row once to group it and twice to search it; `lean` loops read it once, and of it two columns"""
    if lean: windows = windows.select_columns(["example_id", "offsets"])
    of_question, predictions = defaultdict(list), {}
    for row, id in enumerate(windows["example_id"] if lean else (window["example_id"] for window in windows)): of_question[id].append(row)
    for example in dataset:
        found, null = [], None
        for ordinal, row in enumerate(of_question[example["id"]]):
            start, end, offsets, most = start_logits[row], end_logits[row], windows[row]["offsets"], None if lean else windows[row].get("token_is_max_context")
            if null is None or null > start[0] + end[0]: null = start[0] + end[0]
            start_indexes = np.argsort(start)[-1:-n_best - 1:-1].tolist()
            end_indexes = np.argsort(end)[-1:-n_best - 1:-1].tolist()
            for s in start_indexes:
                for e in end_indexes:
                    if s >= len(offsets) or e >= len(offsets) or offsets[s][0] < 0 or offsets[e][0] < 0: continue
                    if e < s or e - s + 1 > max_answer_length: continue
                    if most is not None and not most.get(str(s), False): continue
                    found.append(dict(offsets=(offsets[s][0], offsets[e][1]), score=start[s] + end[e], start_logit=start[s], end_logit=end[e], window=ordinal))
        found = sorted(found, key=lambda c: c["score"], reverse=True)[:n_best]
        for c in found:
            c["start"], c["end"] = c.pop("offsets")
            c["text"] = example["context"][c["start"]:c["end"]]
        shares = np.exp([c["score"] - found[0]["score"] for c in found])
        for c, share in zip(found, shares/shares.sum()): c["probability"] = share
        candidates = [{k: float(v) if isinstance(v, np.floating) else v for k, v in c.items()} for c in found]
        predictions[example["id"]] = dict(text=found[0]["text"] if found else "", null_score=float(null), candidates=candidates)
    return predictions


def seeded_logits(windows, seed):
    "Logits with the shape of a trained model's: low nearly everywhere, a few places the model wavers between, high at the label"
    rng, lengths = np.random.default_rng(seed), [len(ids) for ids in windows["input_ids"]]
    rows = np.arange(len(windows))
    logits = rng.normal(-4, 2, (2, len(windows), max(lengths))).astype(np.float32)
    for side, column in enumerate(("start_positions", "end_positions")):
        for _ in range(3): logits[side, rows, rng.integers(0, lengths)] += rng.normal(6, 2, len(windows))
        logits[side, rows, np.array(windows[column])] += rng.normal(10, 3, len(windows))
    return logits


@torch.inference_mode()
def model_logits(folder, windows, batch=32):
    "Logits of a model for extractive answers, windows of like length together"
    from transformers import AutoModelForQuestionAnswering
    model = AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
    names = [name for name in ("input_ids", "token_type_ids") if name in windows.column_names]
    lengths = np.array([len(ids) for ids in windows["input_ids"]])
    logits = np.zeros((2, len(windows), lengths.max()), np.float32)
    order = np.argsort(lengths)
    for rows in np.split(order, range(batch, len(order), batch)):
        part, width = windows.select(rows), lengths[rows].max()
        mask = torch.arange(width) < torch.from_numpy(lengths[rows])[:, None]
        inputs = {name: torch.zeros(mask.shape, dtype=torch.long) for name in names}
        for name in names: inputs[name][mask] = torch.tensor(np.concatenate(part[name][:]), dtype=torch.long)
        out = model(**inputs, attention_mask=mask.long())
        logits[:, rows, :width] = torch.stack([out.start_logits, out.end_logits]).numpy()
    return logits


def compare(ours, theirs):
    "How the best spans of two decoders relate; `violations` are the ids where ours is not the best"
    counts, violations = dict(equal=0, ours_higher=0, equal_score_ours_first=0), []
    for p in ours:
        best = theirs[p.id]["candidates"]
        if not best: counts["ours_higher"] += bool(p.text); counts["equal"] += not p.text; continue
        best = best[0]
        if p.score == best["score"] and p.text == best["text"]: counts["equal"] += 1
        elif p.score > best["score"]: counts["ours_higher"] += 1
        elif p.score == best["score"] and (p.start, p.end) < (best["start"], best["end"]): counts["equal_score_ours_first"] += 1
        else: violations.append(p.id)
    return counts, violations


def wrong_candidates(ours, start_logits, end_logits, windows, dataset, max_answer_length=30):
    "Ids of questions with a candidate that is no span of one of their windows, or is not worth its two logits"
    of_question, wrong = defaultdict(list), []
    for row, id in enumerate(windows["example_id"]): of_question[id].append(row)
    offsets = windows.with_format("numpy")["offsets"][:]
    for p, context in zip(ours, dataset["context"]):
        for c in p.candidates:
            row = of_question[p.id][c.window]
            if not c.text: continue  # the null candidate
            starts, ends = np.flatnonzero(offsets[row][:, 0] == c.start), np.flatnonzero(offsets[row][:, 1] == c.end)
            worth = [start_logits[row][s] + end_logits[row][e] for s in starts for e in ends if 0 <= e - s < max_answer_length]
            if context[c.start:c.end] != c.text or not np.isclose(worth, c.score, rtol=1e-5, atol=1e-5).any(): wrong.append(p.id)
    return wrong


def fastest(work, repeats):
    "The shortest time of several, and the result"
    times = []
    for _ in range(repeats):
        began = time.process_time()
        result = work()
        times.append(time.process_time() - began)
    return min(times), result


def load(args):
    "Questions, windows, logits and what the logits are"
    dataset = take(load_squad(args.data, split="validation" if args.data == "sample" else None), args.limit)
    tokenizer = load_tokenizer(args.tokenizer or args.model or "tiny-bert")
    windows = window_features(dataset, tokenizer)
    if args.model: return dataset, windows, model_logits(args.model, windows), "model"
    if not args.logits: return dataset, windows, seeded_logits(windows, args.seed), "seeded"
    with np.load(args.logits, allow_pickle=False) as file: return dataset, windows, np.stack([file["start_logits"], file["end_logits"]]), "file"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="SQuAD JSON, or 'sample'")
    parser.add_argument("--model", help="folder of a fine-tuned extractive model, to compute the logits with")
    parser.add_argument("--tokenizer", help="tokenizer of the windows (default: the model's, or that of the package's tiny model)")
    parser.add_argument("--logits", help="npz with start_logits and end_logits of all windows, saved by --save with the same data, limit and tokenizer")
    parser.add_argument("--save", help="where to keep the logits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=number, default=1)
    parser.add_argument("--limit", type=number, help="first questions only")
    parser.add_argument("--repeats", type=number, default=3, help="the fastest counts")
    parser.add_argument("--at-least", type=float, default=0, help="fail when ours is less than so many times faster")
    parser.add_argument("--json", action="store_true", help="print nothing but JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset, windows, logits, kind = load(args)
    if args.save: np.savez(args.save, start_logits=logits[0], end_logits=logits[1])
    decode_spans(*logits, windows, dataset, null_threshold=float("inf"))  # both sides warm
    fast, ours = fastest(lambda: decode_spans(*logits, windows, dataset, null_threshold=float("inf")), args.repeats)
    read, _ = fastest(lambda: [list(p.candidates) for p in decode_spans(*logits, windows, dataset, null_threshold=float("inf"))], args.repeats)
    slow, theirs = fastest(lambda: loop_spans(*logits, windows, dataset), args.repeats)
    lean, _ = fastest(lambda: loop_spans(*logits, windows, dataset, lean=True), args.repeats)
    counts, violations = compare(ours, theirs)
    wrong = wrong_candidates(ours, *logits, windows, dataset)
    figures = dict(questions=len(dataset), windows=len(windows), logits=kind, threads=args.threads, seconds=dict(ours=round(fast, 4), ours_read=round(read, 4), loops=round(slow, 4), loops_lean=round(lean, 4)),
                   ratio=round(slow/fast, 2), ratio_lean=round(lean/fast, 2), ratio_read=round(slow/read, 2), candidates=dict(ours=sum(len(p.candidates) for p in ours), loops=sum(len(p["candidates"]) for p in theirs.values())),
                   **counts, violations=violations[:10], wrong_candidates=wrong[:10])
    print(json.dumps(figures, indent=None if args.json else 1))
    if violations: sys.exit(f"On {len(violations)} questions the loops found a better span")
    if wrong: sys.exit(f"{len(wrong)} candidates are no spans, or not worth their logits")
    if figures["ratio"] < args.at_least: sys.exit(f"{figures['ratio']} times faster is less than {args.at_least}")


if __name__ == "__main__": run(main)
