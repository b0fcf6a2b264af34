"What views show, in a browser and parsed; that text stays text; that their reasons are the masks'"
import re, subprocess, sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, strategies as st

from conftest import cases
from squad_nb.core import Candidate, Prediction
from squad_nb.views import REASONS, View, attention_reasons, labels_view, mask_view, prediction_view, quoted, shown, tag, views_page, window_stories, windows_view

HOSTILE = "<script>hit()</script></script><img src=x onerror=hit()> & &lt; \"quotes' שלום עולם 🙂 e\u0301 \0 \u202eRLO {{x}} $5 and $6 --> ]]> \\u003c `${hit()}`"
PASSAGE = "Ada was born in London in 1815 and died there in 1852"
TOKENS = "The Elbe rises where ? answer: Giant which ? answer: Elbe".split()
SEGMENTS, BRANCHES = [0, 0, 0, 1, 1, 2, 2, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def words(text): return [m.span() for m in re.finditer(r"\S+", text)]


def ruled(*args): return np.array([is_open for is_open, _ in REASONS.values()])[attention_reasons(*args)]


def windows(context=PASSAGE, question="When was Ada born?", answers=None, cuts=((0, 6), (4, 10), (8, 12)), labels=((0, 0), (6, 6), (0, 0))):
    offsets = [[(-1, -1)]*4 + words(context)[a:b] + [(-1, -1)] for a, b in cuts]
    return windows_view(context, offsets, answers or dict(text=["1815"], answer_start=[26]), *zip(*labels), question=question)


def mask(tokens=TOKENS, leak=False):
    made = ruled(SEGMENTS, "prefix", "context_first", BRANCHES)
    if leak: made[0, 3] = True
    return mask_view(tokens, SEGMENTS, made, "prefix", "context_first", BRANCHES)


def labels(tokens=("where", "?", "The", "Elbe", "answer:", "Elbe"), end="<end>"):
    return labels_view([*tokens, "<pad>"], [*tokens[1:], end, "<pad>"], [1, 1, 0, 0, 2, 2, -1], [0, 0, 0, 0, 1, 1, 0])


CANDIDATES = [Candidate("London", 11.5, .97, 16, 22, 0), Candidate("there", -1.5, .02, 40, 45, 2), Candidate("", 1.0, .01)]


def prediction(context=PASSAGE, answer=None, **more):
    offsets = [[(-1, -1)] + words(context)[a:b] for a, b in ((0, 6), (4, 12))]
    starts = [[.5] + [6. if o == (16, 22) else -4. for o in window[1:]] for window in offsets]
    return prediction_view(context, answer or Prediction.from_candidates("q", CANDIDATES), dict(text=["London"], answer_start=[16]), "Where was Ada born?", offsets, starts, starts, **more)


def hostile_views():
    "Every view, with hostile text in every place that takes text"
    context = HOSTILE + " " + PASSAGE
    n, at = len(words(context)), len(HOSTILE) + 1
    answers = dict(text=[HOSTILE, "Ada"], answer_start=[0, at])
    candidates = [Candidate(HOSTILE, 1., .5, 0, len(HOSTILE), 0), Candidate(HOSTILE + "!", 0., .5, None, None, 1)]
    return dict(windows=windows(context, HOSTILE, answers, ((0, n - 4), (4, n)), ((4, 4 + len(words(HOSTILE)) - 1), (0, 0))), mask=mask([HOSTILE]*len(TOKENS)), labels=labels([HOSTILE]*6, HOSTILE),
                prediction=prediction_view(context, Prediction.from_candidates(HOSTILE, candidates), answers, HOSTILE, written=[(HOSTILE, .5)]),
                nowhere=prediction_view(HOSTILE, HOSTILE + "?", dict(text=[], answer_start=[]), HOSTILE))


# Parsed

class Parsed(HTMLParser):
    "Tags, attributes, and the text of each element, by class"
    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts, self.raw = [], set(), [], [], {"script": [], "style": []}
        self.feed(page)
        self.close()

    def handle_starttag(self, name, attributes):
        self.tags.add(name)
        self.attributes += attributes
        if name not in ("meta", "link"): self.open.append((name, dict(attributes), []))

    def handle_endtag(self, name):
        assert self.open and self.open[-1][0] == name, f"</{name}> closes {self.open[-1:]}"
        _, attributes, text = self.open.pop()
        self.texts.append((attributes, "".join(text)))
        if name in self.raw: self.raw[name].append("".join(text))

    def handle_data(self, data):
        for _, attributes, text in self.open: text.append(data) if "sqv-chip" not in (self.open[-1][1].get("class") or "") or self.open[-1][1] is attributes else None

    def of(self, name): return [text for attributes, text in self.texts if name in (attributes.get("class") or "").split()]


any_text = st.text(st.characters(), max_size=40)
usual = {"html", "head", "body", "meta", "link", "title", "style", "script", "div", "span", "bdi", "b", "i", "small", "canvas", "table", "thead", "tbody", "tr", "th", "td"}


def check_markup(view):
    "No element and no script that a view does not make itself, and no handler"
    parsed = Parsed(str(view))
    assert parsed.tags <= usual
    assert not {name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "href", "id", "action")} - {"href"}
    assert [value for name, value in parsed.attributes if name == "href"] == ["data:,"]
    assert parsed.raw["script"] == [view.script]
    return parsed


