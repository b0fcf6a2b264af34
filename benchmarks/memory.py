"""How the peak memory of an evaluation grows with the questions: ours, against gathering the logits of all rows, as transformers' Trainer does.

    python benchmarks/memory.py                                   # tiny models: 480 and 4,800 questions to point at, 240 and 2,400 to write
    python benchmarks/memory.py --model FOLDER --passages 40      # another encoder

Each side is a process of its own, which evaluates some passages of the invented world and then ten times as many. The peak of each is the kernel's: on Linux VmHWM,
which is set back before each, elsewhere ru_maxrss, which never falls and hides what is smaller than a peak before; `peak_of` says which it was. What the second took more, divided by the questions it had more, leaves out the model and the libraries. Of a model that points, `ours` is `ExtractiveTrainer.evaluate`;
`gathered` has the same windows, padded to --max-length, of which transformers' Trainer keeps all logits for the loops of run_qa; `windows` only makes the
windows, which both sides hold. Of a model that writes, `ours` is `GenerativeTrainer.evaluate`, and `gathered` is transformers' Trainer over the same labelled prompts.
`scores` is `squad_metrics` of a file of predictions. The exit code is 1 when ours took more than gathering; whether both find the same answers is the business of spans.py and generative.py."""
import argparse, json, os, platform, resource, subprocess, sys, tempfile
from pathlib import Path

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")  # of Linux
SIDES = {"windows": "reader", "ours": "reader", "gathered": "reader", "ours, writing": "writer", "gathered, writing": "writer", "scores": "scores"}


def options():
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-bert", help="an encoder with a span head: a folder, a hub name, or tiny-bert")
    parser.add_argument("--writer", default="tiny-gpt2", help="a causal language model: a folder, a hub name, or tiny-gpt2")
    parser.add_argument("--passages", type=int, default=40, help="passages of the smaller evaluation, twelve questions each; half as many where answers are written")
    parser.add_argument("--times", type=int, default=10, help="how many times as many the larger has")
    parser.add_argument("--max-length", type=int, default=384, help="tokens a window, and those that the gathered logits are padded to")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


def arguments(batch_size):
    "For a Trainer that only evaluates"
    from squad_nb.extractive import training_arguments
    return training_arguments(tempfile.mkdtemp(), precision="fp32", evaluates=False, disable_tqdm=True, per_device_eval_batch_size=batch_size, remove_unused_columns=False)


def point(side, questions, args):
    "Evaluate a model that points"
    import torch
    from transformers import Trainer
    from squad_nb.extractive import ExtractiveConfig, ExtractiveTrainer, PadCollator, load_reader
    from squad_nb.metrics import squad_metrics
    from squad_nb.windows import window_features
    from spans import loop_spans
    torch.manual_seed(0)
    model, tokenizer = load_reader(args.model)
    config = ExtractiveConfig(max_length=args.max_length, stride=args.max_length//3)
    if side == "ours": return ExtractiveTrainer(model, arguments(32), processing_class=tokenizer, config=config).evaluate(questions)
    windows = window_features(questions, tokenizer, config.max_length, config.stride)
    if side == "windows": return
    pad = PadCollator(tokenizer.pad_token_id or 0, multiple=args.max_length)
    names = [name for name in ("input_ids", "token_type_ids") if name in windows.column_names]
    start, end = Trainer(model, arguments(32), data_collator=pad).predict(windows.select_columns(names).with_format("numpy")).predictions[:2]
    squad_metrics({id: said["text"] for id, said in loop_spans(start, end, windows, questions).items()}, questions)


def write(side, questions, args):
    "Evaluate a model that writes"
    from transformers import Trainer
    from squad_nb.batching import PromptCollator
    from squad_nb.generative import GenerativeTrainer, load_writer
    from squad_nb.prompts import PromptConfig, prompt_features
    model, tokenizer = load_writer(args.writer)
    config = PromptConfig(max_answer_length=8)
    if side == "ours, writing": GenerativeTrainer(model, arguments(16), processing_class=tokenizer, config=config).evaluate(questions)
    else:
        pad = PromptCollator(tokenizer.eos_token_id)
        def without_labels(rows): return {k: v for k, v in pad(rows).items() if k != "labels"}
        model.config.use_cache = False  # or every key and value would be gathered too
        Trainer(model, arguments(16), data_collator=without_labels).predict(prompt_features(questions, tokenizer, config))


def score(side, questions, args):
    "Score a file of answers"
    from squad_nb.core import write_json
    from squad_nb.metrics import read_predictions, squad_metrics
    path = write_json(Path(tempfile.mkdtemp())/"answers.json", {row["id"]: row["question"] for row in questions})
    squad_metrics(read_predictions(path), questions)


def begin_peak():
    "Have the kernel measure the peak from now on, where it can"
    if RESET.exists(): RESET.write_text("5")


def peak():
    "What the peak is measured by, and the peak in bytes"
    if RESET.exists(): return "VmHWM", next(int(line.split()[1])*1024 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return "ru_maxrss", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == "darwin" else 1024)  # survives exec: a child begins with its parent's


def child(args):
    "Both evaluations of a side; prints the peak in bytes of each"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from squad_nb.sample import generate_squad
    from squad_nb.squad import from_squad_json
    evaluate, found = dict(reader=point, writer=write, scores=score)[SIDES[args.side]], dict(questions=[], peaks=[])
    for passages in (args.passages, args.passages*args.times):
        questions = from_squad_json(generate_squad(passages))
        begin_peak()
        evaluate(args.side, questions, args)
        found["questions"].append(len(questions))
        found["peak_of"], size = peak()
        found["peaks"].append(size)
    print(json.dumps(found))


def measure(side, args):
    "A process of its own: questions, peaks in MB, and bytes a question"
    words = [sys.executable, __file__, "--side", side, "--passages", max(args.passages//2, 1) if SIDES[side] == "writer" else args.passages, "--times", args.times,
             "--model", args.model, "--writer", args.writer, "--max-length", args.max_length]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="65536"))  # what is freed is given back, so that a peak is what is in use
    if done.returncode: sys.exit(f"{side}: {done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return dict(questions=found["questions"], peak_of=found["peak_of"], peak_mb=[round(peak/2**20) for peak in found["peaks"]], bytes_a_question=round((found["peaks"][1] - found["peaks"][0])/(found["questions"][1] - found["questions"][0])))


def main():
    args = options()
    if args.side: return child(args)
    report = dict(model=Path(args.model).name, writer=Path(args.writer).name, max_length=args.max_length, machine=platform.machine(), sides={side: measure(side, args) for side in SIDES})
    grown = {side: found["bytes_a_question"] for side, found in report["sides"].items()}
    def times(gathered, ours): return round(grown[gathered]/grown[ours], 1) if grown[ours] > 1000 else None  # less is the allocator's noise
    report["ratios"] = dict(pointing=times("gathered", "ours"), writing=times("gathered, writing", "ours, writing"))
    print(json.dumps(report, indent=1))
    if args.json: Path(args.json).write_text(json.dumps(report, indent=1))
    return int(grown["ours"] > grown["gathered"] or grown["ours, writing"] > grown["gathered, writing"])


if __name__ == "__main__": sys.exit(main())
