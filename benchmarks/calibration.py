"""Probabilities of a trained model before and after their temperature is fitted, on articles that it was not fitted on.

    python benchmarks/calibration.py --model RUN --data squad-v1.1.json --test-articles 8 [--limit 600] [--draws 8] [--threads 1] [--json OUT]

The model answers the questions of its test articles once. A quarter of these articles, drawn anew `--draws` times, is what the temperature is fitted on; the figures are those of the other three quarters, and their mean over the draws. Less is better in all of them: negative log likelihood, Brier score, expected calibration error."""
import argparse, json, sys
from pathlib import Path

import numpy as np, torch
from transformers.utils import logging

from squad_nb.calibration import fit_temperature, probability_scores, temper
from squad_nb.core import SquadNbError
from squad_nb.metrics import question_scores
from squad_nb.predictor import Predictor
from squad_nb.squad import load_squad, split_by_article, take

logging.set_verbosity_error()
logging.disable_progress_bar()


def winner(prediction, temperature):
    "The probability of the answer at a temperature"
    place = [(c.text, c.start) for c in prediction.candidates].index((prediction.text, prediction.start))
    shares = np.array([c.probability for c in prediction.candidates])
    return float(temper(shares, np.zeros(len(shares), int), temperature)[place])


def one_draw(predictions, questions, titles, seed):
    "Fit on a quarter of the articles, and score on the others"
    names = sorted(set(titles))
    fitted = np.isin(titles, np.random.default_rng(seed).permutation(names)[:max(1, len(names)//4)])
    fit, rest = np.flatnonzero(fitted), np.flatnonzero(~fitted)
    temperature = fit_temperature([predictions[i] for i in fit], questions.select(fit)).temperature
    right = [row["exact"] for row in question_scores([predictions[i] for i in rest], questions.select(rest))]
    before, after = (probability_scores([winner(predictions[i], t) for i in rest], right) for t in (1, temperature))
    return dict(temperature=temperature, fitted_on=len(fit), scored_on=len(rest), before=before, after=after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a trained model of either track")
    parser.add_argument("--data", required=True, help="SQuAD JSON file")
    parser.add_argument("--test-articles", type=int, required=True, help="the last so many articles, which the model was not trained on")
    parser.add_argument("--limit", type=int, help="questions, whole passages")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        questions = take(split_by_article(load_squad(args.data), args.test_articles)[1], args.limit, 0, passages=True)
        predictor = Predictor.from_pretrained(args.model)
        predictor.answers.warm(1.0)  # in memory only
        predictions = predictor.predict(questions)
        kept = [i for i, p in enumerate(predictions) if p.candidates]
        draws = [one_draw([predictions[i] for i in kept], questions.select(kept), np.array(questions["title"][:])[kept], seed) for seed in range(args.draws)]
    except SquadNbError as e: sys.exit(f"calibration.py: {e}")
    mean = {when: {k: float(np.mean([d[when][k] for d in draws])) for k in draws[0][when]} for when in ("before", "after")}
    figures = dict(questions=len(questions), temperatures=[round(d["temperature"], 2) for d in draws], **mean, draws=draws)
    if args.json: args.json.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures))


if __name__ == "__main__": main()