@given(any_text)
def test_text_and_attributes_come_back(text):
    parsed = Parsed(tag("div", tag("bdi", text), title=text, cls="x"))
    assert dict(parsed.attributes)["title"] == shown(text) and parsed.of("x") == [shown(text)]
    assert "\n" not in tag("div", text)
    shown(text).encode()


@given(any_text, any_text)
def test_titles_come_back(title, text):
    parsed = check_markup(View("text", title, tag("div", text, cls="said")))
    assert parsed.of("sqv-title") == [shown(title)] and parsed.of("said") == [shown(text)]


@cases(60)
@given(any_text, any_text, st.integers(0, 30), st.integers(1, 10))
def test_windows_show_the_passage(context, question, start, size):
    n = len(words(context))
    half = [words(context)[:n//2 + 1], words(context)[n//2:]]
    parsed = check_markup(windows_view(context, half, dict(text=[context[start:start + size]], answer_start=[start]), question=question))
    assert parsed.of("sqv-text") == [shown(context)]
    assert parsed.of("sqv-ask")[0].startswith(shown(question)) if question else not parsed.of("sqv-ask")


@cases(60)
@given(any_text, any_text, any_text, st.integers(0, 30))
def test_predictions_show_the_passage_and_the_answer(context, answer, accepted, start):
    candidates = [Candidate(answer, 1., .5), Candidate(context[start:start + 3], .5, None, start, start + 3, 0)]
    view = prediction_view(context, Prediction.from_candidates("q", candidates), dict(text=[accepted], answer_start=[start]), answer, written=[(answer, .3)])
    assert shown(context) in check_markup(view).of("sqv-text")


@cases(60)
@given(st.lists(any_text, min_size=11, max_size=11))
def test_tokens_come_back(tokens):
    def line(text): return shown(text).replace("\n", "⏎").replace("\t", "⇥") or " "
    assert check_markup(mask(tokens)).of("sqv-tok") == [line(t) for t in tokens]
    parsed = check_markup(labels_view(tokens, tokens, SEGMENTS, [1]*11))
    assert parsed.of("sqv-learned") == [line(t) for t in tokens]


@given(any_text)
def test_quotes_keep_their_direction(text):
    inside = quoted(text, 10**6)
    assert inside[:2] == "“\u2068" and inside[-2:] == "\u2069”" and not set(inside[2:-2]) & set("\n\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize("name", hostile_views())
def test_hostile_text_is_no_markup(name): check_markup(hostile_views()[name])


def test_no_name_is_given_twice():
    "Views have no ids, so several stand on a page; each script is named by its hash once"
    page = views_page([windows(), windows(), mask(), prediction()], "Four views")
    assert " id=" not in page and page.count("sha256-") == 2 and "<title>Four views</title>" in page


def test_import_is_light():
    said = subprocess.run([sys.executable, "-c", "import sys, squad_nb.views; print(*sorted({'torch', 'numpy', 'transformers', 'datasets', 'pandas'} & sys.modules.keys()))"], capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.strip() == "", said.stderr


# What the sentences rest on

@st.composite
def rows(draw):
    "Segments and branches of a row, with padding anywhere"
    size, layout = st.integers(0, 3), draw(st.sampled_from(["question_first", "context_first"]))
    if layout == "context_first" and draw(st.booleans()): parts = [(0, 0)] + [(s, k) for k in range(1, draw(st.integers(1, 3)) + 1) for s in (1, 2)]
    else: parts = [(s, 0) for s in ((1, 0, 2) if layout == "question_first" else (0, 1, 2))]
    made = [part for part in parts for _ in range(draw(size))]
    for _ in range(draw(size)): made.insert(draw(st.integers(0, len(made))), (-1, draw(st.integers(0, 2))))
    return [s for s, _ in made], [b for _, b in made], layout


@cases(150)
@given(rows(), st.sampled_from(["causal", "prefix"]))
def test_the_reasons_are_the_masks(row, mask_mode):
    from squad_nb.masks import attention_mask
    segments, branches, layout = row
    if not segments: return
    assert (ruled(segments, mask_mode, layout, branches) == attention_mask(segments, mask_mode, layout, branches).numpy()).all()


@cases(60)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_stories_are_the_decoders(size, longest, seed):
    import torch
    from squad_nb.spans import top_spans
    random = np.random.default_rng(seed)
    starts, ends = random.integers(-3, 4, (2, size + 1)).astype(float)  # whole numbers, so that scores tie
    offsets = [(-1, -1)] + [(2*i, 2*i + 1) for i in range(size)]
    story = window_stories([offsets], [starts], [ends], longest)[0]
    top = top_spans(torch.tensor(starts[None]), torch.tensor(ends[None]), torch.tensor([[False] + [True]*size]), 1, longest)
    assert (story["score"], story["null_score"]) == (top.scores.item(), top.null_scores.item())
    assert (story["start"], story["end"]) == (offsets[top.starts.item()][0], offsets[top.ends.item()][1])


@pytest.mark.parametrize("score", [float("nan"), -float("inf"), float("inf")])
def test_scores_that_are_no_numbers_are_shown(score):
    view = prediction_view(PASSAGE, "London", None, "", [words(PASSAGE)], [[score]*12], [[score]*12])
    assert view.html.count("start score") == 12
    check_markup(view)


def test_empty_data_makes_empty_views():
    for view in (windows_view("", []), mask_view([], [], np.zeros((0, 0), bool)), labels_view([], [], [], []), prediction_view("", "")): check_markup(view)


# In a browser

def said(tab): return tab.locator(".sqv-say").inner_text().strip()


WINDOW_2 = "Window 2: 6 of its 11 tokens are passage, context[16:45]; the others are question and special tokens. It shares 2 with window 1 and 2 with window 3. Its label is tokens 6 to 6, “1815”: the answer."
HINT = "Point at a window or a token, or move with the arrow keys."


def test_windows_answer_to_the_pointer(show):
    tab = show(windows())
    assert said(tab) == HINT
    tab.locator(".sqv-row").nth(1).hover()
    assert said(tab) == WINDOW_2
    assert [e.inner_text() for e in tab.locator(".sqv-text [role=option].sqv-lit").all()] == ["London", "in", "1815", "and", "died", "there"]
    assert tab.locator(".sqv-text [role=option]").first.evaluate("e => getComputedStyle(e).opacity") == "0.3"
    tab.locator(".sqv-text [role=option]").nth(5).hover()
    assert said(tab) == "Token 5 of the passage, “in”, context[23:25]: in windows 1 and 2."
    tab.locator(".sqv-text [role=option]").nth(6).click()
    assert said(tab) == "Token 6 of the passage, “1815”, context[26:30]: in window 2, part of an accepted answer."
    tab.mouse.move(1, 1)
    assert said(tab).startswith("Token 6")  # clicked, so it stays
    assert tab.locator(".sqv-on").inner_text() == "1815"


def test_windows_answer_to_the_keyboard(show):
    tab = show(windows())
    tab.keyboard.press("Tab")
    assert said(tab) == "Window 1: 6 of its 11 tokens are passage, context[0:25]; the others are question and special tokens. It shares 2 with window 2. Its label is 0 and 0: it teaches that the answer is not here."
    assert tab.locator(".sqv-row").first.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    tab.keyboard.press("ArrowDown")
    assert said(tab) == WINDOW_2
    assert tab.locator("[aria-selected=true]").get_attribute("data-say").replace("\u2068", "").replace("\u2069", "") == WINDOW_2
    for key in ("End", "ArrowDown"): tab.keyboard.press(key)
    assert said(tab).startswith("Window 3:")
    tab.keyboard.press("Tab")
    assert said(tab).startswith("Token 0 of the passage, “Ada”")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"): tab.keyboard.press(key)
    assert said(tab) == "Token 1 of the passage, “was”, context[4:7]: in window 1."
    tab.keyboard.press("Escape")
    assert said(tab) == HINT and tab.locator(".sqv-lit, .sqv-on").count() == 0


def test_bars_stand_where_the_windows_do(show):
    tab = show(windows())
    track, bar = (tab.locator(f".sqv-row:nth-child(2) {name}").bounding_box() for name in (".sqv-track", ".sqv-bar"))
    assert bar["x"] - track["x"] == pytest.approx(16/53*track["width"], abs=1) and bar["width"] == pytest.approx(29/53*track["width"], abs=1)
    runs = tab.locator(".sqv-run").evaluate_all("all => all.map(e => [e.innerText.trim().replace(/\\s+/g, ' '), getComputedStyle(e).backgroundImage.split('gradient').length - 1])")
    assert [count for _, count in runs] == [1, 2, 1, 2, 1] and runs[1][0] == "2London in"


def test_a_right_to_left_passage_is_read_from_the_right(show):
    context = "שלום עולם טוב"
    tab = show(windows_view(context, [words(context)]))
    options = tab.locator(".sqv-text [role=option]")
    boxes = [options.nth(i).bounding_box()["x"] for i in range(3)]
    assert boxes == sorted(boxes, reverse=True)
    options.first.focus()
    tab.keyboard.press("ArrowLeft")
    assert said(tab) == "Token 1 of the passage, “עולם”, context[5:9]: in window 1."


def cell_at(tab, row, column, canvas=".sqv-grid"):
    "Where a cell stands on the page"
    return tab.locator(canvas).evaluate("""(e, [i, j]) => { const {margin, cell, top, left} = e.dataset, box = e.getBoundingClientRect();
        return [box.left + +margin + (j - left + .5)*cell, box.top + +margin + (i - top + .5)*cell]; }""", [row, column])


def test_mask_says_why(show):
    tab = show(mask())
    tab.mouse.move(*cell_at(tab, 0, 3))
    assert said(tab) == "Row 0, “The” (context), looks at column 3, “where” (question of branch 1).\nclosed: the context never sees a question when it is shared"
    tab.mouse.move(*cell_at(tab, 7, 4))
    assert said(tab) == "Row 7, “which” (question of branch 2), looks at column 4, “?” (question of branch 1).\nclosed: questions that share a context never see each other"
    assert tab.locator(".sqv-sees").inner_text() == "What “which” sees: 5 of 11 tokens"
    assert [e.inner_text() for e in tab.locator(".sqv-tok:not(.sqv-closed)").all()] == ["The", "Elbe", "rises", "which", "?"]
    tab.mouse.move(*cell_at(tab, 10, 9))
    assert said(tab).endswith("open: cue and answer see all that stands to their left")
    tab.locator(".sqv-tok").nth(3).click()
    assert said(tab).endswith("looks at column 3, “where” (question of branch 1).\nopen: every token sees itself")


def test_mask_by_keyboard_says_what_the_mask_says(show):
    expected = ruled(SEGMENTS, "prefix", "context_first", BRANCHES)
    tab = show(mask())
    tab.keyboard.press("Tab")
    told = tab.evaluate("""() => { const text = s => document.querySelector(s).textContent, told = [];
        const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        for (let i = 0; i < 11; i++) { for (let j = 0; j < 11; j++) { told.push([text(".sqv-who"), text(".sqv-why")]); press("ArrowRight"); } press("Home"); press("ArrowDown"); } return told; }""")
    for (who, why), (i, j) in zip(told, np.ndindex(11, 11), strict=True):
        assert who.startswith(f"Row {i}, ") and f"looks at column {j}, " in who
        assert why.partition(":")[0] == ("open" if expected[i, j] else "closed")
    tab.keyboard.press("Control+Home")
    for key in ("Shift+ArrowRight", "PageDown", "ArrowUp", "ArrowLeft"): tab.keyboard.press(key)
    assert tab.locator(".sqv-who").inner_text() == "Row 9, “answer:” (answer of branch 2), looks at column 9, “answer:” (answer of branch 2)."


def test_a_wrong_mask_is_found_out(show):
    tab = show(mask(leak=True))
    assert tab.locator(".sqv-sum").inner_text().endswith("1 cells are not as the rules of this mask say.")
    tab.mouse.move(*cell_at(tab, 0, 3))
    assert said(tab).endswith("open, but by the rules closed: the context never sees a question when it is shared")


def test_mask_of_512_tokens_stays_usable(show):
    segments, branches = [0]*440, [0]*440
    for k in range(1, 9): segments, branches = segments + [1]*6 + [2]*3, branches + [k]*9
    view = mask_view([f"word{i}" for i in range(512)], segments, ruled(segments, "prefix", "context_first", branches), "prefix", "context_first", branches)
    assert len(str(view)) < 150_000
    tab = show(view)
    timed = tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert timed < 3000
    tab.locator(".sqv-grid").focus()
    tab.keyboard.press("Control+Home")
    for _ in range(5): tab.keyboard.press("PageDown")
    assert tab.locator(".sqv-who").inner_text() == "Row 50, “word50” (context), looks at column 0, “word0” (context)."
    tab.mouse.move(*cell_at(tab, 445, 450))
    who = tab.locator(".sqv-who").inner_text()
    assert re.match(r"Row 44\d, ", who)
    assert tab.locator(".sqv-lens").is_visible()
    tab.mouse.click(*cell_at(tab, 448, 445, ".sqv-lens"))
    assert said(tab) == "Row 448, “word448” (answer of branch 1), looks at column 445, “word445” (question of branch 1).\nopen: cue and answer see all that stands to their left"
    spent = tab.evaluate("""() => { const e = document.querySelector(".sqv-grid"), from = performance.now();
        for (let k = 0; k < 20; k++) e.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowUp"})); return (performance.now() - from)/20; }""")
    assert spent < 150  # milliseconds a move


def test_labels_name_the_logit(show):
    tab = show(labels())
    assert tab.locator(".sqv-sum").inner_text() == "6 tokens are read and 2 labels learned."
    cells = tab.locator("[role=option]")
    cells.nth(4).hover()
    assert said(tab) == "Place 4, “answer:” (answer, position 4). From its logit “Elbe” is learned, which is read next, at place 5."
    assert tab.locator(".sqv-lit").count() == 2
    cells.nth(5).click()
    assert said(tab) == "Place 5, “Elbe” (answer, position 5). From its logit “<end>” is learned, which is never read: here the answer ends. It is itself learned, from the logit of “answer:” at place 4."
    tab.keyboard.press("End")
    assert said(tab) == "Place 6, “<pad>” (padding, not read). Its logit learns nothing: labels_mask[6] is 0."
    tab.keyboard.press("Home")
    assert said(tab) == "Place 0, “where” (question, position 0). Its logit learns nothing: labels_mask[0] is 0."


def test_predictions_answer(show):
    tab = show(prediction())
    assert tab.locator(".sqv-judged").inner_text() == "an accepted answer, letter for letter"
    candidates, stories = tab.locator("tbody").nth(0), tab.locator("tbody").nth(1)
    candidates.locator("tr").nth(1).hover()
    assert said(tab) == "Candidate 2, “there”, context[40:45]: score −1.50, probability 2.0%, from window 3."
    assert [e.inner_text() for e in tab.locator(".sqv-lit").all()] == ["there"]
    candidates.locator("tr").nth(0).click()
    assert said(tab) == "Candidate 1, “London”, context[16:22]: score 11.50, probability 97.0%, from window 1. It was chosen."
    tab.keyboard.press("End")
    assert said(tab) == "Candidate 3, “”, no answer: score 1.00, probability 1.0%."
    tab.keyboard.press("Tab")
    assert said(tab) == "Window 1: its best span is “London” with 12.00 (start 6.00, end 6.00): it won. No answer scored 1.00 there."
    assert stories.locator("tr").nth(0).locator("td").last.inner_text() == "won"
    tab.keyboard.press("Tab")
    for _ in range(4): tab.keyboard.press("ArrowRight")
    assert said(tab) == "“London”, context[16:22]: start score 6.00, end score 6.00 (window 1)."


def test_written_answers_say_where_they_stand(show):
    tab = show(prediction_view(PASSAGE, dict(id="q", text="Rome", score=-1.), dict(text=["London"], answer_start=[16]), written=[(" Rome", .5), ("<end>", .5)]))
    assert tab.locator(".sqv-sum").inner_text() == "accepted: London. It stands nowhere in the passage: these are the model's own words."
    tab.locator(".sqv-piece").nth(1).hover()
    assert said(tab) == "Token 1, “<end>”: probability 50.0% after what stands before it; all so far together 25.0%."


@pytest.mark.parametrize("name", hostile_views())
@pytest.mark.parametrize("guarded", [True, False])
def test_hostile_text_runs_nothing_and_shows(show, name, guarded):
    "With the policy of a saved page, and on a page without any, as in a notebook"
    view = hostile_views()[name]
    tab = show(str(view) if guarded else f"<!DOCTYPE html><meta charset=utf-8><body>{view._repr_html_()}")
    text = shown(HOSTILE)
    where = dict(windows=".sqv-text", prediction=".sqv-text", nowhere=".sqv-text", mask=".sqv-tok", labels=".sqv-cell bdi")[name]
    assert text in tab.locator(where).first.evaluate("e => { e = e.cloneNode(true); e.querySelectorAll('.sqv-chip').forEach(c => c.remove()); return e.textContent; }")
    heard = tab.evaluate("""() => [...document.querySelectorAll("[data-say], .sqv-tok")].map(e => {
        e.dispatchEvent(new PointerEvent("pointerover", {bubbles: true})); e.click(); return document.querySelector(".sqv-say").textContent; })""")
    assert (len(heard) > 2 or name == "nowhere") and all("\u2068" not in x for x in heard)
    if name == "mask":
        tab.locator(".sqv-grid").focus()
        for key in ("ArrowRight", "ArrowDown", "End"): tab.keyboard.press(key)
        assert f"“{text.replace(chr(0x202e), '')}”" in tab.locator(".sqv-who").inner_text()
    assert tab.locator("img, iframe, a, b script").count() == 0 and tab.locator("script").count() == 1
    assert tab.evaluate("window.hits") == 0


def test_the_watch_would_see(show):
    "The check above is not blind: on a page that does not escape, the flag goes up"
    tab = show("<!DOCTYPE html><meta charset=utf-8><body><script>hit()</script>")
    assert tab.evaluate("window.hits") == 1
    tab.evaluate("window.hits = 0")


def test_several_views_share_a_page(show):
    tab = show(views_page([windows(), prediction(), windows(), mask(), mask(), labels()]))
    views = tab.locator(".sqv")
    views.nth(2).locator(".sqv-row").nth(1).hover()
    assert views.nth(2).locator(".sqv-say").inner_text() == WINDOW_2 and views.nth(0).locator(".sqv-say").inner_text() == HINT
    views.nth(4).locator("canvas").first.focus()
    tab.keyboard.press("ArrowRight")
    assert views.nth(4).locator(".sqv-who").inner_text().startswith("Row 0, ") and views.nth(3).locator(".sqv-who").inner_text().startswith("Point at a cell")
    alone = show(windows())
    look = "e => { const s = getComputedStyle(e); return [s.fontWeight, s.backgroundColor, s.borderBottomWidth, s.lineHeight]; }"
    assert views.nth(0).locator(".sqv-gold").evaluate(look) == alone.locator(".sqv-gold").evaluate(look)
    assert views.nth(0).locator(".sqv-text").evaluate("e => getComputedStyle(e).marginTop") == alone.locator(".sqv-text").evaluate("e => getComputedStyle(e).marginTop") == "10px"


DARK, LIGHT = "rgb(23, 27, 34)", "rgb(255, 255, 255)"


@pytest.mark.parametrize("system,site,expected", [("light", "", LIGHT), ("dark", "", DARK), ("light", "document.documentElement.dataset.bsTheme = 'dark'", DARK), ("dark", "document.documentElement.dataset.bsTheme = 'light'", LIGHT),
                                                  ("light", "document.body.className = 'quarto-dark'", DARK), ("dark", "document.body.className = 'quarto-light'", LIGHT), ("light", "document.body.dataset.jpThemeLight = 'false'", DARK)])
def test_views_follow_the_theme(show, system, site, expected):
    tab = show(mask(), color_scheme=system)
    if site: tab.evaluate(site)
    assert tab.locator(".sqv").evaluate("e => getComputedStyle(e).backgroundColor") == expected
    tab.wait_for_timeout(200)  # the canvas is drawn anew in the next frame
    pixel = tab.locator(".sqv-grid").evaluate("e => { const {margin, cell} = e.dataset; return [...e.getContext('2d').getImageData(+margin + 3.5*cell, +margin + .5*cell, 1, 1).data.slice(0, 3)]; }")
    assert (sum(pixel) > 600) == (expected == LIGHT)


def test_paper_is_light_and_quiet(show):
    tab = show(windows(), color_scheme="dark")
    tab.emulate_media(media="print")
    assert tab.locator(".sqv").evaluate("e => getComputedStyle(e).backgroundColor") == LIGHT
    assert not tab.locator(".sqv-say").is_visible() and tab.locator(".sqv-text").is_visible()


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out(show, width):
    views = [windows(), mask(), labels(), prediction(), *hostile_views().values()]
    tab = show(views_page(views), width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator(".sqv").evaluate_all("all => all.every(e => e.scrollWidth <= e.clientWidth)")
