"""The documentation site of nbs/ and _quarto.yml: `python tools/docs.py [--with quarto] [FOLDER]`

The notebooks are prepared here, with nbdev's processors, for either program that makes pages of them: smalldocs, which is a Python package, or Quarto.
No example is run: pages show the outputs that are saved, and signatures are read from the exported modules."""
import argparse, ast, importlib, inspect, operator, os, re, shutil, subprocess, sys, tempfile, textwrap
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
os.environ |= {"IN_TEST": "1", "HF_HUB_OFFLINE": "1"}  # nbdev_export() in a notebook does nothing
import yaml
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from latex2mathml.converter import convert as mathml
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor
from nbdev.processors import FilterDefaults, _default_exp, _is_showdoc, add_links, add_show_docs, exec_show_docs

nbs = root/"nbs"
config = ConfigParser(delimiters=["="])
config.read(root/"settings.ini", encoding="utf-8")
about = config["DEFAULT"]
site = about["doc_host"] + about["doc_baseurl"]


def sources():
    "What the site is made of: everything in nbs/ but what a notebook wrote there and what begins with a dot or an underscore"
    for path in sorted(nbs.rglob("*")):
        parts = path.relative_to(nbs).parts
        if path.is_file() and parts[0] != "runs" and not any(p[0] in "._" for p in parts): yield path


def page(path):
    "Where a source stands among the pages, as nbdev names them: nbs/10_squad.ipynb is squad.ipynb"
    path = path.relative_to(nbs)
    return path.with_name(re.sub(r"^\d+[a-zA-Z0-9]*_", "", path.name)) if path.suffix == ".ipynb" else path


class Links:
    "Make links, written to be right in the repository, right on the site"
    def __init__(self, paths):
        self.pages = {path: page(path) for path in paths} | {path.resolve(): page(path) for path in paths}  # a page may be a link to a file elsewhere

    def target(self, link, path):
        "Where a link that stands in the file at `path` leads on the site"
        link, mark, anchor = link.partition("#")
        if link.startswith(site): return self.of_page(link.removeprefix(site).lstrip("/") or "index.html", path) + mark + anchor
        if not link or re.match(r"[a-z][\w+.-]*:|/", link): return link + mark + anchor
        file = (path.resolve().parent/link).resolve()
        if file in self.pages: return self.of_page(self.pages[file], path) + mark + anchor
        if file.is_relative_to(root) and file.exists(): return f"{about['git_url']}/blob/{about['branch']}/{file.relative_to(root).as_posix()}{mark}{anchor}"
        return link + mark + anchor

    def of_page(self, to, path): return os.path.relpath(to, page(path).parent)

    def markdown(self, text, path):
        "Markdown, with the links and formulas in it outside code"
        parts = re.split(r"(^ *```.*?^ *```[ ]*$|`[^`\n]+`)", text, flags=re.M | re.S)
        text = formulas("\0".join(parts[::2]))  # a link's own text may hold code
        for pattern in (r"(\]\()([^)\s]+)(\)|\s+\"[^\"]*\"\))", r"(\b(?:src|href)=\")([^\"]+)(\")"):
            text = re.sub(pattern, lambda m: m[1] + self.target(m[2], path) + m[3], text)
        rest = iter(parts[1::2])
        return re.sub("\0", lambda _: next(rest), text)


def formulas(text):
    "TeX between dollars as MathML, which browsers draw without a script from another site"
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: mathml(m[1], display="block"), text, flags=re.S)
    return re.sub(r"(?<![\\$])\$(?=\S)([^$\n\0]*[^\s$\\])\$(?!\d)", lambda m: mathml(m[1]), text)


class in_written_order(add_show_docs):
    "nbdev shows the last definition of a cell first"
    def begin(self):
        super().begin()
        cells, shown = [], []
        for cell in self.nb.cells:
            if getattr(cell, "has_sd", False): shown.insert(0, cell)
            else:
                cells += [*shown, cell]
                shown = []
        self.nb.cells[:] = cells + shown


def fields(cls):
    "A class as it is written, down to its first method: the signature of a class that takes anything says nothing"
    node, source = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0], textwrap.dedent(inspect.getsource(cls)).splitlines()
    lines = [source[n.lineno - 1] for n in node.body if isinstance(n, ast.AnnAssign)]
    return "\n".join([source[node.lineno - 1].split(": \"")[0].rstrip(":") + (":" if lines else ""), *lines])


class show_from_module(Processor):
    "Signatures of what the module exports, with no cell run: an example may train for a minute"
    def begin(self):
        name = _default_exp(self.nb)
        self.shell = CaptureShell()
        self.shell.run_cell("from nbdev.showdoc import show_doc")
        if name: self.shell.user_ns.update(vars(importlib.import_module(f"{about['lib_path']}.{name}")))

    def __call__(self, cell):
        if not _is_showdoc(cell): return
        self.shell.cell(cell)
        if self.shell.exc: raise self.shell.exc
        name = re.search(r"show_doc\(([\w.]+)", cell.source)[1]
        thing = operator.attrgetter(name)(SimpleNamespace(**self.shell.user_ns))
        line = inspect.getsourcelines(inspect.unwrap(thing))[1]
        for out in cell.outputs:
            if "text/markdown" not in out.get("data", {}): continue
            text = plain_types("".join(out["data"]["text/markdown"])).replace("#LNone", f"#L{line}")
            if inspect.isclass(thing): text = re.sub(r"(?<=```python\n)def \w+\(\s*\*args, \*\*kwargs\s*\):(?=\n```)", lambda _: fields(thing), text)
            out["data"]["text/markdown"] = [text]


