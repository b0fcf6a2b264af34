"""Several commands in the processes that one launcher starts: `accelerate launch … tests/several.py '[["predict", …], …]'`, until one fails.
With `fsdp` before them two CPUs pass for GPUs, the only devices on which accelerate shards."""
import json, os, sys


def pass_for_gpus():
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from squad_nb import extractive, generative
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    for module in (extractive, generative):
        module.training_arguments = lambda *args, made=module.training_arguments, **more: made(*args, use_cpu=False, **more)


if __name__ == "__main__":
    *fsdp, commands = sys.argv[1:]
    if fsdp: pass_for_gpus()
    from squad_nb.cli import app
    for words in json.loads(commands):
        if code := app(words, prog_name="squad_nb", standalone_mode=False): sys.exit(code)
    if trackers := {"wandb", "tensorboard"} & sys.modules.keys(): sys.exit(f"nobody asked for {trackers}")
