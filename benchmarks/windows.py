"""Windows of a data set, ours against `Dataset.map` in the usual way, on the same rows with the same threads.

    python benchmarks/windows.py --data squad-v1.1.json --tokenizer FOLDER [--threads 1] [--json OUT]
    python benchmarks/windows.py --data sample --tokenizer FOLDER --limit 100 --repeats 1

The usual way is the recipe of the Hugging Face question answering scripts: `tokenizer(question, context, truncation="only_second",
return_overflowing_tokens=True, padding="max_length")` in a batched map, then a loop over the windows. Both sides give a complete `Dataset`
in memory; seconds are the processor's. Three cases: with labels; without; and `published`, the training recipe as it stands, which keeps neither offsets nor ids (ours does).
The exit code is 1 when a column differs; time decides nothing."""
import argparse, json, os, platform, statistics
from pathlib import Path

from common import in_turns, number, questions_in, run


def options():
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a SQuAD JSON file, or sample")
    parser.add_argument("--tokenizer", required=True, help="a folder or hub name")
    parser.add_argument("--max-length", type=number, default=384, help="tokens a window")
    parser.add_argument("--stride", type=int, default=128, help="tokens that neighbouring windows share")
    parser.add_argument("--limit", type=number, help="questions, from the first on")
    parser.add_argument("--repeats", type=number, default=5, help="runs of each side, taking turns")
    parser.add_argument("--threads", type=number, default=os.cpu_count(), help="threads of the tokenizer, for both sides")
    parser.add_argument("--json", help="also write the figures to this file")
    return parser.parse_args()


def usual_map(dataset, tokenizer, max_length, stride, labels=True, published=False):
    "The recipe: pad every window to `max_length`, label it in a loop; a label needs the whole answer in the window"
    def features(rows):
        made = tokenizer([q.strip() for q in rows["question"]], rows["context"], truncation="only_second", max_length=max_length, stride=stride,
                         return_overflowing_tokens=True, return_offsets_mapping=True, padding="max_length")
        sample_mapping = made.pop("overflow_to_sample_mapping")
        if labels: made["start_positions"], made["end_positions"] = [], []
        if not published: made["example_id"] = [rows["id"][row] for row in sample_mapping]
        for i, offsets in enumerate(made["offset_mapping"]):
            sides = made.sequence_ids(i)
            if labels:
                start, end = label(offsets, sides, rows["answers"][sample_mapping[i]])
                made["start_positions"].append(start)
                made["end_positions"].append(end)
            if not published: made["offset_mapping"][i] = [o if side == 1 else None for o, side in zip(offsets, sides)]
        if published: made.pop("offset_mapping")
        return made
    return dataset.map(features, batched=True, remove_columns=dataset.column_names, load_from_cache_file=False, keep_in_memory=True)


def label(offsets, sides, answers):
    "First and last token of the first answer, (0, 0) where the window does not hold all of it"
    if not answers["answer_start"]: return 0, 0
    start_char = answers["answer_start"][0]
    end_char = start_char + len(answers["text"][0])
    first = 0
    while first < len(sides) and sides[first] != 1: first += 1
    if first == len(sides): return 0, 0
    last = len(sides) - 1
    while sides[last] != 1: last -= 1
    if offsets[first][0] > start_char or offsets[last][1] < end_char: return 0, 0
    start, end = first, last
    while start <= last and offsets[start][0] <= start_char: start += 1
    while end >= first and offsets[end][1] >= end_char: end -= 1
    return start - 1, end + 1


def differences(ours, usual):
    "Names of the columns in which the unpadded parts differ"
    import numpy as np
    def column(data, name): return data.with_format("arrow")[:][name].combine_chunks()
    def flat(lists): return np.asarray(lists.flatten())
    if len(ours) != len(usual): return ["number of windows"]
    kept = flat(column(usual, "attention_mask")) == 1
    wrong = []
    if not np.array_equal(np.diff(np.asarray(column(ours, "input_ids").offsets)), [sum(row) for row in usual["attention_mask"]]): wrong.append("lengths")
    for name in ("input_ids", "token_type_ids"):
        if name in usual.column_names and not np.array_equal(flat(column(ours, name)), flat(column(usual, name))[kept]): wrong.append(name)
    for name in ("start_positions", "end_positions", "example_id"):
        if name in usual.column_names and column(ours, name).to_pylist() != column(usual, name).to_pylist(): wrong.append(name)
    if "offset_mapping" in usual.column_names:
        spans = [o or [-1, -1] for row in usual["offset_mapping"] for o in row]
        if not np.array_equal(flat(column(ours, "offsets").flatten()).reshape(-1, 2), np.array(spans)[kept]): wrong.append("offsets")
    return wrong


def main():
    args = options()
    os.environ |= dict(TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS=str(args.threads), OMP_NUM_THREADS=str(args.threads))
    import datasets, tokenizers, transformers  # after the threads are set: they are read once
    from squad_nb.core import write_json
    from squad_nb.extractive import load_tokenizer
    from squad_nb.squad import take
    from squad_nb.windows import window_features
    datasets.disable_caching()
    datasets.disable_progress_bars()
    tokenizer, dataset = load_tokenizer(args.tokenizer), take(questions_in(args.data), args.limit)
    settings = dict(max_length=args.max_length, stride=args.stride)
    report = dict(data=Path(args.data).name, tokenizer=type(tokenizer).__name__, questions=len(dataset), **settings, threads=args.threads, repeats=args.repeats,
                  python=platform.python_version(), transformers=transformers.__version__, tokenizers=tokenizers.__version__, datasets=datasets.__version__, cases={})
    for name, labels, published in (("labels", True, False), ("no_labels", False, False), ("published", True, True)):
        sides = {"ours": lambda: window_features(dataset, tokenizer, **settings, labels=labels),
                 "usual": lambda: usual_map(dataset, tokenizer, **settings, labels=labels, published=published)}
        made, seconds = in_turns(sides, args.repeats)
        medians = {side: statistics.median(times) for side, times in seconds.items()}
        report["cases"][name] = dict(windows=len(made["ours"]), different=differences(made["ours"], made["usual"]), times_faster=round(medians["usual"]/medians["ours"], 2),
                                     **{f"{side}_seconds": [round(t, 3) for t in times] for side, times in seconds.items()})
    print(json.dumps(report, indent=1))
    if args.json: write_json(args.json, report)
    if any(case["different"] for case in report["cases"].values()): return "A column differs"


if __name__ == "__main__": run(main)
