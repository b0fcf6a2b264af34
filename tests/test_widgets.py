"The widgets: driven by setting their values, and with a live kernel in a browser. Exceptions in callbacks fail the test"
import json, os, re, socket, subprocess, sys, threading, time
from importlib.util import find_spec
from pathlib import Path

import pytest, torch
from datasets import Dataset
from ipywidgets.widgets.widget import CallbackDispatcher
from transformers import AutoTokenizer

import conftest
from squad_nb import widgets as module
from squad_nb.core import Candidate, Prediction, write_json
from squad_nb.extractive import ExtractiveConfig, fit_reader
from squad_nb.generative import fit_writer
from squad_nb.kinds import ERROR_KINDS, error_kinds
from squad_nb.masks import attention_mask
from squad_nb.predictor import Predictor
from squad_nb.prompts import PromptConfig, prompt_features
from squad_nb.sample import generate_squad, tiny_model
from squad_nb.squad import SCHEMA, from_squad_json
from squad_nb.views import shown, windows_view
from squad_nb.widgets import AskBox, MaskExplorer, PredictionBrowser, Steps, WindowExplorer, own_row, question_lines, as_questions, tokenizer_of
from squad_nb.windows import window_features

HOSTILE = "<script>hit()</script></script><!--<img src=x onerror=hit()> & &lt; \"quotes' שלום 🙂 e\u0301 \0 \u202eRLO {{x}} $5 and $6 --> | ]]>"
ADA = "Ada Lovelace was born in London in 1815. Her notes of 1843 hold a program for a machine that was never built. She died in London, 36 years old."
ASKED = [("When was Ada Lovelace born?", "1815"), ("What do her notes hold?", "a program"), ("Who is Bo?", "")]
ROWS = [dict(id=f"q{i}", title="Ada", context=ADA, question=q, answers=dict(text=[a] if a else [], answer_start=[ADA.index(a)] if a else [])) for i, (q, a) in enumerate(ASKED)]
ELBE = dict(id="q3", title="Elbe", context="The Elbe ends in the North Sea.", question="Where does the Elbe end?", answers=dict(text=["the North Sea"], answer_start=[17]))
QUESTIONS = Dataset.from_list([*ROWS, ELBE], features=SCHEMA)
SAID = dict(q0="in 1815", q1="a program", q2="Ada", q3="The Elbe")


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    "ipywidgets prints what the callbacks of buttons raise, and goes on"
    def call(self, *args, **kwargs): return any([callback(*args, **kwargs) for callback in self.callbacks])
    monkeypatch.setattr(CallbackDispatcher, "__call__", call)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A run of each track, trained for a few steps"
    folder = tmp_path_factory.mktemp("runs")
    train, how = from_squad_json(generate_squad(3)), dict(epochs=1, learning_rate=1e-3, batch_size=16, disable_tqdm=True)
    fit_reader("tiny-bert", train, train.select(range(4)), folder/"points", ExtractiveConfig(max_length=96, stride=24), **how)
    fit_writer("tiny-gpt2", train, train.select(range(4)), folder/"writes", PromptConfig(layout="context_first"), "prefix", **how)
    return folder


def said(view): return re.sub("<[^>]+>", "", re.search('<div class="sqv-sum">(.*?)</div>', view.html)[1])
def html(explorer): return explorer._repr_mimebundle_()["text/html"]


# Windows

@pytest.mark.parametrize("length, stride", [(24, 0), (24, 7), (40, 16), (200, 50)])
def test_windows_are_those_of_the_features(length, stride):
    explorer, tokenizer = WindowExplorer("tiny-bert", QUESTIONS), tokenizer_of("tiny-bert")[0]
    explorer.stride.value = stride
    explorer.length.value = length
    made = window_features(QUESTIONS.select([0]), tokenizer, length, stride)
    assert explorer.views[0].html == windows_view(ADA, made["offsets"][:], ROWS[0]["answers"], made["start_positions"][:], made["end_positions"][:], ROWS[0]["question"]).html
    assert f"in {len(made)} window" in said(explorer.views[0]) and f"Windows of {length} tokens" in html(explorer)


def test_next_brings_the_question_and_own_text_is_drawn():
    explorer = WindowExplorer("tiny-bert", QUESTIONS)
    for box, text in zip(explorer.texts, (ADA, *ASKED[0])): assert box.value == text
    for _ in range(9): explorer.steps.more.click()
    assert (explorer.steps.at, explorer.passage.value, explorer.question.value, explorer.answer.value) == (3, ELBE["context"], ELBE["question"], "the North Sea")
    explorer.answer.value = "Elbe"
    assert "<b><bdi>Elbe</bdi></b>" in explorer.views[0].html and not explorer.problem
    explorer.steps.less.click()
    assert explorer.answer.value == "" and ">Who is Bo?<" in explorer.views[0].html


