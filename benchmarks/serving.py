"""Answering in production: the `Predictor` in torch, its ONNX program and the 8-bit one, question by question and 32 questions in a call.

    python benchmarks/serving.py --model RUN --data squad-v1.1.json [--test-articles 8] [--limit 320] [--threads 1] [--json]
    python benchmarks/serving.py                # tiny-bert on the sample, in seconds; the figures mean nothing

RUN is a folder of `squad_nb train extractive`. `--limit` questions are drawn at random, with seed 0, and keep their order. All sides get the same ones and take turns at each call, so that other work on the machine meets them all. A time is
that of one call, `answer(question, context)` or `predict` of 32 questions: windows, model and decoding. How many windows the model then reads at a time is said of each side: up to 32 in torch, one in the programs, which is what `OnnxReader`
does unless it is told otherwise, and once more up to 32. `Predictor` answers in the precision it chooses, and once more in float32, which is what the programs are compared with: the exit code is 1 when a float program answers differently
by more than rounding. EM and F1 are those of the questions timed. Prints a table; with `--json` the figures."""
import argparse, json, os, platform, tempfile, time
from pathlib import Path

from common import number, run

CALLS = 1, 32  # Questions in one
WINDOWS = 32   # At a time, at most


def options():
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-bert", help="folder of a trained model that points")
    parser.add_argument("--data", default="sample", help="a SQuAD JSON file, or sample")
    parser.add_argument("--test-articles", type=int, default=0, help="ask only about the last N articles, which the model was not trained on")
    parser.add_argument("--limit", type=number, default=320, help="questions, drawn at random")
    parser.add_argument("--threads", type=number, default=1, help="of torch and of onnxruntime")
    parser.add_argument("--json", action="store_true", help="print the figures")
    return parser.parse_args()


def chosen(args):
    "The questions"
    from squad_nb.squad import load_squad, split_by_article, take
    data = load_squad(args.data)
    data = data["validation"] if isinstance(data, dict) else data
    if args.test_articles: data = split_by_article(data, args.test_articles)[1]
    return take(data, args.limit, seed=0)


def trained(name, folder):
    "The folder of a trained model; of a model of the package, with settings to ask it by"
    if Path(name).is_dir(): return Path(name)
    from squad_nb.extractive import ExtractiveConfig, load_reader
    model, tokenizer = load_reader(name)
    ExtractiveConfig(max_length=192, stride=48).save_in(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sides(model, scratch, threads):
    "Name → what answers; name → bytes of its weights, and the windows it reads at a time"
    import torch
    from squad_nb.export import export_model
    from squad_nb.predictor import Predictor
    from squad_nb.runner import OnnxReader
    torch.set_num_threads(threads)
    exported = {kind: export_model(model, scratch/kind, kind) for kind in ("onnx", "int8")}
    auto, whole = (Predictor.from_pretrained(model, device="cpu", batch_size=WINDOWS) for _ in range(2))
    whole.half = None
    name = "torch" if auto.half is None else f"torch, {str(auto.half).removeprefix('torch.')}"
    found = {"torch, float32": whole} | ({name: auto} if auto.half is not None else {})
    about = {name: dict(bytes=exported["onnx"].before, windows=WINDOWS) for name in found}
    for name, made in (("ONNX", exported["onnx"]), ("ONNX, int8", exported["int8"])):
        for more, windows in (("", {}), (f", {WINDOWS} windows", dict(batch_size=WINDOWS))):
            found[name + more] = side = OnnxReader(made.folder, threads, **windows)
            about[name + more] = dict(bytes=made.after, windows=side.batch_size)
    return found, about


def timed(answering, questions, size):
    "Name → seconds of each call, and the answers; all sides take turns"
    rows, seconds, said = list(questions), {name: [] for name in answering}, {name: [] for name in answering}
    for i in range(-size, len(rows), size):  # the first call is not counted
        part = rows[max(i, 0):max(i, 0) + size]
        if i + size > len(rows) >= size: break  # of whole batches only
        for name, side in answering.items():
            asked = part if hasattr(side, "program") else questions.select(range(max(i, 0), max(i, 0) + len(part)))
            began = time.perf_counter()
            made = [side.answer(part[0]["question"], part[0]["context"])] if size == 1 else side.predict(asked)
            if i >= 0: seconds[name].append(time.perf_counter() - began); said[name] += [p._replace(id=row["id"]) for p, row in zip(made, part)]
    return seconds, said


def figures(seconds, answered):
    "Milliseconds a call, and questions a second, of so many; of few calls there is no 95th percentile"
    import numpy as np
    p50, p95 = np.percentile(seconds, (50, 95))*1000
    return dict(calls=len(seconds), p50_ms=round(float(p50), 2), p95_ms=round(float(p95), 2) if len(seconds) >= 100 else None, slowest_ms=round(1000*max(seconds), 2), questions_per_second=round(answered/sum(seconds), 2))


def table(report):
    "Markdown"
    titles = [title for size in CALLS for title in (f"{size} question{'s'*(size > 1)} in a call: p50 / p95, of few calls the slowest, ms", "questions/s")]
    lines = ["| " + " | ".join(["", "MB", "windows at a time", "EM / F1", "other answers", *titles]) + " |", "|---"*(5 + len(titles)) + "|"]
    for name, side in report["sides"].items():
        times = " | ".join(f"{x['p50_ms']:.1f} / {x['p95_ms'] or x['slowest_ms']:.1f} | {x['questions_per_second']:.1f}" for x in (side[f"calls_of_{size}"] for size in CALLS))
        lines.append(f"| {name} | {side['bytes']/1e6:.1f} | {side['windows']} | {side['exact_match']:.2f} / {side['f1']:.2f} | {side['different']} | {times} |")
    return "\n".join([*lines, "", f"{report['questions']} questions, {report['threads']} threads"])


def main():
    args = options()
    os.environ |= dict(TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS=str(args.threads), OMP_NUM_THREADS=str(args.threads))
    import datasets, onnxruntime, torch, transformers  # after the threads are set: they are read once
    from squad_nb.metrics import squad_metrics
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        questions = chosen(args)
        answering, about = sides(trained(args.model, Path(scratch)/"model"), Path(scratch), args.threads)
        runs = {size: timed(answering, questions, size) for size in CALLS}
    right, report, wrong = runs[1][1]["torch, float32"], {}, []
    for name, said in runs[1][1].items():
        other = [(p, q) for p, q in zip(said, right, strict=True) if (p.text, p.start) != (q.text, q.start)]
        if name.startswith("ONNX") and "int8" not in name: wrong += [p.id for p, q in other if abs(p.score - q.score) > 1e-3]
        scores = squad_metrics({p.id: p.text for p in said}, questions)
        report[name] = about[name] | dict(exact_match=scores["exact_match"], f1=scores["f1"], different=len(other)) | {f"calls_of_{size}": figures(seconds[name], len(answers[name])) for size, (seconds, answers) in runs.items()}
    report = dict(model=Path(args.model).name, data=Path(args.data).name, questions=len(questions), threads=args.threads, python=platform.python_version(), torch=torch.__version__, onnxruntime=onnxruntime.__version__, different_answers=wrong, sides=report)
    print(json.dumps(report, indent=1) if args.json else table(report))
    if wrong: return f"{len(wrong)} answers of a float program differ by more than rounding"


if __name__ == "__main__": run(main)
