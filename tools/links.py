"Give every address of the repository in notebooks and pages the owner, branch and site that settings.ini says. `--check` writes nothing and exits with 1 when one differs"
import re, sys
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parents[1]
config = ConfigParser(delimiters=["="])
config.read(root/"settings.ini", encoding="utf-8")
about = config["DEFAULT"]
repo, owner = re.escape(about["repo"]), r"[\w.-]+"
addresses = [  # colab first: its address holds the others' words
    (rf"colab\.research\.google\.com/github/{owner}/{repo}/blob/[\w.-]+/", f"colab.research.google.com/github/{about['user']}/{about['repo']}/blob/{about['branch']}/"),
    (rf"git\+https://github\.com/{owner}/{repo}@[\w.-]+", f"git+{about['git_url']}@{about['branch']}"),  # what a tutorial installs
    (rf"https://github\.com/{owner}/{repo}/blob/[\w.-]+/", f"{about['git_url']}/blob/{about['branch']}/"),
    (rf"https://github\.com/{owner}/{repo}\b", about["git_url"]),
    (rf"https://{owner}\.github\.io/{repo}\b", about["doc_host"] + about["doc_baseurl"]),
]


def linked(text):
    for pattern, address in addresses: text = re.sub(pattern, lambda _: address, text)
    return text


if __name__ == "__main__":
    old = {path: path.read_text(encoding="utf-8") for path in sorted([*root.glob("nbs/**/*.ipynb"), *root.glob("nbs/*.md")])}
    differ = [path for path, text in old.items() if linked(text) != text]
    if "--check" in sys.argv and differ:
        sys.exit(f"Not the addresses of settings.ini, run `make readme`: {', '.join(str(path.relative_to(root)) for path in differ)}")
    for path in differ: path.write_text(linked(old[path]), encoding="utf-8")