def test_a_picture_is_drawn_once_a_change(monkeypatch):
    explorer, drawn = WindowExplorer("tiny-bert", QUESTIONS), []
    monkeypatch.setattr(module, "windows_view", lambda *args: drawn.append(1) or windows_view(*args))
    explorer.steps.more.click(); explorer.steps.go(3); explorer.length.value = 30
    assert len(drawn) == 3


def test_the_settings_of_a_run_are_where_the_sliders_begin(runs, tmp_path):
    explorer = WindowExplorer(runs/"points", QUESTIONS)
    assert (explorer.length.value, explorer.stride.value) == (96, 24)
    last = sorted((runs/"points").glob("checkpoint-*"))[-1]
    (tmp_path/"torn").mkdir()
    (tmp_path/"torn"/last.name).symlink_to(last)  # a run that was cut off has no model of its own
    assert WindowExplorer(tmp_path/"torn", QUESTIONS).length.value == 96
    masks = MaskExplorer(str(runs/"writes"), QUESTIONS)
    assert (masks.mode.value, masks.layout_of.value) == ("prefix", "context_first")
    asked = MaskExplorer(runs/"writes", QUESTIONS, "causal", "question_first")
    assert (asked.mode.value, asked.layout_of.value) == ("causal", "question_first") and not asked.problem


def test_a_stride_of_none_is_a_choice(runs, tmp_path):
    for model in ("tiny-bert", runs/"points"): assert WindowExplorer(model, QUESTIONS, stride=0).stride.value == 0
    trained = tmp_path/"trained"
    trained.mkdir()
    for file in (runs/"points").iterdir():
        if file.is_file() and file.name != "config.json": (trained/file.name).symlink_to(file)
    config = json.loads((runs/"points"/"config.json").read_text(encoding="utf-8"))
    config["squad_nb"]["stride"] = 0
    write_json(trained/"config.json", config)
    explorer = WindowExplorer(trained, QUESTIONS)
    assert (explorer.length.value, explorer.stride.value, explorer.problem) == (96, 0, "")


def test_a_model_that_writes_says_nothing_of_windows(runs):
    explorer = WindowExplorer(runs/"writes", QUESTIONS)
    assert (explorer.length.value, explorer.stride.value, explorer.problem, len(explorer.views)) == (64, 16, "", 1)


@pytest.mark.parametrize("length, stride", [(0, 16), (2, 0), (64, -1), (64, 300)])
def test_figures_that_cannot_be_met_are_not_replaced(length, stride):
    explorer = WindowExplorer("tiny-bert", QUESTIONS, length, stride)
    assert (explorer.length.value, explorer.stride.value) == (length, stride) and explorer.problem and "fault" not in explorer.problem and explorer.views == []


@pytest.mark.parametrize("given, message", [(dict(mask_mode="both"), "Unknown mask_mode 'both': choose causal or prefix"), (dict(mask_mode=""), "Unknown mask_mode '': choose causal or prefix"),
                                            (dict(layout="question first"), "Unknown layout 'question first': choose question_first or context_first"), (dict(layout=["context_first"]), "Unknown layout ['context_first']: choose question_first or context_first")])
def test_a_mask_or_layout_that_does_not_exist_is_said(given, message):
    explorer = MaskExplorer("tiny-gpt2", QUESTIONS, **given)
    assert explorer.problem == message and explorer.views == []
    explorer.mode.value = "prefix"
    assert explorer.problem == message


class Slow: "A tokenizer that knows no characters"


def test_bad_input_is_said_in_a_line(tmp_path):
    (tmp_path/"empty").mkdir()
    write_json(tmp_path/"bare"/"config.json", dict(model_type="bert"))
    (tmp_path/"file.json").write_text("{")
    cases = [((Slow(), QUESTIONS), "Slow cannot say which characters"), (("nowhere", QUESTIONS), "There is no folder nowhere"), ((tmp_path/"empty", QUESTIONS), "holds no checkpoint and no model"),
             ((tmp_path/"bare", QUESTIONS), "There is no tokenizer in"), (("tiny-bert", tmp_path/"file.json"), "is not JSON"), (("tiny-bert", [dict(question="Who?")]), "Row 0 of the questions has no context"),
             (("tiny-bert", [7]), "Row 0"), (("x"*5000, QUESTIONS), "File name too long"), (("tiny-bert", dict(context="half \ud800")), "These rows are no questions"), (("tiny-bert", dict(context="Ada", answers=7)), "These rows are no questions"), (("tiny-bert", []), "There is no passage"), (("tiny-bert", dict(context=" ")), "characters"), (("tiny-bert", dict(context="x "*20_000)), "40,000 characters")]
    for kind in (WindowExplorer, MaskExplorer):
        for args, message in cases:
            if kind is MaskExplorer and message in ("characters", "40,000 characters", "There is no passage"): continue
            explorer = kind(*args)
            assert message in explorer.problem and "\n" not in explorer.problem and explorer.views == [] and explorer._out.outputs == (), (args, explorer.problem)
            assert 'role="alert"' in explorer._line.value and explorer._line.layout.display is None and 'role="alert"' in html(explorer)


