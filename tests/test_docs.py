"The site: every page with its title, its pictures and nothing from elsewhere; the link checker finds what is planted; the commands are those of the program"
import base64, html, json, re, shlex, shutil, subprocess, sys
from pathlib import Path

import pytest
import yaml

root = Path(__file__).parents[1]
sys.path.insert(0, str(root/"tools"))
import site_links

notebooks = sorted(p for p in (root/"nbs").glob("**/[!_.]*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def cells(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]
def source(cell): return "".join(cell["source"])
def page_name(name): return re.sub(r"(^|/)\d+[a-zA-Z0-9]*_(?=[^/]*$)", r"\1", name).removesuffix(Path(name).suffix) + ".html"
def title(name): return re.search(r"^# (.+)", source(cells(root/"nbs"/name)[0]) if name.endswith(".ipynb") else (root/"nbs"/name).read_text(encoding="utf-8"), flags=re.M)[1].replace("\\", "")
def check(folder): return subprocess.run([sys.executable, "tools/site_links.py", folder], capture_output=True, text=True, cwd=root, timeout=120)


def listed():
    "Every page that _quarto.yml names"
    def pages(contents):
        for entry in contents:
            if isinstance(entry, str): yield entry
            else: yield from pages(entry["contents"]) if "contents" in entry else [entry["href"]]
    website = yaml.safe_load((root/"_quarto.yml").read_text(encoding="utf-8"))["website"]
    return sorted({*pages(website["sidebar"]["contents"]), *pages(website["navbar"]["left"])})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")/"_docs"
    done = subprocess.run([sys.executable, "tools/docs.py", folder], capture_output=True, text=True, cwd=root, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", listed())
def test_a_page_and_its_title(site, name):
    text = (site/page_name(name)).read_text(encoding="utf-8")
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", text, flags=re.S)[1]
    assert html.unescape(re.sub(r"<[^>]+>", "", heading)).strip() == title(name)


def test_every_definition_has_a_heading_and_its_source(site):
    import ast
    for module in sorted(p for p in (root/"squad_nb").glob("[!_]*.py")):
        exported = ast.literal_eval(re.search(r"^__all__ = (\[.*?\])", module.read_text(encoding="utf-8"), flags=re.M | re.S)[1])
        defined = {node.name: node.lineno for node in ast.parse(module.read_text(encoding="utf-8")).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        text = (site/f"{module.stem}.html").read_text(encoding="utf-8")
        for name in defined.keys() & set(exported):
            assert re.search(rf'#L\d+"[^>]*>source</a></p>\s*<h3[^>]*>{name}</h3>', text), f"{module.stem}.{name}"


def test_every_link_leads_somewhere(site):
    done = check(site)
    assert done.returncode == 0, done.stdout + done.stderr


def test_results_are_the_file(site):
    assert (root/"nbs/results.md").resolve() == root/"benchmarks/RESULTS.md"
    said = html.unescape(re.sub(r"<[^>]+>", "", (site/"results.html").read_text(encoding="utf-8")))
    rows = re.findall(r"^\|(.*)\|$", (root/"benchmarks/RESULTS.md").read_text(encoding="utf-8"), flags=re.M)
    figures = {cell.strip() for row in rows for cell in row.split("|") if re.fullmatch(r"\s*[\d.,]+\s*", cell)}
    assert figures and not {figure for figure in figures if figure not in said}


@pytest.mark.parametrize("path", [p for p in notebooks if re.search(r'"image/png"|"image/svg\+xml"', p.read_text(encoding="utf-8"))], ids=lambda p: p.stem)
def test_pictures_are_there(site, path):
    outputs = [out.get("data", {}) for c in cells(path) if not re.search(r"#\|\s*hide\b", source(c)) for out in c.get("outputs", [])]
    drawn = sum("image/png" in data for data in outputs if "text/html" not in data and "image/svg+xml" not in data)
    text = (site/page_name(path.relative_to(root/"nbs").as_posix())).read_text(encoding="utf-8")
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"', text)
    assert len(found) == drawn
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data in found)
    assert sum("image/svg+xml" in data for data in outputs if "text/html" not in data) <= text.count("<svg")


# Views on the site, in a browser

@pytest.fixture
def visit(site, chromium):
    "Open a page of the site; afterwards nothing must have been asked for elsewhere, or said"
    seen, context = [], chromium.new_context(viewport=dict(width=1280, height=800))
    def open_(name):
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("request", lambda r: seen.append(f"asked for {r.url}") if not r.url.startswith(("file:", "data:")) else None)
        tab.on("pageerror", lambda e: seen.append(f"error {e}"))
        tab.on("console", lambda m: seen.append(f"console {m.text}") if m.type in ("error", "warning") else None)
        tab.goto((site/name).as_uri())
        return tab
    yield open_
    context.close()
    assert not seen


def told(text): return re.sub("[\u2068\u2069]", "", text)  # marks around quoted text, which are not seen
def drawn(kind): return [p for p in notebooks if any(f"sqv-{kind} " in "".join(out.get("data", {}).get("text/html", "")) for c in cells(p) for out in c.get("outputs", []))]
def pages(kind): return pytest.mark.parametrize("path", drawn(kind), ids=lambda p: p.stem)
def of_site(path): return page_name(path.relative_to(root/"nbs").as_posix())


@pytest.mark.parametrize("kind", ["windows", "labels", "prediction"])
def test_views_answer_on_the_site(visit, kind):
    asked = 0
    for path in drawn(kind):
        for view in visit(of_site(path)).locator(f".sqv-{kind}:has(.sqv-say)").all():
            asked += 1
            say, options = view.locator(".sqv-say"), view.locator("[data-say]:visible")
            before, last = say.inner_text(), options.nth(options.count() - 1)
            for option in (options.first, last):
                option.click()
                assert told(say.inner_text()).split() == told(option.get_attribute("data-say")).split() != before.split()
            assert option.evaluate("e => e.ariaSelected || e.classList.contains('sqv-on')")
            last.press("Escape")
            assert say.inner_text() == before
    assert asked >= len(drawn(kind)) > 0


def test_masks_answer_on_the_site(visit):
    asked = 0
    for path in drawn("mask"):
        for view in visit(of_site(path)).locator(".sqv-mask").all():
            asked += 1
            view.locator(".sqv-grid").focus()
            for key, where in (("Control+Home", (0, 0)), ("ArrowDown", (1, 0)), ("ArrowRight", (1, 1))):
                view.locator(".sqv-grid").press(key)
                assert re.match(rf"Row {where[0]}, .* looks at column {where[1]}, ", told(view.locator(".sqv-who").inner_text()))
            assert view.locator(".sqv-why").inner_text() == "open: every token sees itself"
    assert asked >= len(drawn("mask")) > 0


@pages("report")
def test_reports_filter_on_the_site(visit, path):
    view = visit(of_site(path)).locator(".sqv-report:has(.sqv-find)").first
    found, total = view.locator(".sqv-found"), sum(int(n.replace(",", "")) for n in view.locator(".sqv-kinds .sqv-count").all_inner_texts())
    assert found.inner_text() == f"{total:,} questions"
    kind = view.locator(".sqv-kinds button:not(.sqv-zero)").first
    kind.click()
    assert found.inner_text() == f"{kind.locator('.sqv-count').inner_text()} of {total:,} questions"
    asked = view.locator(".sqv-ask").inner_text()
    view.locator(".sqv-walk button").last.click()
    assert view.locator(".sqv-where").inner_text().startswith("question 2 of ") and view.locator(".sqv-ask").inner_text() != asked


def test_nothing_comes_from_elsewhere(site):
    for path, page in site_links.Site(site).pages.items():
        assert not [link for tag, link in page.links if tag in ("script", "img", "iframe") and re.match(r"(?:https?:)?//", link)], path.name
        assert not re.search(r'<link[^>]+rel="stylesheet"[^>]+href="(?:https?:)?//', path.read_text(encoding="utf-8")), path.name
    assert not [sheet.name for sheet in site.rglob("*.css") if re.search(r"@import[^;]*https?://|url\([\"']?https?://", sheet.read_text(encoding="utf-8"))]


def test_every_page_can_be_found(site):
    found = {entry["href"].partition("#")[0] for entry in json.loads((site/"search.json").read_text(encoding="utf-8"))}
    assert {page_name(name) for name in listed()} <= found


def test_a_broken_link_and_a_broken_anchor_are_found(site, tmp_path):
    copy = tmp_path/"site"
    shutil.copytree(site, copy)
    page = copy/"core.html"
    planted = '<a href="nowhere.html">a</a><a href="metrics.html#no-such-place">b</a><a href="#nor-here">c</a><img src="lost.png"></main>'
    page.write_text(page.read_text(encoding="utf-8").replace("</main>", planted), encoding="utf-8")
    done = check(copy)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:-1] == [
        "core.html: nowhere.html: there is no nowhere.html", "core.html: metrics.html#no-such-place: metrics.html has no #no-such-place",
        "core.html: #nor-here: core.html has no #nor-here", "core.html: lost.png: there is no lost.png"]


mistakes = {
    f"{site_links.site}/none.html": "there is no none.html",
    f"{site_links.site}/index.html#gone": "index.html has no #gone",
    f"{site_links.blob}squad_nb/gone.py": "the repository has no squad_nb/gone.py",
    f"{site_links.blob}README.md#L999999": "README.md has no line 999999",
    f"{site_links.blob}squad_nb/core.py#LNone": "its line was not found",
    f"{site_links.colab}nbs/gone.ipynb": "the repository has no nbs/gone.ipynb",
    "../up.html": "leads out of the site",
    "https://no host/": "characters",
    "https://localhost/": "names no host",
    "javascript:alert(1)": "is no kind of address",
}


@pytest.mark.parametrize("link", mistakes, ids=lambda link: link.rsplit("/", 1)[-1] or "host")
def test_mistakes_are_named(tmp_path, link):
    (tmp_path/"index.html").write_text(f'<a href="{link}">x</a><p id="here">', encoding="utf-8")
    (row,) = site_links.Site(tmp_path).broken()
    assert row[:2] == ("index.html", link) and mistakes[link] in row[2]


def test_good_links_pass(tmp_path):
    links = ["", "#", "#top", "#here", "./", "index.html?x=1#here", site_links.site, f"{site_links.site}/#here", f"{site_links.blob}README.md#L1",
             "https://huggingface.co/gpt2", "mailto:a@example.org", "javascript:void(0)", "data:image/png;base64,AA=="]
    (tmp_path/"index.html").write_text("".join(f'<a href="{link}">x</a>' for link in links) + '<p id="here"><pre>[a](b.md)</pre>', encoding="utf-8")
    assert list(site_links.Site(tmp_path).broken()) == []
    (tmp_path/"index.html").write_text("<p>see [a](b.md)</p>", encoding="utf-8")
    assert [row[1] for row in site_links.Site(tmp_path).broken()] == ["[a](b.md)"]


def test_a_folder_without_pages_fails(tmp_path): assert check(tmp_path).returncode == 1


def test_names_links_and_formulas_are_prepared():
    import docs
    links, here = docs.Links(list(docs.sources())), root/"nbs/21_spans.ipynb"
    assert links.markdown("[`x`](20_windows.ipynb#a-b) `[y](20_windows.ipynb)`", here) == "[`x`](windows.ipynb#a-b) `[y](20_windows.ipynb)`"
    assert links.markdown("[t](../20_windows.ipynb)", root/"nbs/tutorials/tiny_bert.ipynb") == "[t](../windows.ipynb)"
    assert links.markdown("[r](../benchmarks/RESULTS.md) [w](../Makefile)", here) == f"[r](results.md) [w]({site_links.blob}Makefile)"
    assert links.markdown(f"[s]({site_links.site}/core.html#prediction)", root/"nbs/tutorials/tiny_bert.ipynb") == "[s](../core.html#prediction)"
    assert docs.formulas("from $5 to $6, or 5 $ and 6 $") == "from $5 to $6, or 5 $ and 6 $"
    assert docs.formulas("the $x_1$ of").startswith("the <math") and 'display="block"' in docs.formulas("$$\nx\n$$")
    assert docs.plain_types("a:squad_nb.core.Prediction, b:pathlib.Path=None, c:typing.Any") == "a:Prediction, b:Path=None, c:Any"


def test_the_cheat_sheet_is_what_the_command_says():
    from execnb.shell import CaptureShell
    shell, path = CaptureShell(), root/"nbs/commands.ipynb"
    for cell in (c for c in cells(path) if c["cell_type"] == "code"):
        outputs = shell.run(source(cell))
        assert not shell.exc, shell.prettytb(path)
        said, saved = (["".join(o["data"]["text/markdown"]) for o in some if "text/markdown" in o.get("data", {})] for some in (outputs, cell["outputs"]))
        assert said == saved, "the command has changed: run `make readme`"


def test_the_picture_is_drawn_by_the_package():
    done = subprocess.run([sys.executable, "tools/picture.py", "--check"], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr


def test_figures_of_the_readme_were_measured():
    said = re.search(r"^## Results\n(.*?)^## ", (root/"README.md").read_text(encoding="utf-8"), flags=re.M | re.S)[1]
    measured = (root/"benchmarks/RESULTS.md").read_text(encoding="utf-8")
    figures = set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+|e-\d+|(?<=\d\d\d))(?![\w.])", said))
    assert len(figures) > 10 and not {figure for figure in figures if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d])", measured)}


def typed():
    "Every line in the prose of a notebook that calls the command"
    for path in notebooks:
        for cell in (c for c in cells(path) if c["cell_type"] == "markdown"):
            yield from ((path.stem, line) for line in re.findall(r"(?:^|`)(squad_nb (?!COMMAND)[a-z]+[^`\n]*)", source(cell), flags=re.M))


@pytest.mark.parametrize("line", sorted({line for _, line in typed() if "--" in line or " " in line.removeprefix("squad_nb ")}))
def test_what_is_written_can_be_typed(line):
    from typer.main import get_command
    from squad_nb.cli import app
    command, words = get_command(app), shlex.split(line, comments=True)[1:]
    while words and hasattr(command, "commands"):
        if words[0] == "--version": return
        assert words[0] in command.commands, f"there is no {words[0]}"
        command = command.commands[words.pop(0)]
    if "…" in words: return
    known = {name: option for option in getattr(command, "params", []) for name in option.opts + option.secondary_opts} | {"--help": None}
    said = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert said <= known.keys(), f"{line}: no such options: {said - known.keys()}"
    assert "--help" in said or not (lacks := {o.opts[0] for o in known.values() if o and o.required and o.opts[0].startswith("--")} - said), f"{line} lacks {lacks}"
