"""Prompts of a data set, ours against `Dataset.map` in the plain way, on the same rows with the same threads.

    python benchmarks/prompts.py --data squad-v1.1.json --tokenizer FOLDER [--threads 1] [--json OUT]
    python benchmarks/prompts.py --data sample --tokenizer FOLDER --limit 100 --repeats 1

The plain way tokenizes the pieces of every row, cuts windows in a loop and joins lists: row by row, and in batches of 1000 rows for the tokenizer.
It is for byte-level tokenizers. Seconds are the processor's. All sides give a complete `Dataset` in memory. The exit code is 1 when a column differs; time decides nothing."""
import argparse, json, os, platform, statistics
from pathlib import Path

from common import in_turns, number, questions_in, run


def options():
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a SQuAD JSON file, or sample")
    parser.add_argument("--tokenizer", required=True, help="a folder or hub name; of a model trained from a GGUF file, the run's folder")
    parser.add_argument("--max-context-length", type=number, default=384, help="tokens of context a window")
    parser.add_argument("--stride", type=int, default=128, help="tokens that neighbouring windows share")
    parser.add_argument("--layout", default="question_first", help="question_first or context_first")
    parser.add_argument("--limit", type=number, help="questions, from the first on")
    parser.add_argument("--repeats", type=number, default=3, help="runs of each side, taking turns")
    parser.add_argument("--threads", type=number, default=os.cpu_count(), help="threads of the tokenizer, for all sides")
    parser.add_argument("--json", help="also write the figures to this file")
    return parser.parse_args()


def plain_map(dataset, tokenizer, config, labels, batch_size):
    "The plain way: for every row its pieces, its windows and one list after another"
    eos = [tokenizer.eos_token_id]

    def ids(texts): return tokenizer(texts, add_special_tokens=False)["input_ids"]
    head = ids(["Question:" if config.layout == "question_first" else "Context:", " Context:" if config.layout == "question_first" else " Question:", " answer:"])

    def features(rows):
        questions = [q[:config.max_question_length] for q in ids([" " + q.strip() for q in rows["question"]])]
        contexts = tokenizer([" " + c for c in rows["context"]], add_special_tokens=False, return_offsets_mapping=True)
        first = [(a["text"] or [""])[0].strip() for a in rows["answers"]]
        answers = ids([" " + a if a else "" for a in first])
        made = {}
        for i, question in enumerate(questions):
            context, offsets = contexts["input_ids"][i], [(max(a - 1, 0), max(b - 1, 0)) for a, b in contexts["offset_mapping"][i]]
            begins = cut(len(context), config.max_context_length, config.stride)
            for w in [choose(begins, offsets, config.max_context_length, rows["context"][i], rows["answers"][i])] if labels else range(len(begins)):
                part = slice(begins[w], begins[w] + config.max_context_length)
                texts = [(1, question), (0, context[part])] if config.layout == "question_first" else [(0, context[part]), (1, question)]
                parts = [(texts[0][0], head[0] + texts[0][1]), (texts[1][0], head[1] + texts[1][1]), (2, head[2])]
                if labels: parts.append((2, answers[i][:config.max_answer_length] + eos))
                tokens, segments = [t for _, p in parts for t in p], [s for s, p in parts for _ in p]
                row = dict(example_id=rows["id"][i], window=w, context_start=offsets[part][0][0] if offsets[part] else 0, context_end=offsets[part][-1][1] if offsets[part] else 0)
                if labels:
                    learned = [0]*sum(len(p) for _, p in parts[:3]) + [1]*(len(parts[3][1]) - 1) + [int(len(answers[i]) <= config.max_answer_length)]
                    row |= dict(labels=tokens[1:], labels_mask=learned[1:])
                    tokens, segments = tokens[:-1], segments[:-1]
                for name, value in (row | dict(input_ids=tokens, segments=segments, input_mask=[1]*len(tokens))).items(): made.setdefault(name, []).append(value)
        return made
    return dataset.map(features, batched=True, batch_size=batch_size, remove_columns=dataset.column_names, load_from_cache_file=False, keep_in_memory=True)


def cut(length, size, stride):
    "Where windows begin"
    begins = [0]
    while begins[-1] + size < length: begins.append(begins[-1] + size - stride)
    return begins


def choose(begins, offsets, size, context, answers):
    "The window in which the first answer stands most central"
    text, start = next(zip(answers["text"], answers["answer_start"]), ("", 0))
    if not text.strip() or context[start:start + len(text)] != text: return 0
    begun = max(i for i, (a, _) in enumerate(offsets) if a <= start)
    done = min(i for i, (_, b) in enumerate(offsets) if b >= start + len(text))
    low, high = sorted([begun, done])
    room = [min(low - b, min(b + size, len(offsets)) - 1 - high) for b in begins]
    return room.index(max(room))


def main():
    args = options()
    os.environ |= dict(TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS=str(args.threads), OMP_NUM_THREADS=str(args.threads))
    import datasets, tokenizers, transformers, warnings  # after the threads are set: they are read once
    from squad_nb.core import write_json
    from squad_nb.extractive import load_tokenizer
    from squad_nb.prompts import PromptConfig, prompt_features
    from squad_nb.squad import take
    datasets.disable_caching()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore")  # of long answers, which both sides cut
    tokenizer, dataset = load_tokenizer(args.tokenizer), take(questions_in(args.data), args.limit)
    config = PromptConfig(max_context_length=args.max_context_length, stride=args.stride, layout=args.layout)
    report = dict(data=Path(args.data).name, tokenizer=type(tokenizer).__name__, questions=len(dataset), max_context_length=args.max_context_length, stride=args.stride,
                  layout=args.layout, threads=args.threads, repeats=args.repeats, python=platform.python_version(), transformers=transformers.__version__,
                  tokenizers=tokenizers.__version__, datasets=datasets.__version__, cases={})
    for name, labels in (("labels", True), ("no_labels", False)):
        sides = {"ours": lambda: prompt_features(dataset, tokenizer, config, labels), "row_by_row": lambda: plain_map(dataset, tokenizer, config, labels, 1),
                 "batched": lambda: plain_map(dataset, tokenizer, config, labels, 1000)}
        made, seconds = in_turns(sides, args.repeats)
        medians = {side: statistics.median(times) for side, times in seconds.items()}
        different = [f"{side}: {column}" for side in ("row_by_row", "batched") for column in made[side].column_names if made[side][column][:] != made["ours"][column][:]]
        report["cases"][name] = dict(rows=len(made["ours"]), different=different, **{f"times_faster_than_{side}": round(medians[side]/medians["ours"], 2) for side in ("row_by_row", "batched")},
                                     **{f"{side}_seconds": [round(t, 3) for t in times] for side, times in seconds.items()})
    print(json.dumps(report, indent=1))
    if args.json: write_json(args.json, report)
    if any(case["different"] for case in report["cases"].values()): return "A column differs"


if __name__ == "__main__": run(main)