def test_figures_that_do_not_fit_are_said_and_taken_back():
    explorer = WindowExplorer("tiny-bert", QUESTIONS, 32, 8)
    explorer.stride.value = 60
    assert "it must be between 0 and 28" in explorer.problem and explorer.views == []
    explorer.stride.value = 8
    assert explorer.problem == "" and len(explorer.views) == 1 and explorer._line.layout.display == "none"
    with explorer.quiet(): explorer.passage.value, explorer.answer.value, explorer.length.value, explorer.stride.value = "so it goes on and on " * 60, "", 32, 18
    assert re.search(r"That makes \d+ windows", explorer.problem)
    for text, message in (("", "There is no passage"), ("half \udc00", "half of a character")):
        explorer.passage.value = text
        assert message in explorer.problem


def test_a_warning_is_a_note_above_the_picture():
    with pytest.warns(DeprecationWarning):  # of others: goes on
        explorer = WindowExplorer("tiny-bert", dict(context=ADA, question="Who " * 60, answers=dict(text=["1815"], answer_start=[35])), 40, 8)
        import warnings
        warnings.warn("old", DeprecationWarning)
    assert len(explorer.views) == 1 and "are cut to" in explorer.notes[0] and 'role="status"' in explorer._line.value


def test_what_no_one_foresaw_is_said_and_raised(monkeypatch):
    explorer = WindowExplorer("tiny-bert", QUESTIONS)
    monkeypatch.setattr(module, "windows_view", lambda *args: 1/0)
    with pytest.raises(ZeroDivisionError): explorer.length.value = 50
    assert "A fault of this program" in explorer.problem and explorer.views == []
    with pytest.raises(ZeroDivisionError): explorer.steps.more.click()


# Masks

def test_masks_are_those_of_training():
    explorer, tokenizer = MaskExplorer("tiny-gpt2", QUESTIONS), tokenizer_of("tiny-gpt2")[0]
    for layout in ("question_first", "context_first"):
        for mode in ("causal", "prefix"):
            explorer.layout_of.value, explorer.mode.value = layout, mode
            row = prompt_features(QUESTIONS.select([0]), tokenizer, PromptConfig(layout=layout))[0]
            n, count = len(row["segments"]), int(attention_mask(row["segments"], mode, layout).sum())
            assert said(explorer.views[0]) == f"{n} tokens, {count:,} of {n*n:,} cells open: {mode} mask, {layout.replace('_', ' ')}."
            assert said(explorer.views[1]) == f"{n} tokens are read and {sum(row['labels_mask'])} labels learned."


def test_questions_share_a_passage():
    explorer = MaskExplorer("tiny-gpt2", QUESTIONS, "prefix", "context_first", 3)
    assert "3 questions share the context" in said(explorer.views[0]) and explorer.number.max == 3 and explorer.steps.number.max == 2
    explorer.layout_of.value = "question_first"
    assert explorer.problem.startswith("Questions cannot share a context under the layout question_first") and explorer.views == []
    explorer.steps.more.click()  # this passage has one question
    assert explorer.problem == "" and explorer.number.value == 1 and explorer.lines.value == "Where does the Elbe end? | the North Sea"


def test_own_questions():
    explorer = MaskExplorer("tiny-gpt2", QUESTIONS, n_questions=2)
    explorer.lines.value = "Who was it? | Ada Lovelace\nWhere?"
    assert explorer.number.max == 2 and "2 questions share" in said(explorer.views[0])
    explorer.lines.value = "Who | what? | 1815"
    assert explorer.number.value == 1 and question_lines(explorer.lines.value, ADA)[0]["question"] == "Who | what?"
    for text, message in (("\n \n", "There is no question"), ("Who? | Bo", "does not stand in the passage")):
        explorer.lines.value = text
        assert message in explorer.problem
    explorer.lines.value, explorer.passage.value = "Who?", ""
    assert "There is no passage" in explorer.problem


def test_a_tokenizer_that_cannot_end_a_text():
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("tiny-gpt2"))
    tokenizer.eos_token = None
    assert "no end-of-text token" in MaskExplorer(tokenizer, QUESTIONS).problem


# Predictions

def test_filter_and_steps_reach_every_question():
    browser = PredictionBrowser(dict(early=SAID, late=SAID | dict(q0="1815")), QUESTIONS).wait()
    for side in ("early", "late"):
        browser.side.value = side
        kinds = [row["kind"] for row in error_kinds(browser.sources[side], QUESTIONS)]
        assert browser.kind.options == (("all (4)", ""), *((f"{k} ({kinds.count(k)})", k) for k in ERROR_KINDS if k in kinds))
        for _, kind in browser.kind.options:
            browser.kind.value, seen = kind, []
            for n in range(5):
                seen.append(browser.left[browser.steps.at])
                assert [*browser.views][["early", "late"].index(side)] == f"{side}: {kinds[seen[-1]]}" and f">{QUESTIONS[seen[-1]]['question']}<" in html(browser)
                if browser.steps.more.disabled: break
                browser.steps.more.click()
            assert seen == [i for i, k in enumerate(kinds) if kind in ("", k)] and browser.steps.of.value == f"of {len(seen)}"
        browser.kind.value = ""
    assert browser.below.layout.display == "none"  # nobody to ask


