"What the benchmarks share: their clock, and mistakes said in one line."
import argparse, sys, time
from pathlib import Path


def clock() -> float:
    "Seconds of the processor, in which other work on the machine hardly shows; of a GPU, which works beside it, seconds that pass"
    import torch
    if not torch.cuda.is_available(): return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(sides: dict, repeats: int) -> tuple[dict, dict]:
    "What each side makes, and its seconds in every round"
    made, seconds = {}, {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            made.pop(name, None)  # before the next, so that no side works beside its own leavings
            began = clock()
            made[name] = side()
            seconds[name].append(clock() - began)
    return made, seconds


def number(text: str) -> int:
    "A whole number from 1 on, for argparse"
    if not text.isdecimal() or int(text) < 1: raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def questions_in(data: str):
    "Questions of a file, or those that the sample trains on"
    from squad_nb.squad import load_squad
    found = load_squad(data)
    return found["train"] if isinstance(found, dict) else found


def run(main) -> None:
    "A script as a command: the exit code is what `main` returns, and a mistake of its user is one line"
    try: sys.exit(main())
    except Exception as e:
        from squad_nb.core import SquadNbError  # not before: some scripts set their threads first
        if not isinstance(e, (SquadNbError, OSError)): raise
        sys.exit(f"{Path(sys.argv[0]).name}: {e}")
