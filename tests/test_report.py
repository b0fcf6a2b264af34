"The page of a run: what it shows is what was scored, in a browser; hostile text stays text; ten thousand questions stay usable"
import json, os, subprocess, sys, time

import pytest
from datasets import Dataset
from hypothesis import given, strategies as st

from conftest import cases
from squad_nb.core import Candidate, Prediction, write_json
from squad_nb.kinds import ERROR_KINDS, error_kinds
from squad_nb.metrics import squad_metrics
from squad_nb.report import json_data, outside_windows, page_data, report, side_scores
from squad_nb.sample import generate_squad
from squad_nb.squad import SCHEMA, from_squad_json
from squad_nb.views import shown

HOSTILE = "<script>hit()</script></script><!--<img src=x onerror=hit()> & &lt; \"quotes' שלום עולם 🙂 e\u0301 \0 \u202eRLO {{x}} $5 and $6 --> ]]> \\u003c `${hit()}`"
PASSAGE = "🙂 Ada was born in London. She wrote a program in 1843. Her father died in Greece."
ASKED = [("Where was Ada born?", "London"), ("What did she write?", "a program"), ("When did she write it?", "1843"), ("Where did her father die?", "Greece"), ("Who is Bo?", ""), ("Who wrote?", "She")]
EARLY = ["London", "program in 1843", "London", "", "Ada", "Nobody"]
LATE = ["born in London", "a program", "1843", "died in Greece", "", "She"]


def rows(asked=ASKED, passage=PASSAGE, title="Ada"):
    made = [dict(id=f"q{i}", title=title, context=passage, question=q, answers=dict(text=[a] if a else [], answer_start=[passage.index(a)] if a else [])) for i, (q, a) in enumerate(asked)]
    return Dataset.from_list(made, features=SCHEMA)


def pointed(texts, questions):
    def candidate(text, row, score, p): return Candidate(text, score, p, *((at, at + len(text), 0) if text and (at := row["context"].find(text)) >= 0 else ()))
    return [Prediction.from_candidates(row["id"], [candidate(t, row, 3., .75), candidate("She", row, 1., .25)]) for t, row in zip(texts, questions)]


def small(): return report({"early": pointed(EARLY, rows()), "late": pointed(LATE, rows())}, rows(), {"run": [dict(epoch=1., step=5, eval_loss=1., eval_exact_match=20., eval_f1=30., eval_total=6)]})


any_text = st.text(st.characters(), max_size=30)