def test_a_kind_that_the_other_side_lacks_is_given_up():
    browser = PredictionBrowser(dict(early=SAID, late=SAID | dict(q0="1815")), QUESTIONS).wait()
    browser.kind.value = "too long"
    assert browser.left == [0] and browser.caption() == "Question 1 of 1, too long."
    browser.side.value = "late"
    assert browser.kind.value == "" and len(browser.left) == 4


def test_both_tracks_side_by_side_and_asked(runs, monkeypatch):
    told = []
    monkeypatch.setattr(module.Work, "tell", lambda self, text, done=0, total=1: told.append((text, done, total)))
    write_json(runs/"test.json", generate_squad(2, names="test"))
    browser = PredictionBrowser(runs).wait()
    assert ("points answers question 1 of 24", 0, 24) in told and ("writes answers question 1 of 24", 0, 24) in told and browser.work.layout.display == "none"
    assert [*browser.sides] == ["points", "writes"] and len(browser.left) == 24 and "Token by token" in browser.views[f"writes: {browser.sides['writes'].kinds[0]}"].html
    points, questions = Predictor.from_pretrained(runs/"points"), browser.questions
    assert [p.text for p in browser.sides["points"].said.values()] == [p.text for p in points.predict(questions)]
    box = browser.asker
    assert box.passage.value == questions[0]["context"]
    browser.steps.go(23)
    assert box.passage.value == questions[23]["context"]
    box.passage.value, box.question.value = ADA, ASKED[0][0]
    box.question._handle_msg(dict(content=dict(data=dict(method="custom", content=dict(event="submit"))), buffers=[]))  # the enter key
    browser.wait()
    assert [*box.views] == ["points", "writes"] and f"<bdi>{points.answer(ASKED[0][0], ADA).text}</bdi>" in box.views["points"].html
    browser.steps.go(0)
    assert box.passage.value == ADA  # somebody wrote it there
    for question, context, message in ((" ", ADA, "There is no question"), ("Who?", " ", "There is no passage")):
        box.question.value, box.passage.value = question, context
        box.button.click()
        browser.wait()
        assert message in box.problem and not box.views


def test_one_track_only(runs):
    alone = PredictionBrowser(runs/"writes", QUESTIONS).wait()
    assert [*alone.sides] == ["writes"] and alone.side.layout.display == "none" and not alone.problem and not alone.notes
    half = PredictionBrowser(dict(points=runs/"points", writes=runs/"nowhere"), QUESTIONS).wait()
    assert [*half.sides] == ["points"] and len(half.notes) == 1 and half.notes[0].startswith("writes: There is no folder") and len(half.views) == 1
    asking = PredictionBrowser(runs/"points").wait()  # no questions
    assert not asking.problem and asking.pick.layout.display == "none" and asking.below.layout.display is None


@pytest.mark.parametrize("sources, message", [({}, "There are no predictions, and no model"), (dict(a={}), "a: There are no predictions"), ([], "There are no predictions"), ("nowhere", "There is no folder nowhere"),
                                              (dict(a=dict(zz="x")), "answer no question of the data"), (dict(a=dict(q0=7)), "text is needed"), ([7], "a list of Prediction"), (dict(a=Path(__file__)), "is not JSON"), (dict(zz="so it goes on "*400), "File name too long")])
def test_nothing_to_show_is_said(sources, message):
    browser = PredictionBrowser(sources, QUESTIONS).wait()
    assert message in browser.problem and not browser.views and browser.pick.layout.display == "none"


def test_predictions_may_be_few_plain_or_not_judged():
    few = PredictionBrowser(dict(q1="a program"), QUESTIONS).wait()
    assert [*few.sides] == ["predictions"] and few.sides["predictions"].kinds == ["missing", "right", "missing", "missing"] and [*few.views] == ["predictions: missing"]
    bare = as_questions([dict(context=ADA, question="Who?")])
    unjudged = PredictionBrowser([Prediction.from_candidates("0", [Candidate("Ada", 1., .5, 0, 3)])], bare).wait()
    assert [*unjudged.views] == ["predictions: not judged"] and "no accepted answers are given" in html(unjudged)


def test_the_kernel_is_free_while_models_answer(runs, monkeypatch):
    go, predict = threading.Event(), Predictor.predict
    monkeypatch.setattr(Predictor, "predict", lambda self, rows: go.wait(60) and predict(self, rows))
    browser = PredictionBrowser(runs/"points", QUESTIONS)
    until = time.monotonic() + 60
    while "answers question 1 of 4" not in browser.work.says.value and time.monotonic() < until: time.sleep(.01)
    assert browser.work.busy and browser.work.layout.display == "flex" and "points answers question 1 of 4" in browser.work.says.value and browser.pick.layout.display == "none"
    browser.work.start(lambda: 1/0)  # not twice at a time
    go.set()
    assert len(browser.wait().views) == 1 and browser.work.layout.display == "none"


