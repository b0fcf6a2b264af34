"""The squad_nb command in processes made to be killed. Each is forked from this one, which has imported everything, so that a kill costs a second and not ten.

A request is a line of JSON: words (of the command), stage (a file that says what the process is doing), log (of its output), slow (seconds that each step and each file take longer).
The answer is two lines: the process's number at once, its return code when it has ended."""
import functools, json, os, sys, threading, time
from pathlib import Path

import torch, transformers
from tqdm import tqdm

from squad_nb import cli, extractive, generative, runs


def mark(stage: str, slow: float) -> None:
    "Have the command say what it is doing, and take its time over it"
    doing, file = ["start"], os.open(stage, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def say(): os.pwrite(file, doing[-1].ljust(20).encode(), 0)

    def during(name, function):
        @functools.wraps(function)
        def marked(*args, **kwargs):
            doing.append(name); say()
            try: return function(*args, **kwargs)
            finally: doing.pop(); say()
        return marked

    def slowly(function):
        @functools.wraps(function)
        def slow_one(*args, **kwargs):
            time.sleep(slow)
            return function(*args, **kwargs)
        return slow_one

    def by_halves(write):
        "A file is half written for a while"
        @functools.wraps(write)
        def halved(*args, **kwargs):
            out = write(*args, **kwargs)
            for path in [Path(arg) for arg in args if isinstance(arg, str)]:
                if path.is_dir(): path = path/"model.safetensors"
                if not path.is_file(): continue
                whole = path.read_bytes()
                path.write_bytes(whole[:len(whole)//2]); time.sleep(slow); path.write_bytes(whole)
            return out
        return halved

    say()
    trainer = runs.ResumableTrainer
    for owner, name, stage in ((trainer, "train", "training"), (trainer, "_save_checkpoint", "checkpoint"), (trainer, "evaluate", "evaluation"), (runs.Run, "place", "final files"),
                               (extractive, "finish_run", "end"), (generative, "finish_run", "end")): setattr(owner, name, during(stage, getattr(owner, name)))
    for owner, name in ((trainer, "training_step"), (extractive.ExtractiveTrainer, "prediction_step"), (generative.GenerativeTrainer, "prediction_step"), (runs, "flush")): setattr(owner, name, slowly(getattr(owner, name)))
    torch.save, extractive.QuestionTrainer._save = by_halves(torch.save), by_halves(extractive.QuestionTrainer._save)


def child(words, stage, log, slow) -> None:
    "Never returns"
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2): os.dup2(out, stream)
    mark(stage, slow)
    sys.argv = ["squad_nb", *words]
    code = 1
    try: cli.main()
    except SystemExit as e: code = e.code or 0
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads do not survive a fork
    tqdm.set_lock(threading.RLock())  # tqdm's own is shared by all that are forked: one that is killed with it would leave the others waiting
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0: child(**json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
