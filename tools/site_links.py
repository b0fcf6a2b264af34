"""Check a built site: `python tools/site_links.py [FOLDER]` lists every link, anchor and picture that leads nowhere, and exits with 1 when there is one

Links into the site (also by its address in settings.ini) must end at a page and at an id on it; links into the repository at a file and a line that exist.
Addresses of others are checked for their form alone: nothing is asked over a network."""
import re, sys
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

root = Path(__file__).resolve().parents[1]
config = ConfigParser(delimiters=["="])
config.read(root/"settings.ini", encoding="utf-8")
about = config["DEFAULT"]
site = about["doc_host"] + about["doc_baseurl"]
blob = f"{about['git_url']}/blob/{about['branch']}/"
colab = f"https://colab.research.google.com/github/{about['user']}/{about['repo']}/blob/{about['branch']}/"
goes = {"a": "href", "link": "href", "area": "href", "img": "src", "script": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src"}


class Page(HTMLParser):
    "The ids of a page, its links, and Markdown links in its prose that were never made into one"
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.raw, self.code, self.said = set(), [], [], 0, ""
        self.feed(text)
        self.close()
        self.raw = re.findall(r"\[[^\[\]]*\]\([^()\s]+\)", self.said)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[name] for name in ("id", "name") if attrs.get(name) and (name == "id" or tag == "a")}
        if tag in goes and attrs.get(goes[tag]) is not None: self.links.append((tag, attrs[goes[tag]]))
        self.code += tag in ("pre", "code", "script", "style", "textarea")

    def handle_endtag(self, tag): self.code -= tag in ("pre", "code", "script", "style", "textarea")
    def handle_data(self, data): self.said += "\0" if self.code else data


def in_repository(path, fragment):
    "What is missing of a file, and of a line in it"
    file = root/unquote(path)
    if not file.exists(): return f"the repository has no {path}"
    if (line := re.fullmatch(r"L(\d+)(?:-L\d+)?", fragment)) and int(line[1]) > len(file.read_text(encoding="utf-8").splitlines()): return f"{path} has no line {line[1]}"
    if fragment == "LNone": return "its line was not found: the name is not in the exported module"


def malformed(link):
    "What is wrong with the form of an address on another site"
    try: parts = urlsplit(link)
    except ValueError as e: return str(e)
    if re.search(r"\s|[<>\"{}|\\^`]", link): return "holds characters that an address cannot"
    if parts.scheme in ("http", "https", "") and not re.fullmatch(r"(?:[\w-]+\.)+[a-z]{2,}(?::\d+)?", parts.netloc): return "names no host"
    if parts.scheme not in ("http", "https", "mailto", "data", ""): return f"{parts.scheme}: is no kind of address that a page should lead to"


class Site:
    "The files of a built site; `broken()` is a row (page, link, what is missing) a mistake"
    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(self.folder.rglob("*.html")) if "site_libs" not in path.relative_to(self.folder).parts}

    def missing(self, link, page):
        "What a link that stands on a page lacks, or None"
        if link.startswith(site): link = "/" + link.removeprefix(site).lstrip("/")
        for start in (blob, colab):
            if link.startswith(start): return in_repository(*link.removeprefix(start).partition("#")[::2])
        if re.match(r"javascript:\s*(?:void\(0\)|)\s*;?$", link): return None  # a button
        if re.match(r"[a-zA-Z][\w+.-]*:|//", link): return malformed(link)
        path, fragment = urlsplit(link).path, unquote(urlsplit(link).fragment)
        to = (self.folder/unquote(path).lstrip("/") if path.startswith("/") else page.parent/unquote(path)).resolve() if path else page
        if to.is_dir(): to = to/"index.html"
        if not to.is_relative_to(self.folder): return "it leads out of the site"
        if not to.is_file(): return f"there is no {to.relative_to(self.folder)}"
        if fragment and fragment != "top" and to in self.pages and fragment not in self.pages[to].ids: return f"{to.relative_to(self.folder)} has no #{fragment}"

    def broken(self):
        for path, page in self.pages.items():
            name = path.relative_to(self.folder).as_posix()
            yield from ((name, link, lack) for link in dict.fromkeys(link for _, link in page.links) if (lack := self.missing(link, path)))
            yield from ((name, text, "it is shown as it was written and is no link") for text in page.raw)


if __name__ == "__main__":
    found = Site(sys.argv[1] if len(sys.argv) > 1 else root/about["doc_path"])
    if not found.pages: sys.exit(f"{found.folder} holds no pages: run `make docs`")
    rows = list(found.broken())
    for row in rows: print("{}: {}: {}".format(*row))
    print(f"{len(rows)} broken links, anchors or pictures on {len(found.pages)} pages, {sum(len(p.links) for p in found.pages.values())} looked at")
    sys.exit(bool(rows))