def test_a_box_leaves_the_models_that_it_is_given(runs):
    models = dict(points=runs/"points")
    box = AskBox(models, ADA, ASKED[0][0])
    box.ask(); box.work.wait()
    assert [*box.views] == ["points"] and models == dict(points=runs/"points") and isinstance(box.models["points"], Predictor)


def test_threads_take_turns_with_a_model(runs, monkeypatch):
    "Two boxes with one model: the second asks while the first is answered, and both get what they get alone"
    writes = Predictor.from_pretrained(runs/"writes")
    predict, inside, most = writes.answers.predict, [], []
    def slow(rows):
        inside.append(1)
        time.sleep(.1)
        most.append(len(inside))
        try: return predict(rows)
        finally: inside.pop()
    monkeypatch.setattr(writes.answers, "predict", slow)
    boxes = [AskBox(dict(writes=writes), row["context"], row["question"]) for row in (ROWS[0], ELBE)]
    alone = []
    for box in boxes:
        box.ask(); box.work.wait()
        alone.append(box.views["writes"].html)
    for box in boxes: box.ask()
    for box in boxes: box.work.wait()
    assert [box.views["writes"].html for box in boxes] == alone and most == [1]*4
    assert writes.answer_tokens(ASKED[0][0], ADA)[0] == writes.answer(ASKED[0][0], ADA)  # a thread does not wait for itself


def test_a_bar_that_was_interrupted_does_not_hold_up_a_box(runs):
    "Ctrl-C while a bar is drawn leaves tqdm's lock with the main thread for ever: `refresh` does not give it back on an error"
    from tqdm.auto import tqdm
    with tqdm.get_lock():
        box, browser = AskBox(dict(points=runs/"points", writes=runs/"writes"), ADA, ASKED[0][0]), PredictionBrowser(runs, QUESTIONS)
        box.ask()
        for long in (box, browser):
            long.work.thread.join(60)
            assert not long.work.busy
    assert [*box.views] == ["points", "writes"] and len(browser.wait().views) == 2 and not box.problem and not browser.problem


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_no_one_foresaw_in_long_work(runs, monkeypatch):
    monkeypatch.setattr(Predictor, "predict", lambda self, rows: 1/0)
    browser = PredictionBrowser(runs/"points", QUESTIONS)
    with pytest.raises(ZeroDivisionError): browser.wait()
    assert "A fault of this program" in browser.problem and browser.work.layout.display == "none"


# Hostile text

def hostile():
    row = dict(id="h", title=HOSTILE, context=HOSTILE + " end", question=HOSTILE, answers=dict(text=["end"], answer_start=[len(HOSTILE) + 1]))
    candidate = Candidate(HOSTILE, 1., .5, 0, len(HOSTILE))
    return [WindowExplorer("tiny-bert", row, 128), MaskExplorer("tiny-gpt2", row), PredictionBrowser({HOSTILE: [Prediction.from_candidates("h", [candidate])], "b": {"h": HOSTILE}, HOSTILE + "?": "gone" + HOSTILE}, row).wait(), AskBox({}, HOSTILE, HOSTILE)]


def test_hostile_text_is_text():
    made = hostile()
    for explorer in made:
        page = html(explorer)
        assert page.count("<script") == page.count("</script>") == len(explorer.views) and "<img" not in page and not explorer.problem, explorer
        json.dumps([w.get_state(drop_defaults=True) for w in (explorer, *explorer.children) if "layout" not in w.get_state()] + [explorer._line.value, page, repr(explorer)], ensure_ascii=False).encode()
    for box in (*made[0].texts, made[1].passage, made[1].lines, made[3].passage, made[3].question): box.value.encode()
    assert "gone" in made[2].notes[0] and "&lt;script&gt;" in made[2]._line.value
    made[0].answer.value = HOSTILE + "?"
    assert "does not stand in the passage" in made[0].problem and "<script" not in made[0]._line.value + html(made[0])


# Without a kernel

