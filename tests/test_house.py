"The rules of the house: import order, clean notebooks, light imports, nothing out of date"
import ast, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

root = Path(__file__).parents[1]
notebooks = sorted(p for p in (root/"nbs").glob("**/[!_.]*.ipynb") if ".ipynb_checkpoints" not in p.parts)
modules = sorted(p for p in (root/"squad_nb").glob("*.py") if p.name != "_modidx.py")
settings = ConfigParser(delimiters=["="])
settings.read(root/"settings.ini", encoding="utf-8")
each_notebook = pytest.mark.parametrize("path", notebooks, ids=lambda p: p.relative_to(root/"nbs").as_posix())
each_module = pytest.mark.parametrize("path", modules, ids=lambda p: p.name)


def cells(path, kind=None): return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if kind in (None, c["cell_type"])]
def source(cell): return "".join(cell["source"])
def number(path): return int(found[1]) if (found := re.match(r"(\d+)_", path.name)) else None


def room(path):
    "The module that a notebook exports to, or None"
    found = [m[1] for c in cells(path, "code") if (m := re.search(r"^#\s*\|\s*default_exp\s+(\S+)", source(c), flags=re.M))]
    return found[0] if found else None


def plain(code): return re.sub(r"^(\s*)[%!].*", r"\1pass", code, flags=re.M)  # without IPython's own lines


def imports(code):
    "Every module that code imports, anywhere in it: `from squad_nb import core` is squad_nb.core"
    for node in ast.walk(ast.parse(plain(code))):
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)
        if isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["squad_nb" if node.level else "", node.module]))
            yield from [f"{base}.{a.name}" for a in node.names] if base == "squad_nb" else [base]


def rooms_imported(code): return {name.split(".")[1] for name in imports(code) if name.startswith("squad_nb.")} & order.keys()


order = {room(path): number(path) for path in notebooks if room(path)}


def python(*args):
    "Run Python in a process of its own and give what it prints"
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_are_found():
    code = "import squad_nb.core, torch\nfrom .squad import take\ndef f():\n    from squad_nb import metrics\n%matplotlib inline"
    assert list(imports(code)) == ["squad_nb.core", "torch", "squad_nb.squad", "squad_nb.metrics"]


def test_a_number_is_given_once():
    numbers = [number(path) for path in notebooks if path.parent.name == "nbs" and number(path) is not None]
    assert len(numbers) == len(set(numbers))
    assert None not in order.values(), "a notebook that exports a module needs a number"


@each_notebook
def test_a_notebook_imports_lower_numbers(path):
    if number(path) is None: return  # the index and the tutorials come after all the rooms
    code = "\n\n".join(re.sub(r"^%%.*", "", source(c)) for c in cells(path, "code") if not source(c).startswith(("%%bash", "%%html", "%%sh")))
    upwards = {name for name in rooms_imported(code) if order[name] > number(path)}
    assert not upwards, f"{path.name} imports {upwards}, which come later"


@each_module
def test_a_module_imports_lower_numbers(path):
    upwards = {name for name in rooms_imported(path.read_text()) if order[name] >= order.get(path.stem, 100)}
    assert not upwards, f"{path.name} imports {upwards}, which come later"


@each_module
def test_what_rooms_share_has_no_underscore(path):
    assert [f"{node.module}.{a.name}" for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom) and node.level for a in node.names if re.match("_[a-z]", a.name)] == []


@each_module
def test_a_module_needs_no_development_tool(path):
    assert not {name.split(".")[0] for name in imports(path.read_text())} & {"fastcore", "execnb", "nbdev", "ghapi", "pytest", "hypothesis", "smalldocs", "latex2mathml"}


dirt = {
    "a path of some machine": r"(?<![\w.])/(?:home|root|Users|work|tmp|opt|usr|var|private|content)/\w|site-packages|[A-Z]:\\\\",
    "a traceback": r"Traceback \(most recent call last\)",
    "a warning": r"\w*Warning: |\bWARNING\b|UserWarning",
    "a progress bar": r"\d%\||\d(?:it|ex|examples|B)/s\b|s/it\b|\r",
    "escape codes": r"\x1b\[",
}


