"README.md from nbs/index.ipynb, without Quarto. `--check` writes nothing and exits with 1 when README.md is out of date"
import re, sys
from configparser import ConfigParser
from pathlib import Path

from nbdev.process import NBProcessor

root = Path(__file__).resolve().parents[1]
config = ConfigParser(delimiters=["="])
config.read(root/"settings.ini", encoding="utf-8")
site = config["DEFAULT"]["doc_host"] + config["DEFAULT"]["doc_baseurl"]
nbs = config["DEFAULT"]["nbs_path"]


def page(link):
    "The page of the documentation site that nbdev makes of a notebook or of Markdown; `10_squad.ipynb#split` is squad.html#split"
    folder, name, anchor = re.fullmatch(r"(.*/)?(?:\d+[a-zA-Z0-9]*_)?([^/]+)\.(?:ipynb|md)(#.*)?", link.removeprefix("./")).groups("")
    return f"{site}/{folder}{name}.html{anchor}"


def relink(text):
    "Links between pages lead to the site, those to other files are seen from the top of the repository"
    def to(found):
        before, link, after = found.groups()
        if re.match(r"[a-z]+:|[#/]", link): return found[0]
        if re.search(r"^(?!\.\./).*\.(ipynb|md)(#.*)?$", link): return f"{before}{page(link)}{after}"
        path = Path(nbs, link.partition("#")[0])
        return f"{before}{(root/path).resolve().relative_to(root).as_posix()}{link[len(link.partition('#')[0]):]}{after}"
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)  # code stays as it is
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(\]\()([^)\s]+)((?:\s+\"[^\"]*\")?\))", to, parts[i])
        parts[i] = re.sub(r"(\b(?:src|href)=\")([^\"]+)(\")", to, parts[i])
    return "".join(parts)


def fence(text, kind=""):
    mark = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{mark}{kind}\n{text.strip(chr(10))}\n{mark}"


def output(out):
    "An output as markdown; raises for a picture, which GitHub could not show from inside a notebook"
    if out["output_type"] == "stream": return fence("".join(out["text"]))
    data = out["data"]
    if "text/markdown" in data: return relink("".join(data["text/markdown"]))
    if any(kind.startswith("image/") for kind in data):
        sys.exit(f"{nbs}/index.ipynb shows a picture as an output; save it beside the notebook and link it in a markdown cell")
    return fence("".join(data["text/plain"]))


def readme():
    parts = []
    for cell in NBProcessor(root/nbs/"index.ipynb").nb.cells:
        source, says = re.sub(r"^#\s*\|.*\n?", "", cell.source, flags=re.M).strip(), cell.directives_
        def off(name): return says.get(f"{name}:", [""])[0].lower() == "false"
        if cell.cell_type == "markdown": parts.append(relink(source))
        if cell.cell_type != "code" or "hide" in says or off("include"): continue
        if source and not (off("echo") or "hide_input" in says): parts.append(fence(source, "python"))
        if not (off("output") or "hide_output" in says): parts += map(output, cell.outputs)
    return "<!-- Made from nbs/index.ipynb by `make readme` -->\n\n" + "\n\n".join(p for p in parts if p) + "\n"


if __name__ == "__main__":
    path, text = root/"README.md", readme()
    if "--check" not in sys.argv: path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text: sys.exit("README.md is out of date: run `make readme`")