@pytest.mark.parametrize("width", [400, 1280])
def test_a_page_without_a_kernel_has_the_picture(show, width):
    explorers = [WindowExplorer("tiny-bert", QUESTIONS, 32, 8), MaskExplorer("tiny-gpt2", ELBE), PredictionBrowser(dict(a=SAID, b=SAID), QUESTIONS).wait(), *hostile()[:3]]
    tab = show("<!DOCTYPE html><meta charset='utf-8'><meta name='viewport' content='width=device-width'><link rel='icon' href='data:,'>" + "".join(shown(html(e)) for e in explorers), width)
    windows = tab.locator(".sqv-windows").first
    windows.locator(".sqv-row").nth(1).hover()
    assert windows.locator(".sqv-say").inner_text().startswith("Window 2: ")
    assert tab.get_by_text("Windows of 32 tokens, of which neighbours share 8. Run this cell to change it.").count() == 1
    one, two = (tab.locator(".sqv-prediction").nth(i).bounding_box() for i in (0, 1))
    assert (one["y"] == two["y"]) == (width == 1280)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_saved_notebook_has_no_dead_widget():
    for path in (conftest.root/"nbs").glob("**/*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for out in cell.get("outputs", []): assert not any("jupyter.widget" in kind for kind in out.get("data", {})), path


# With a live kernel in a browser: one server, one notebook, one page for all

CELLS = """
import json, torch
from datasets import Dataset
from squad_nb.squad import SCHEMA
from squad_nb.widgets import MaskExplorer, PredictionBrowser, WindowExplorer
torch.set_num_threads(THREADS)
import logging, threading
from traitlets.config import Application
faults = logging.FileHandler("faults")  # else what a callback raises is sent to a page that does not show it
faults.setLevel("ERROR")
for logger in (logging.getLogger("Comm"), Application.instance().log): logger.addHandler(faults)
get_ipython().showtraceback = lambda *args, **kwargs: logging.getLogger("Comm").error("in a button", exc_info=True)
threading.excepthook = lambda a: logging.getLogger("Comm").error("in a thread", exc_info=(a.exc_type, a.exc_value, a.exc_traceback))
questions = Dataset.from_list(json.loads(open("questions.json").read()), features=SCHEMA)
---
WindowExplorer("tiny-bert", questions, 32, 8)
---
MaskExplorer("tiny-gpt2", questions)
---
PredictionBrowser("runs", questions)
---
import time
from pathlib import Path
from squad_nb.widgets import Work
work = Work()
def count(n=0):
    while not Path("stop").exists():
        work.tell(f"counts {n}", n % 100, 100)
        n += 1
        time.sleep(.1)
work.add_class("counting")
work.start(count)
work
---
class Faulty(WindowExplorer):
    def draw(self): return super().draw() if self.length.value == 64 else 1/0
Faulty("tiny-bert", questions, 64, 8)
"""


class Server:
    "voila with a notebook, and what it and its kernels wrote"
    def __init__(self, folder):
        # as many threads, and so the same sums, in both processes
        cells = [dict(cell_type="code", id=f"c{i}", metadata={}, source=source, outputs=[], execution_count=None) for i, source in enumerate(CELLS.replace("THREADS", str(torch.get_num_threads())).strip().split("\n---\n"))]
        write_json(folder/"page.ipynb", dict(cells=cells, metadata=dict(kernelspec=dict(display_name="python3", language="python", name="python3")), nbformat=4, nbformat_minor=5))
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        own = {name: str(folder/"jupyter") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
        env = os.environ | own | dict(HF_HUB_OFFLINE="1", PYTHONPATH=str(conftest.root))
        self.file = folder/"log"
        self.process = subprocess.Popen([sys.executable, "-m", "voila", "page.ipynb", f"--port={self.port}", "--no-browser", "--Voila.ip=127.0.0.1", "--Voila.open_browser=False"], cwd=folder, env=env, stdout=self.file.open("w"), stderr=subprocess.STDOUT)

    def log(self): return re.sub(r"\x1b\[[\d;]*m", "", self.file.read_text(encoding="utf-8", errors="replace"))

    def faults(self): return (self.file.parent/"faults").read_text(encoding="utf-8")

    def open(self, tab):
        "The page, once its kernel has run all cells"
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError: time.sleep(.2)
        tab.goto(f"http://127.0.0.1:{self.port}/", timeout=120_000)
        tab.locator(".sqv-Faulty .sqv-sum").wait_for(timeout=60_000)
        tab.locator(".sqv-PredictionBrowser .sqv-prediction").first.wait_for(timeout=120_000)

    def stop(self):
        self.process.terminate()
        try: self.process.wait(20)
        except subprocess.TimeoutExpired: self.process.kill()


@pytest.fixture(scope="module")
def served(chromium, runs, tmp_path_factory):
    "The page, its server, and what the page said is wrong"
    if missing := [name for name in ("voila", "ipykernel") if find_spec(name) is None]: conftest.absent(f"needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    for attempt in (1, 2):  # one start in some hangs
        folder = tmp_path_factory.mktemp("voila")
        (folder/"runs").symlink_to(runs)
        write_json(folder/"questions.json", [*ROWS, ELBE])
        server, wrong = Server(folder), []
        tab = chromium.new_page(viewport=dict(width=1280, height=1000))
        tab.set_default_timeout(20_000)
        tab.on("pageerror", lambda e: wrong.append(str(e)))
        try:
            server.open(tab)
            break
        except Exception as e:
            server.stop(); tab.close()
            if attempt == 2: raise RuntimeError(f"voila did not show the page. It wrote:\n{server.log()}") from e
    yield tab, server, wrong
    tab.close()
    server.stop()


@pytest.fixture
def page(served):
    "The page; afterwards neither it nor the kernel may have raised anything"
    tab, server, wrong = served
    yield tab
    assert not wrong and server.faults() == "" and "Traceback" not in server.log(), server.faults()
    assert tab.locator(".jupyter-widgets", has_text="A fault of this program").count() == 0


def wait(locator):
    "What is expected of an element, sooner or later: the kernel's messages come one by one"
    from playwright.sync_api import expect
    return expect(locator)


def shows(locator, text): wait(locator).to_have_text(text, use_inner_text=True, timeout=30_000)
def begins(locator, text): wait(locator).to_have_text(re.compile("^" + re.escape(text)), use_inner_text=True, timeout=30_000)
def holds(locator, value): wait(locator).to_have_value(value, timeout=30_000)
def counts(locator, n): wait(locator).to_have_count(n, timeout=30_000)


def labelled(widget, label): return widget.locator(".jupyter-widgets", has=widget.page.locator("label", has_text=re.compile(f"^{label}$")))
def press(handle, key, times=1):
    handle.focus()
    for _ in range(times): handle.page.keyboard.press(key)


def test_long_work_is_seen_and_leaves_the_kernel_free(served, page):
    work, bar = page.locator(".counting"), page.locator(".counting .progress-bar")
    assert work.inner_text().startswith("counts ") and bar.is_visible()
    before, widget, expected = work.inner_text(), page.locator(".sqv-WindowExplorer"), WindowExplorer("tiny-bert", QUESTIONS, 32, 8)
    for key, stride in (("ArrowRight", 9), ("ArrowLeft", 8)):
        press(widget.locator(".noUi-handle").nth(1), key)
        expected.stride.value = stride
        shows(widget.locator(".sqv-sum"), said(expected.views[0]))
    page.wait_for_function("before => document.querySelector('.counting').innerText != before", arg=before)
    (served[1].file.parent/"stop").touch()
    work.wait_for(state="hidden")


def test_sliders_move_the_windows(page):
    widget = page.locator(".sqv-WindowExplorer")
    expected = WindowExplorer("tiny-bert", QUESTIONS, 32, 8)
    shows(widget.locator(".sqv-sum"), said(expected.views[0]))
    for handle, slider, key, times in ((1, expected.stride, "ArrowRight", 4), (0, expected.length, "ArrowLeft", 5), (1, expected.stride, "ArrowLeft", 3), (0, expected.length, "ArrowRight", 30)):
        before = said(expected.views[0])
        slider.value += times if key == "ArrowRight" else -times
        assert said(expected.views[0]) != before
        press(widget.locator(".noUi-handle").nth(handle), key, times)
        shows(widget.locator(".widget-readout").nth(handle), str(slider.value))
        shows(widget.locator(".sqv-sum"), said(expected.views[0]))


def test_the_picture_of_a_widget_answers_when_pointed_at(page):
    view = page.locator(".sqv-WindowExplorer .sqv-windows")
    view.locator(".sqv-row").first.hover()
    begins(view.locator(".sqv-say"), "Window 1: ")


def test_next_and_own_text_in_the_page(page):
    widget = page.locator(".sqv-WindowExplorer")
    passage, question, answer = widget.locator("textarea"), widget.locator("input[type=text]").nth(-2), widget.locator("input[type=text]").nth(-1)
    for name, row in (("next ›", ROWS[1]), ("next ›", ROWS[2]), ("next ›", ELBE), ("‹ previous", ROWS[2]), ("next ›", ELBE)):
        widget.get_by_role("button", name=name).click()
        shows(widget.locator(".sqv-ask"), row["question"] + "".join(f" → {a}" for a in row["answers"]["text"]))
        for control, value in ((passage, row["context"]), (question, row["question"]), (answer, "".join(row["answers"]["text"]))): holds(control, value)
    answer.fill("Bo")
    shows(widget.locator("[role=alert]"), "The answer “\u2068Bo\u2069” does not stand in the passage: copy it from there, letter for letter")
    counts(widget.locator(".sqv-windows"), 0)
    answer.fill("North Sea")
    shows(widget.locator(".sqv-ask"), "Where does the Elbe end? → North Sea")
    counts(widget.locator("[role=alert]"), 0)
    answer.fill("")
    page.evaluate("() => { window.hits = 0; window.hit = () => { window.hits++ } }")  # a bare function would be called
    text = "<script>hit()</script><img src=x onerror=hit()> $x$ and $y$ & Bo"
    passage.fill(text)
    question.fill(text)
    shows(widget.locator(".sqv-ask"), text)
    drawn = "e => { e = e.cloneNode(true); e.querySelectorAll('.sqv-chip').forEach(c => c.remove()); return e.textContent; }"  # without the numbers of windows
    assert widget.locator(".sqv-windows .sqv-text").evaluate(drawn) == text and page.evaluate("window.hits") == 0 and widget.locator("img").count() == 0


def test_masks_in_the_page(page):
    widget, expected = page.locator(".sqv-MaskExplorer"), MaskExplorer("tiny-gpt2", QUESTIONS)
    summary = widget.locator(".sqv-mask .sqv-sum")
    def agrees():
        shows(summary, said(expected.views[0]))
        shows(widget.locator(".sqv-labels .sqv-sum"), said(expected.views[1]))
    agrees()
    widget.get_by_role("button", name="prefix").click()
    expected.mode.value = "prefix"
    agrees()
    press(widget.locator(".noUi-handle"), "ArrowRight")
    expected.number.value = 2
    agrees()
    assert "2 questions share the context" in summary.inner_text()
    widget.get_by_role("button", name="question first").click()
    expected.layout_of.value = "question_first"
    shows(widget.locator("[role=alert]"), expected.problem)
    counts(widget.locator(".sqv"), 0)
    widget.get_by_role("button", name="next ›").click()
    expected.steps.more.click()
    agrees()
    widget.locator("textarea").nth(1).fill("Which river? | Elbe")
    expected.lines.value = "Which river? | Elbe"
    agrees()
    widget.locator(".sqv-mask canvas").first.hover(position=dict(x=120, y=120))
    begins(widget.locator(".sqv-mask .sqv-who"), "Row ")


def test_predictions_in_the_page(page, runs):
    widget, expected = page.locator(".sqv-PredictionBrowser"), PredictionBrowser(runs, QUESTIONS).wait()
    browse, steps = widget.locator(".sqv-side-by-side"), widget.locator("input[type=number]")
    def agrees():
        for i, name in enumerate(expected.views): shows(browse.nth(i).locator("> div").first, name)
        row = QUESTIONS[expected.left[expected.steps.at]]
        for i in (0, 1): shows(browse.nth(i).locator(".sqv-ask"), row["question"])
        holds(steps, str(expected.steps.at + 1))
    agrees()
    for name, click in (("next ›", expected.steps.more), ("next ›", expected.steps.more), ("‹ previous", expected.steps.less)):
        widget.get_by_role("button", name=name).click()
        click.click()
        agrees()
    steps.fill("4"); steps.press("Enter")
    expected.steps.go(3)
    agrees()
    for side in ("writes", "points"):
        widget.locator("select").first.select_option(side)
        expected.side.value = side
        agrees()
        for label, kind in expected.kind.options[::-1]:
            widget.locator("select").nth(1).select_option(label)
            expected.kind.value = kind
            shows(widget.locator(".widget-label", has_text=re.compile(r"^of \d+$")), f"of {len(expected.left)}")
            agrees()


def test_asking_in_the_page(page, runs):
    box = page.locator(".sqv-AskBox")
    question, answers = box.locator("input[type=text]"), box.locator(".sqv-prediction")
    points, writes = (Predictor.from_pretrained(runs/name) for name in ("points", "writes"))
    box.locator("textarea").fill(ADA)
    for text, ask in (("Where was she born?", lambda: box.get_by_role("button", name="Ask").click()), ("When was that?", lambda: question.press("Enter"))):
        question.fill(text)
        ask()
        for i, model in enumerate((points, writes)):
            shows(answers.nth(i).locator(".sqv-ask"), text)
            shows(answers.nth(i).locator(".sqv-judged + b"), model.answer(text, ADA).text.replace("\n", "⏎") or "no answer")
        counts(answers.nth(1).get_by_text("Token by token"), 1)
        counts(box.locator(".progress-bar").locator("visible=true"), 0)
    question.fill(" ")
    box.get_by_role("button", name="Ask").click()
    shows(box.locator("[role=alert]"), "There is no question: write one")
    counts(answers, 0)


@pytest.mark.parametrize("width", [400, 1280])
def test_controls_fit_the_page(page, width):
    page.set_viewport_size(dict(width=width, height=1000))
    page.wait_for_timeout(300)
    wide = """() => [...document.querySelectorAll('.jupyter-widgets, .jupyter-widgets *')].filter(e => e.offsetParent && !e.closest('svg') && (e.getBoundingClientRect().right > innerWidth + 1 ||
        e.matches('button, .widget-label, .widget-readout') && e.scrollWidth > e.clientWidth + 1)).map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`)"""
    assert page.evaluate(wide) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left = page.locator(".sqv-WindowExplorer textarea").bounding_box()["x"]
    assert page.locator(".sqv-WindowExplorer input[type=text]").nth(-2).bounding_box()["x"] == left  # boxes stand below each other


def test_a_fault_is_seen(served):
    "What `page` looks at after each test would be there"
    tab, server, _ = served
    def faults(n):
        until = time.monotonic() + 20
        while server.faults().count("ZeroDivisionError: division by zero") < n and time.monotonic() < until: time.sleep(.1)
        return server.faults().count("ZeroDivisionError: division by zero")
    assert server.faults() == ""
    press(tab.locator(".sqv-Faulty .noUi-handle").first, "ArrowRight")
    shows(tab.locator(".sqv-Faulty [role=alert]"), "A fault of this program, please report it: ZeroDivisionError: division by zero")
    one = faults(1)
    tab.locator(".sqv-Faulty").get_by_role("button", name="next ›").click()
    assert one >= 1 and faults(one + 1) > one and tab.locator(".jupyter-widgets", has_text="A fault of this program").count() > 0