def plain_types(text):
    "Types by the names that people write: `Path`, not `pathlib.Path`; an option of a command is told on the page of the commands"
    text = re.sub(rf"\b(?:{about['lib_path']}\.\w+|pathlib|collections\.abc|typing)\.(?=[A-Z])|\bnumpy\.(?=ndarray)", "", text)
    text = re.sub(r"(=(['\"]).{40}).{40,}\2(?=,)", r"\1…\2", text)  # a default that is a page of text
    return re.sub(r"(\w): ?Annotated\b", r"\1", text)


def link_names(cell):
    "A name in backticks links to its page, except in code and where it is a link already"
    lookup = NbdevLookup()
    def link(found):
        if not (to := lookup.doc(found[1])): return found[0]
        to, _, anchor = to.partition("#")
        return f"[{found[0]}]({to}#{anchor.partition('.')[0]})"  # a method stands with its class
    def linked(text):
        parts = re.split(r"(^ *```.*?^ *```[ ]*$|^    [^\n]*$|\[[^\]]*\]\([^)]*\))", text, flags=re.M | re.S)
        return "".join(part if i % 2 else re.sub(r"`([^`\s]+?)(?:\(\))?`", link, part) for i, part in enumerate(parts))
    if cell.cell_type == "markdown": cell.source = linked(cell.source)
    elif _is_showdoc(cell):
        for out in cell.outputs:
            if "text/markdown" in out.get("data", {}): out["data"]["text/markdown"] = linked("".join(out["data"]["text/markdown"]))


class Pages(FilterDefaults):
    "nbdev's processors, three of them replaced"
    def base_procs(self):
        ours = {add_show_docs: in_written_order, exec_show_docs: show_from_module, add_links: link_names}
        return [ours.get(proc, proc) for proc in super().base_procs()]


def stage(folder):
    "Write into `folder` what Quarto and smalldocs make pages of"
    if about["lib_name"] not in NbdevLookup().entries:  # nbdev says nothing, and makes no link
        sys.exit(f"The names in {about['lib_path']}/_modidx.py cannot be read: install the package with `make install` and export with `nbdev_export`")
    paths = list(sources())
    links = Links(paths)
    for path in paths:
        to = folder/page(path)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            nb = read_nb(path)
            Pages()(nb)
            for cell in nb.cells:
                if cell.cell_type == "markdown": cell.source = links.markdown(cell.source, path)
                for out in cell.get("outputs", []):
                    if "text/markdown" in out.get("data", {}): out["data"]["text/markdown"] = links.markdown("".join(out["data"]["text/markdown"]), path)
            nb.cells[0].source = re.sub(r"^output-file: .*\n", "", nb.cells[0].source, flags=re.M)  # the file has this name already
            nb.metadata.pop("widgets", None)
            write_nb(nb, to)
        elif path.suffix in (".md", ".qmd"): to.write_text(links.markdown(path.read_text(encoding="utf-8"), path), encoding="utf-8")
        else: shutil.copy(path, to)
    quarto = (root/"_quarto.yml").read_text(encoding="utf-8")
    (folder/"_quarto.yml").write_text(re.sub(r"[\w/-]+\.ipynb", lambda m: page(nbs/m[0]).as_posix(), quarto), encoding="utf-8")
    (folder/"nbdev.yml").write_text(yaml.safe_dump(dict(
        project={"output-dir": "_docs"},
        website={"title": about["title"], "description": about["description"], "site-url": site, "repo-url": about["git_url"], "repo-branch": about["branch"],
                 "navbar": {"right": [{"text": "GitHub", "icon": "github", "href": about["git_url"]}]}},
    )), encoding="utf-8")


def render(folder, program):
    "Make the pages of a staged folder; raises when a warning says that something is not shown as it was written"
    if program == "quarto":
        if not shutil.which("quarto"): sys.exit("Quarto is not installed: leave out `--with quarto`, or see quarto.org")
        subprocess.run(["quarto", "render", "--no-cache"], cwd=folder, check=True)
    else:
        from smalldocs.site import build
        warnings = build(folder, quiet=True).warnings
        if warnings: sys.exit("\n".join(["smalldocs:", *warnings]))
    return folder/"_docs"


def build_site(to, program="smalldocs"):
    "The site in the folder `to`, which is replaced"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()/"_proc"
        folder.mkdir()
        stage(folder)
        pages = render(folder, program)
        for sheet in pages.rglob("*.css"):  # the themes ask another site for their fonts; the reader's own do
            sheet.write_text(re.sub(r"@import\s*(?:url\()?\s*([\"']?)https?://[^\"')]*\1\)?[^;{}]*;", "", sheet.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.rmtree(to, ignore_errors=True)
        shutil.move(pages, to)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=root/about["doc_path"])
    parser.add_argument("--with", dest="program", choices=["smalldocs", "quarto"], default="smalldocs")
    options = parser.parse_args()
    build_site(options.folder, options.program)
    print(f"The site is in {options.folder}: {sum(1 for _ in options.folder.rglob('*.html'))} pages")
