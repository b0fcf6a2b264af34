"""Probabilities of a trained model before and after their temperature is fitted, on articles that it was not fitted on.

    python benchmarks/calibration.py --model RUN --data squad-v1.1.json --test-articles 8 [--limit 600] [--draws 8] [--threads 1] [--json OUT]

The model answers the questions of its test articles once. A quarter of these articles, or one where there are fewer than eight, is what the temperature is fitted on; the figures are those of the others, and their mean over `--draws` such choices, of which no two are the same. Less is better in all of them: negative log likelihood, Brier score, expected calibration error."""
import argparse, json
from itertools import combinations
from pathlib import Path

import numpy as np, torch
from transformers.utils import logging

from common import number, questions_in, run
from squad_nb.calibration import fit_temperature, probability_scores, temper
from squad_nb.core import write_json
from squad_nb.metrics import question_scores
from squad_nb.predictor import Predictor
from squad_nb.squad import split_by_article, take

logging.set_verbosity_error()
logging.disable_progress_bar()


def winner(prediction, temperature):
    "The probability of the answer at a temperature"
    place = [(c.text, c.start) for c in prediction.candidates].index((prediction.text, prediction.start))
    shares = np.array([c.probability for c in prediction.candidates])
    return float(temper(shares, np.zeros(len(shares), int), temperature)[place])


def choices(titles, most):
    "Quarters of the articles, no two alike"
    names = sorted(set(titles))
    every = [*combinations(names, max(1, len(names)//4))]
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))[:most]]


def one_draw(predictions, questions, titles, some):
    "Fit on some of the articles, and score on the others"
    fitted = np.isin(titles, some)
    fit, rest = np.flatnonzero(fitted), np.flatnonzero(~fitted)
    temperature = fit_temperature([predictions[i] for i in fit], questions.select(fit)).temperature
    right = [row["exact"] for row in question_scores([predictions[i] for i in rest], questions.select(rest))]
    before, after = (probability_scores([winner(predictions[i], t) for i in rest], right) for t in (1, temperature))
    return dict(temperature=temperature, fitted_on=len(fit), scored_on=len(rest), before=before, after=after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a trained model of either track")
    parser.add_argument("--data", required=True, help="SQuAD JSON file")
    parser.add_argument("--test-articles", type=number, required=True, help="the last so many articles, which the model was not trained on")
    parser.add_argument("--limit", type=number, help="questions, whole passages")
    parser.add_argument("--draws", type=number, default=8)
    parser.add_argument("--threads", type=number, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    questions = take(split_by_article(questions_in(args.data), args.test_articles)[1], args.limit, 0, passages=True)
    predictor = Predictor.from_pretrained(args.model)
    predictor.answers.warm(1.0)  # in memory only
    predictions = predictor.predict(questions)
    kept = [i for i, p in enumerate(predictions) if p.candidates]
    titles = np.array(questions["title"][:])[kept]
    draws = [one_draw([predictions[i] for i in kept], questions.select(kept), titles, some) for some in choices(titles, args.draws)]
    mean = {when: {k: float(np.mean([d[when][k] for d in draws])) for k in draws[0][when]} for when in ("before", "after")}
    figures = dict(questions=len(questions), temperatures=[round(d["temperature"], 2) for d in draws], **mean, draws=draws)
    if args.json: write_json(args.json, figures)
    print(json.dumps(figures))


if __name__ == "__main__": run(main)
