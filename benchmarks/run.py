"""Every benchmark in one go: all ratios as JSON, and as a table for the docs.

    python benchmarks/run.py --data squad-v1.1.json --encoder FOLDER --decoder FOLDER --reader RUN --writer RUN --predictions FILE [--threads 2] [--json OUT]
    python benchmarks/run.py --data sample        # the package's own sample and tiny models: minutes on one core, and the figures mean nothing

`--encoder` and `--decoder` are pretrained models, `--reader` and `--writer` are runs of `squad_nb train extractive` and `generative` on them. Each benchmark is a process of its own, one after the other, and a ratio is of two sides of one of them. A benchmark checks that its sides give the same; one that finds a difference, or fails,
is shown as such, the others go on, and the exit code is 1. `--json` is written after each. `--only` runs some of them. A GPU has a script of its own, gpu.py, and so has the comparison of scores at equal budget, accuracy.py."""
import argparse, json, platform, subprocess, sys, tempfile, time
from pathlib import Path

from common import number, questions_in, run
from squad_nb.core import SettingError, write_json

here = Path(__file__).parent


def benchmarks(args):
    "Name → (script and its words, what to make of its JSON: {against what: times as fast})"
    tiny, common = args.data == "sample", ["--data", args.data]
    encoder, decoder, reader, writer = args.encoder or "tiny-bert", args.decoder or "tiny-gpt2", args.reader or "tiny-bert", args.writer or "tiny-gpt2"
    tokenizers = encoder, args.writer or decoder  # a GGUF file's folder has no tokenizer of its own
    def limit(n): return ["--limit", min(n, 16) if tiny else n]
    rounds, one, threads = ["--repeats", 1 if tiny else 3], ["--threads", 1], ["--threads", args.threads]
    found = {
        "windows": (["windows.py", *common, "--tokenizer", tokenizers[0], *rounds, *one], lambda f: {"Dataset.map with overflow, padded to 384": f["cases"]["labels"]["times_faster"], "the published recipe": f["cases"]["published"]["times_faster"]}),
        "spans": (["spans.py", *common, *([] if tiny else ["--model", reader]), *rounds, *one], lambda f: {"the loops of utils_qa.py": f["ratio"], "loops that read a row once": f["ratio_lean"], "the loops, all of our candidates read": f["ratio_read"]}),
        "prompts": (["prompts.py", *common, "--tokenizer", tokenizers[1], *rounds, *one], lambda f: {"row by row": f["cases"]["labels"]["times_faster_than_row_by_row"], "a batched Dataset.map": f["cases"]["labels"]["times_faster_than_batched"]}),
        "scoring": (["scoring.py", *common, *(["--predictions", args.predictions] if args.predictions else []), *rounds], lambda f: {"the official script's steps": f["ratios"]["to_plain"], "torchmetrics": f["ratios"]["to_torchmetrics"]}),
        "training": (["training.py", *common, "--model", encoder, *limit(300), "--repeats", 1 if tiny else 2, *threads], lambda f: {"windows padded to 384": f["ratios"]["to_padded"], "padded to the longest of a batch": f["ratios"]["to_dynamic"], "group_by_length": f["ratios"]["to_by_length"]}),
        "generative training": (["generative.py", *common, "--tokenizer", tokenizers[1], *limit(96), *(["--layers", 1, "--batch-size", 4] if tiny else ["--precision", "bf16"]), *threads],
                                lambda f: {"padded to the limit, all logits": f["ratios"]["shared_to_plain"], "padded to the longest of a batch": f["ratios"]["shared_to_dynamic"], "padded to the limit; ours without sharing": f["ratios"]["unshared_to_plain"]}),
        "answers": (["generative.py", *common, "--model", writer, *([] if tiny else ["--skip", len(questions_in(args.data))*5//6]), *limit(192), *threads], lambda f: {"generate, in file order": f["ratios"]["to_file_order"], "generate, sorted by length": f["ratios"]["to_sorted"]}),
        "one question answered": (["serving.py", *common, "--model", reader, *limit(320), *threads, "--json"], _serving),
        "preparation and decoding, pointing": (["time_shares.py", *common, "--model", encoder, *limit(300), *one], _shares),
        "preparation and decoding, writing": (["time_shares.py", *common, "--writer", decoder, *limit(32), *one], _shares),
    }
    found["memory of an evaluation"] = (["memory.py", "--passages", 20], lambda f: {"all logits gathered, pointing": f["ratios"]["pointing"], "all logits gathered, writing": f["ratios"]["writing"]})
    if not tiny: found["time to F1 30"] = (["time_to_f1.py", *common, "--model", encoder, "--f1", 30, "--limit", 2000, "--epochs", 2, "--seeds", 0, 1, 2, *threads], lambda f: {"the recipe, padded to 384": _mean(f["ratios"]["to_padded"]), "the recipe, padded to the longest of a batch": _mean(f["ratios"]["to_dynamic"])})
    chosen = {name: made for name, made in found.items() if not args.only or name.split()[0] in args.only or name in args.only}
    if not chosen: raise SettingError(f"--only names none of {', '.join(found)}")
    return chosen


def _mean(ratios): return sum(ratios.values())/len(ratios) if ratios else None


def _shares(f): return {"the model reading, preparation": f["times_the_model"]["preparation"], "the model at work, decoding": f["times_the_model"]["decoding"]}


def _serving(f):
    side = {name: figures["calls_of_1"]["questions_per_second"] for name, figures in f["sides"].items()}
    return {f"{name}: torch, float32": side[name]/side["torch, float32"] for name in ("ONNX", "ONNX, int8")}


def measured(words):
    "Exit code, standard output and last line of standard error of a benchmark, whose progress is shown"
    with tempfile.TemporaryFile("w+") as out:
        process, last = subprocess.Popen([sys.executable, here/words[0], *map(str, words[1:])], stdout=out, stderr=subprocess.PIPE, text=True), "no message"
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            last = line.strip() or last
        code = process.wait()
        out.seek(0)
        return code, out.read(), last


def table(results):
    "Markdown"
    lines = ["| what | against | times as fast, of memory times as little |", "|---|---|---|"]
    for name, result in results.items():
        rows = result["ratios"].items() if "ratios" in result else [(result["error"], None)]
        lines += [f"| {name} | {against} | {'' if ratio is None else f'{ratio:.1f}'} |" for against, ratio in rows]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="SQuAD v1.1 JSON, or 'sample'")
    parser.add_argument("--encoder", help="folder of an encoder")
    parser.add_argument("--decoder", help="folder of a causal language model, or a GGUF file's")
    parser.add_argument("--reader", help="folder of a trained model that points")
    parser.add_argument("--writer", help="folder of a trained model that writes")
    parser.add_argument("--predictions", help="{id: text} for scoring")
    parser.add_argument("--only", nargs="+", help="first words of the table's names")
    parser.add_argument("--threads", type=number, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.data != "sample" and (missing := [f"--{name}" for name in ("encoder", "decoder", "reader", "writer") if not getattr(args, name)]): parser.error(f"real data need {', '.join(missing)}")
    results = {}
    for name, (words, ratios) in benchmarks(args).items():
        print(f"{name} …", file=sys.stderr)
        began = time.perf_counter()
        code, said, last = measured(words)
        took = dict(command=" ".join(map(str, words)), seconds=round(time.perf_counter() - began, 1))
        try: took |= dict(figures=json.loads(said))
        except ValueError: code = code or 1
        results[name] = took | (dict(error=f"FAILED: {last}") if code else dict(ratios={against: None if ratio is None else round(ratio, 2) for against, ratio in ratios(took["figures"]).items()}))
        if args.json: write_json(args.json, dict(python=platform.python_version(), machine=platform.machine(), threads=args.threads, results=results))  # all of them take hours
    print(table(results))
    return int(any("error" in result for result in results.values()))


if __name__ == "__main__": run(main)
