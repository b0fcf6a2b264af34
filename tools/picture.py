"The picture of the README, drawn by the package's own windows and masks. `--check` writes nothing and exits with 1 when it is out of date"
import sys
from html import escape
from pathlib import Path

import numpy as np

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
from squad_nb.cuts import window_parts
from squad_nb.masks import attention_mask

passage, question, answer = "Ada was born in London in 1815 and died there in 1852".split(), "When was Ada born ?".split(), "1815"
colours = {0: "#3b7dd8", 1: "#e8833a", 2: "#4a9d5b"}  # context, question, cue and answer
ink, faint = "#22272e", "#6b7280"


def text(x, y, words, size=14, fill=ink, anchor="start", more=""): return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{more}>{escape(words)}</text>'
def box(x, y, w, h, fill, more=""): return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}"{more}/>'
def line(x1, y1, x2, y2): return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{colours[2]}" stroke-width="2" marker-end="url(#tip)"/>'


def pointing(x, y):
    "Two windows over the passage's tokens, and the answer in both"
    yield text(x, y, "Pointing", 19, more=' font-weight="600"')
    yield text(x, y + 22, "An encoder reads windows; the answer is where start and end point.", 13, faint)
    yield text(x, y + 62, " ".join(question).replace(" ?", "?"), 15)
    places, at = [], x
    for word in passage:
        places.append((at, 8.4*len(word) + 6))
        at += places[-1][1]
    _, firsts, sizes = window_parts(np.array([len(passage)]), np.array([8]), 4)
    for number, (first, size) in enumerate(zip(firsts.tolist(), sizes.tolist())):
        left, right = places[first][0], sum(places[first + size - 1])
        yield box(left, y + 84 + 26*number, right - left, 18, colours[0], f' rx="4" opacity="{.85 - .35*number:g}"')
        yield text(left + 8, y + 97 + 26*number, f"window {number + 1}", 12, "#fff" if not number else ink)
    for (left, width), word in zip(places, passage):
        if word == answer: yield box(left, y + 144, width, 26, colours[2], ' rx="4" opacity=".3"')
        yield text(left + width/2, y + 162, word, 14, anchor="middle", more=' font-family="ui-monospace, Menlo, Consolas, monospace"')
    left, width = places[passage.index(answer)]
    for place, name in ((left + 2, "start"), (left + width - 2, "end")):
        yield line(place, y + 204, place, y + 176)
        yield text(place, y + 220, name, 13, colours[2], "end" if name == "start" else "start")
    yield text(x, y + 260, "Prediction: ", 14, faint) + text(x + 80, y + 260, f"“{answer}”, characters {(at := len(' '.join(passage[:passage.index(answer)])) + 1)}–{at + len(answer)}", 14)


def writing(x, y, cell=17):
    "A prompt's prefix mask: a row is a token that looks, a column one that is seen"
    tokens = ["When", "was", "Ada", "born", "?", "Ada", "…", "1815", "…", "answer:", answer]
    segments = [1]*5 + [0]*4 + [2]*2
    yield text(x, y, "Writing", 19, more=' font-weight="600"')
    yield text(x, y + 22, "A language model reads question and passage, then writes.", 13, faint)
    for i, seen in enumerate(attention_mask([segments], "prefix", "question_first")[0].tolist()):
        yield text(x + 62, y + 56 + i*cell, tokens[i], 12, colours[segments[i]], "end", ' font-weight="600"')
        for j, may in enumerate(seen): yield box(x + 70 + j*cell, y + 43 + i*cell, cell - 2, cell - 2, colours[segments[j]] if may else "#eceff3", ' rx="2"')
    left = x + 84 + len(tokens)*cell
    for k, (who, says) in enumerate({1: "the question and", 0: "the passage see each other", 2: "the answer looks back"}.items()):
        yield text(left, y + 80 + 24*k, says, 13, colours[who])
    yield text(x, y + 260, "Prediction: ", 14, faint) + text(x + 80, y + 260, f"“{answer}”", 14)


def picture():
    parts = [*pointing(34, 46), *writing(600, 46)]
    return "\n".join([
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1080 330" role="img" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        "<title>Pointing: two windows over a passage, start and end at the answer. Writing: the prefix mask of a prompt. Both end in a Prediction</title>",
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colours[2]}"/></marker></defs>',
        box(1, 1, 1078, 328, "#fff", ' rx="14" stroke="#d8dee6"'), *parts, "</svg>", ""])


if __name__ == "__main__":
    path, drawn = root/"nbs/images/two_tracks.svg", picture()
    if "--check" in sys.argv:
        if not path.exists() or path.read_text(encoding="utf-8") != drawn: sys.exit(f"{path.relative_to(root)} is out of date: run `make readme`")
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawn, encoding="utf-8")