@each_notebook
def test_saved_outputs_are_clean(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    assert "widgets" not in book["metadata"], "widget state is saved"
    for place, cell in enumerate(cells(path), 1):
        for out in cell.get("outputs", []):
            assert out["output_type"] != "error", f"cell {place} shows an error"
            said = [out.get("text", []), *(text for kind, text in out.get("data", {}).items() if not kind.startswith("image/"))]
            said = "\n".join(text if isinstance(text, str) else "".join(text) if isinstance(text, list) else json.dumps(text) for text in said)
            for what, pattern in dirt.items():
                assert not (found := re.search(pattern, said)), f"cell {place} shows {what}: {said[max(0, found.start() - 40):found.end() + 40]!r}"


@each_notebook
def test_sources_name_no_machine(path):
    for place, cell in enumerate(cells(path), 1):
        assert not (found := re.search(r"(?<![\w.])/(?:home|root|Users|work)/\w+", source(cell))), f"cell {place} names {found[0]}"


@each_notebook
def test_few_cells_are_hidden(path):
    hidden = [c for c in cells(path, "code") if re.search(r"^#\s*\|\s*(?:hide\b|include:\s*false)", source(c), flags=re.M)]
    assert len(hidden) <= max(1, len(cells(path)) / 5), "a fifth of the cells at most; move checks to tests/"


@each_notebook
def test_the_title_stands_alone(path):
    "nbdev makes front matter of the cell with the title, and drops everything in it but the title, the sentence and its settings"
    lost = [line for line in source(cells(path)[0]).splitlines() if line.strip() and not re.match(r"# |> |- \S.*:", line)]
    assert not lost, f"the site would not show {lost[0]!r}: begin a new cell after the sentence"


@pytest.mark.parametrize("path", [p for p in notebooks if "Open in Colab" in p.read_text(encoding="utf-8")], ids=lambda p: p.stem)
def test_a_badge_opens_its_own_notebook(path):
    "On Colab, where the package is not installed and nothing of its development tools is"
    text, code = ("\n\n".join(map(source, cells(path, kind))) for kind in (None, "code"))
    git, branch = (settings["DEFAULT"][name] for name in ("git_url", "branch"))
    assert re.findall(r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/([^)\s]+)", text) == [f"{branch}/{path.relative_to(root)}"]
    install, = re.findall(r"!pip .*", code)
    assert re.fullmatch(rf'!pip install -q "({settings["DEFAULT"]["lib_name"]}\[(\w+,?)+\] @ )?git\+{re.escape(git)}@{branch}"( "moto\[s3,server\]")?', install), install
    assert not {name.split(".")[0] for name in imports(code)} & {"fastcore", "execnb", "nbdev"}


def test_the_sidebar_lists_every_notebook():
    def pages(contents):
        for entry in contents:
            if isinstance(entry, str): yield entry
            else: yield from pages(entry["contents"]) if "contents" in entry else [entry["href"]]
    listed = list(pages(yaml.safe_load((root/"_quarto.yml").read_text())["website"]["sidebar"]["contents"]))
    assert sorted(page for page in listed if page.endswith(".ipynb")) == [p.relative_to(root/"nbs").as_posix() for p in notebooks]


def test_readme_is_the_index(): python("tools/readme.py", "--check")
def test_addresses_are_those_of_the_settings(): python("tools/links.py", "--check")


heavy = {"torch", "transformers", "datasets", "pandas"}
loaded = f"import sys; print(*sorted({heavy!r} & sys.modules.keys()))"


def test_import_is_light(): assert python("-c", f"import squad_nb; {loaded}").strip() == ""


def test_help_is_light():
    said = python("-c", f"""
import sys
from squad_nb.cli import main
sys.argv = ["squad_nb", "--help"]
try: main()
except SystemExit as e: assert not e.code, e.code
print("loaded:", end=" "); {loaded}""")
    help_text, _, modules = said.rpartition("loaded:")
    assert "demo" in help_text and modules.strip() == ""
