"""EM and F1 of a file of predictions: `squad_metrics` against the official script's steps, and against torchmetrics.

    python benchmarks/scoring.py --data squad-v1.1.json --predictions predictions/v1.1-bert-ensemble.json [--json OUT]
    python benchmarks/scoring.py --data sample

All begin with {id: text}, ours with a data set in memory, the two others with lists of dictionaries, already made, as the official script reads them from JSON. Answers that were normalized in an earlier round are forgotten. torchmetrics knows SQuAD v1.1 alone. torchmetrics adds up in float32. Exits with 1 when the plain scores differ by more than rounding, or torchmetrics' by more than 0.001."""
import argparse, json, re, string
from collections import Counter
from pathlib import Path

from torchmetrics.text import SQuAD

from common import in_turns, number, run
from squad_nb.core import write_json
from squad_nb.metrics import normalize_answer, read_predictions, squad_metrics
from squad_nb.sample import overlap_baseline
from squad_nb.squad import load_squad


def plain_metrics(predictions, rows):
    "As the script of SQuAD v1.1 goes about it: every accepted answer is normalized for EM, and again for F1"
    def normalize(text):
        punctuation = set(string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", "".join(c for c in text.lower() if c not in punctuation)).split())
    def f1(text, gold):
        said, wanted = normalize(text).split(), normalize(gold).split()
        same = sum((Counter(said) & Counter(wanted)).values())
        return 2*same/(len(said) + len(wanted)) if same else 0.0
    exact = total = 0.0
    for row in rows:
        text = predictions[row["id"]]
        exact += max(normalize(text) == normalize(gold) for gold in row["answers"]["text"])
        total += max(f1(text, gold) for gold in row["answers"]["text"])
    return dict(exact_match=100*exact/len(rows), f1=100*total/len(rows))


def torchmetrics_metrics(given, wanted):
    "Its class, as a user would call it"
    found = SQuAD()(given, wanted)
    return {name: float(value) for name, value in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--predictions", type=Path, help="{id: text}; without it, the sentence that shares most words")
    parser.add_argument("--repeats", type=number, default=3, help="the fastest counts; the sides take turns")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    dataset = load_squad(args.data, split="validation" if args.data == "sample" else None)
    said = read_predictions(args.predictions) if args.predictions else overlap_baseline(dataset)
    dataset = dataset.select([i for i, row in enumerate(dataset) if row["id"] in said and row["answers"]["text"]]).flatten_indices()  # what all three can score
    said = {id: said[id] for id in dataset["id"]}
    given, wanted = [dict(id=id, prediction_text=text) for id, text in said.items()], [dict(id=row["id"], answers=row["answers"]) for row in dataset]
    def ours():
        normalize_answer.cache_clear()
        return squad_metrics(said, dataset)
    sides = dict(ours=ours, plain=lambda: plain_metrics(said, wanted), torchmetrics=lambda: torchmetrics_metrics(given, wanted))
    scores, seconds = in_turns(sides, args.repeats)
    best = {name: min(times) for name, times in seconds.items()}
    result = dict(questions=len(dataset), scores=scores, seconds=best, ratios=dict(to_plain=best["plain"]/best["ours"], to_torchmetrics=best["torchmetrics"]/best["ours"]))
    print(json.dumps(result, indent=1))
    if args.json: write_json(args.json, result)
    if any(abs(scores["ours"][key] - scores[name][key]) > off for name, off in (("plain", 1e-9), ("torchmetrics", 1e-3)) for key in ("exact_match", "f1")): return "The scores differ"


if __name__ == "__main__": run(main)
