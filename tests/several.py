"""Several commands in the processes that one launcher starts: `accelerate launch … tests/several.py '[["predict", …], …]'`, until one fails.
A folder before them gets a file for each process, RANK.json: what it wrote or renamed beside that folder. With `fsdp` before them two CPUs pass for GPUs, the only devices on which accelerate shards."""
import atexit, json, os, sys
from pathlib import Path


def pass_for_gpus():
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from squad_nb import extractive, generative
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    for module in (extractive, generative):
        module.training_arguments = lambda *args, made=module.training_arguments, **more: made(*args, use_cpu=False, **more)


def note_writes(to):
    "What Python opens to write, or renames; torch opens by itself the file of random numbers that each process saves"
    wrote = set()
    def hook(event, args):
        if event == "open": paths = args[:1] if args[2] & (os.O_WRONLY | os.O_RDWR) else ()
        elif event == "os.rename": paths = args[:2]
        else: return
        for path in paths:
            if isinstance(path, (str, Path)) and Path(path).is_relative_to(to.parent): wrote.add(Path(path).relative_to(to.parent).as_posix())
    sys.addaudithook(hook)
    atexit.register(lambda: (to.mkdir(exist_ok=True), (to/f"{os.environ['RANK']}.json").write_text(json.dumps(sorted(wrote)))))


if __name__ == "__main__":
    *how, commands = sys.argv[1:]
    if how == ["fsdp"]: pass_for_gpus()
    elif how: note_writes(Path(how[0]))
    from squad_nb.cli import app
    for words in json.loads(commands):
        if code := app(words, prog_name="squad_nb", standalone_mode=False): sys.exit(code)
    if trackers := {"wandb", "tensorboard"} & sys.modules.keys(): sys.exit(f"nobody asked for {trackers}")