@given(st.recursive(any_text, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_data_comes_back_and_closes_nothing(data):
    def seen(x): return shown(x) if isinstance(x, str) else [seen(y) for y in x]
    element = json_data(seen(data))
    inside = element[element.index(">") + 1:element.rindex("<")]
    assert json.loads(inside) == seen(data) and not set(inside) & set("<>&")
    element.encode()


@cases(50)
@given(any_text.filter(str.strip), any_text, any_text, any_text)
def test_any_text_makes_a_page(context, question, said, title):
    questions = rows([(question, context[:3])], context, title) if context[:3].strip() else rows()
    page = str(report({title: {row["id"]: said for row in questions}}, questions).view)
    assert page.count("<script") == page.count("</script") == 2
    page.encode()


def test_each_passage_stands_once():
    questions = from_squad_json(generate_squad(5))
    sides = side_scores({"a": {}}, questions)
    data = page_data(sides, {"a": {}}, questions)
    assert data["contexts"] == list(dict.fromkeys(questions["context"])) and len(data["questions"]) == len(questions)
    assert {a[2] for a in data["sides"][0]["answers"]} == {list(ERROR_KINDS).index("missing")}


def test_figures_are_those_of_the_metrics():
    found = small().to_dict()["sides"]
    for side, texts in zip(found, (EARLY, LATE)):
        said = {f"q{i}": t for i, t in enumerate(texts)}
        assert side["scores"] == squad_metrics(said, rows()) and side["kinds"] == {k: n for k in ERROR_KINDS if (n := [r["kind"] for r in error_kinds(said, rows())].count(k))}
    assert (found[1]["gained"], found[1]["lost"]) == (["q1", "q2", "q4", "q5"], ["q0"])


# In a browser

def asked(tab): return tab.locator(".sqv-card .sqv-ask").inner_text()
def found(tab): return tab.locator(".sqv-found").inner_text()
def listed(tab): return tab.locator(".sqv-item > div > bdi").all_inner_texts()
def kind(tab, name): return tab.locator(".sqv-kinds button", has=tab.get_by_text(name, exact=True))


def search(tab, text, says, question=None):
    tab.locator(".sqv-find").fill(text)
    tab.wait_for_function("([says, question]) => document.querySelector('.sqv-found').textContent == says && (!question || document.querySelector('.sqv-ask').textContent == question)", arg=[says, question])


def test_a_kind_filters(show):
    tab = show(small())
    assert found(tab) == "6 questions" and asked(tab) == "Where was Ada born?" and tab.locator(".sqv-of option:checked").inner_text() == "late"
    assert kind(tab, "right").locator(".sqv-count").inner_text() == "4" and kind(tab, "right").locator(".sqv-part").inner_text() == "66.7%"
    kind(tab, "too long").click()
    assert found(tab) == "2 of 6 questions" and kind(tab, "too long").get_attribute("aria-pressed") == "true"
    assert listed(tab) == ["Where was Ada born?", "Where did her father die?"]
    kind(tab, "right").click()
    assert found(tab) == "6 questions"
    for name in ("right", "too long"): kind(tab, name).click()
    assert found(tab) == "6 questions"


def test_the_card_shows_what_was_answered(show):
    tab = show(small())
    tab.locator(".sqv-item").nth(3).click()
    card = tab.locator(".sqv-card")
    assert asked(tab) == "Where did her father die?" and tab.locator(".sqv-where").inner_text() == "question 4 of 6"
    assert (card.locator(".sqv-judged").inner_text(), card.locator(".sqv-answer").inner_text(), card.locator(".sqv-sum").inner_text()) == ("too long", "died in Greece", "accepted: Greece")
    assert "".join(card.locator(".sqv-said").all_inner_texts()) == "died in Greece" and card.locator(".sqv-gold").all_inner_texts() == ["Greece"]
    assert card.locator(".sqv-text").inner_text() == PASSAGE
    each, best = card.locator("table").all()
    def lines(table): return [" ".join(t.split()) for t in table.locator("tbody tr").all_inner_texts()]
    assert lines(each) == ["early no answer abstained wrongly 0", "late died in Greece too long 50"]
    assert lines(best) == ["1 died in Greece 75.0% 3.00 66:80", "2 She 25.0% 1.00 26:29"]


def test_search_and_what_was_won(show):
    tab = show(small())
    search(tab, "wrote SHE", "1 of 6 questions", "Who wrote?")
    search(tab, "died IN", "1 of 6 questions", "Where did her father die?")  # in an answer
    search(tab, "q2", "1 of 6 questions", "When did she write it?")
    search(tab, "nothing like it", "0 of 6 questions")
    assert tab.locator(".sqv-card").is_hidden() and "No question is left" in tab.locator(".sqv-list").inner_text()
    search(tab, "", "6 questions")
    tab.locator(".sqv-change").select_option("won")
    assert found(tab) == "4 of 6 questions" and listed(tab) == [ASKED[i][0] for i in (1, 2, 4, 5)]
    tab.locator(".sqv-change").select_option("lost")
    assert listed(tab) == [ASKED[0][0]]
    tab.locator(".sqv-of").select_option("0")
    tab.locator(".sqv-against").select_option("1")
    assert listed(tab) == [ASKED[i][0] for i in (1, 2, 4, 5)]
    assert kind(tab, "right").locator(".sqv-count").inner_text() == "1" and tab.locator(".sqv-card .sqv-answer").inner_text() == "program in 1843"


def test_the_keyboard_is_enough(show):
    tab = show(small())
    tab.locator(".sqv-find").focus()
    for key, question in (("ArrowDown", 0), ("ArrowDown", 1), ("ArrowRight", 2), ("ArrowUp", 1), ("End", 5), ("ArrowDown", 5), ("Home", 0)):
        tab.keyboard.press(key)
        assert asked(tab) == ASKED[question][0], key
        assert tab.evaluate("document.activeElement.ariaSelected") == "true"
    tab.locator(".sqv-walk button").last.focus()
    tab.keyboard.press("Enter")
    assert asked(tab) == ASKED[1][0] and tab.evaluate("document.activeElement.textContent") == "next ›"
    tab.keyboard.press("ArrowLeft")
    assert asked(tab) == ASKED[0][0]
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.className") == "sqv-find"
    kind(tab, "too long").focus()
    tab.keyboard.press("Space")
    assert found(tab) == "2 of 6 questions"


def test_hostile_text_runs_nothing(show):
    questions = Dataset.from_list([dict(id=HOSTILE + str(i), title=HOSTILE, context=HOSTILE + " end", question=HOSTILE, answers=dict(text=[HOSTILE] if i else [], answer_start=[0] if i else [])) for i in range(3)], features=SCHEMA)
    said = [Prediction.from_candidates(row["id"], [Candidate(HOSTILE, 1., .5, 0, len(HOSTILE)), Candidate(HOSTILE + "!", 0., .5)]) for row in questions]
    page = report({HOSTILE: said, "b": {row["id"]: HOSTILE + "?" for row in questions}}, questions, {HOSTILE: [dict(epoch=1., eval_f1=1., eval_loss=1.)]}, title=HOSTILE, notes=[HOSTILE])
    tab = show(page)
    for i in range(3):
        tab.locator(".sqv-item").nth(i).click()
        assert "<script>hit()</script>" in asked(tab) and "onerror=hit()" in tab.locator(".sqv-card .sqv-text").inner_text()
    search(tab, "<script>hit() zzz", "0 of 3 questions")
    search(tab, "<script>hit()", "3 questions", shown(HOSTILE))
    assert tab.locator("img").count() == 0 and tab.evaluate("document.scripts.length") == 2


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(show, width, scheme):
    tab = show(small(), width=width, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    dark = tab.locator(".sqv-report").evaluate("e => getComputedStyle(e).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    tab.emulate_media(media="print")
    assert not tab.locator(".sqv-find").is_visible() and tab.locator(".sqv-card .sqv-text").is_visible()


def test_ten_thousand_questions_are_usable(show, tmp_path):
    questions = from_squad_json(generate_squad(834, unanswerable=0.2)).select(range(10_000))
    def said(row, k):
        words, gold = row["context"].split(), (row["answers"]["text"] or [""])[0]
        picks = [gold if (len(row["id"]) + sum(map(ord, row["id"]))) % (k + 2) else words[5], *words[3:9:2], " ".join(words[2:5])]
        return Prediction.from_candidates(row["id"], [Candidate(t, 5. - i, .5/(i + 1), at, at + len(t), 0) if t and (at := row["context"].find(t)) >= 0 else Candidate(t, 5. - i, .1) for i, t in enumerate(picks)])
    page = report({f"checkpoint-{k}": [said(row, k) for row in questions] for k in (1, 2, 3)}, questions)
    file = page.save(tmp_path/"large.html")
    assert file.stat().st_size < 15e6
    begun = time.perf_counter()
    tab = show(page)
    tab.locator(".sqv-item").first.wait_for()
    opened, timed = time.perf_counter() - begun, {}
    assert found(tab) == "10,000 questions" and tab.locator(".sqv-page").inner_text() == "page 1 of 200"
    clock = "(act => { const t = performance.now(); act(); document.body.offsetHeight; return performance.now() - t; })"
    timed["kind"] = tab.evaluate(f"{clock}(() => document.querySelectorAll('.sqv-kinds button:not([hidden])')[1].click())")
    timed["kind off"] = tab.evaluate(f"{clock}(() => document.querySelectorAll('.sqv-kinds button:not([hidden])')[1].click())")
    timed["model"] = tab.evaluate(f"{clock}(() => {{ const e = document.querySelector('.sqv-of'); e.value = 0; e.dispatchEvent(new Event('change')); }})")
    last = questions[9_999]["id"]
    for name in ("first search", "search"):
        tab.locator(".sqv-find").fill(last)
        timed[name] = tab.evaluate(f"{clock}(() => document.querySelector('.sqv-find').dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true}})))")
        assert found(tab) == "1 of 10,000 questions" and last in tab.locator(".sqv-card").inner_text()
    print(f"{file.stat().st_size/1e6:.2f} MB, opened in {opened:.2f} s", {k: f"{v:.0f} ms" for k, v in timed.items()})
    assert opened < 20 and max(timed.values()) < 2000


# As a process

def test_the_command(tmp_path):
    world, run = write_json(tmp_path/"world.json", generate_squad(4, names="test")), tmp_path/"run"
    def squad_nb(*words): return subprocess.run([sys.executable, "-m", "squad_nb", *map(str, words)], capture_output=True, text=True, timeout=300, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    write_json(tmp_path/"train.json", generate_squad(10))
    assert squad_nb("train", "generative", "--model", "tiny-gpt2", "--data", tmp_path/"train.json", "--eval-data", world, "--epochs", 1, "--output", run).returncode == 0
    done = squad_nb("report", run, "--data", world, "--output", tmp_path/"a.html", "--json", "--against", run/"predictions.json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [s["scores"]["f1"] for s in said["sides"]] == [json.loads((run/"run.json").read_text())["scores"]["f1"]]*2 and sum(said["sides"][0]["kinds"].values()) == 48
    assert (tmp_path/"a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    done = squad_nb("report", run, "--data", world, "--output", tmp_path/"a.html")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert outside_windows(run, from_squad_json(json.loads(world.read_text()))) == set()
