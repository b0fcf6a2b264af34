"Run notebooks and save their outputs, each in a process of its own: `python tools/notebooks.py [--flags 'slow cuda'] [NOTEBOOK ...]`"
import argparse, os, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
os.environ |= {name: "1" for name in ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")}  # none in saved outputs
from conftest import code_cells


def save_outputs(path, flags):
    "Run the cells that the tests would run; the others keep the outputs they have. Raises what a cell raises, and saves nothing then"
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    nb, run = read_nb(path), {number for number, _, skip in code_cells(path, flags) if not skip}
    cells = [cell for number, cell in enumerate(nb.cells, 1) if number in run]
    os.chdir(path.parent)
    shell = CaptureShell(path)
    for cell in cells:
        cell.outputs = []  # execnb keeps the old ones where a cell shows nothing
        shell.cell(cell)
        if shell.exc: sys.exit(shell.prettytb(path.relative_to(root)))
        for out in cell.outputs: out.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)  # a page without its kernel shows the widget's HTML
    write_nb(nb, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--flags", default="", help="nbdev test flags of the cells to run as well")
    options = parser.parse_args()
    paths = [p.resolve() for p in options.notebooks] or sorted(p for p in root.glob("nbs/**/[!_.]*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    if len(paths) == 1: save_outputs(paths[0], options.flags)
    else:
        for path in paths:
            print(path.relative_to(root), flush=True)
            subprocess.run([sys.executable, __file__, "--flags", options.flags, path], check=True)
