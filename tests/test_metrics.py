"The metrics on the predictions of published systems, against the official scripts' scores"
import json, time

import pytest

from squad_nb import metrics, squad
from squad_nb.core import DataError, Prediction

files = [("v1.1", "bert-ensemble"), ("v1.1", "logistic-regression-baseline"), ("v2.0", "bert-single-model")]


@pytest.fixture(params=files, ids=lambda f: "-".join(f))
def scored(request, shared):
    real, (version, system) = shared/"squad", request.param
    predictions = metrics.read_predictions(real/"predictions"/f"{version}-{system}.json")
    expected = json.loads((real/"predictions"/"expected.json").read_text())[version][system]
    return squad.load_squad(real/f"squad-{version}.json"), predictions, {"exact_match" if k == "exact" else k: v for k, v in expected.items()}


def test_equal_to_the_official_scripts(scored):
    dataset, predictions, expected = scored
    figures = metrics.squad_metrics(predictions, dataset)
    for key, value in expected.items(): assert abs(figures[key] - value) < 1e-6, key
    missing = len(dataset) - len(predictions)
    assert figures.get("missing", 0) == missing == len(metrics.missing_ids(predictions, dataset))
    assert set(figures) - {"total", "missing"} == set(expected) - {"total"}


def test_scoring_is_fast(scored):
    dataset, predictions, _ = scored
    metrics.normalize_answer.cache_clear()
    began = time.perf_counter()
    metrics.squad_metrics(predictions, dataset)
    assert time.perf_counter() - began < 5  # about 0.5 s on an idle core


def test_a_list_of_predictions_in_any_order_scores_the_same(scored):
    dataset, predictions, _ = scored
    listed = [Prediction(id, text, 0.0) for id, text in reversed(predictions.items())]
    assert metrics.squad_metrics(listed, dataset) == metrics.squad_metrics(predictions, dataset)


def test_the_evaluate_metric_says_the_same(scored):
    dataset, predictions, _ = scored
    answered = dataset.select([i for i, id in enumerate(dataset["id"]) if id in predictions])
    references = [{"id": row["id"], "answers": row["answers"]} for row in answered]
    figures = metrics.squad_metric().compute(predictions=[{"id": r["id"], "prediction_text": predictions[r["id"]]} for r in references], references=references)
    assert figures == metrics.squad_metrics(predictions, answered)


def test_the_wrong_file_is_refused(scored, shared):
    dataset, predictions, _ = scored
    with pytest.raises(DataError, match="answer no question of the data"): metrics.squad_metrics(predictions | {"x": "y"}, dataset)
    assert metrics.squad_metrics(predictions | {"x": "y"}, dataset, allow_unknown=True) == metrics.squad_metrics(predictions, dataset)
    with pytest.raises(DataError, match="is SQuAD data"): metrics.read_predictions(shared/"squad"/"squad-v1.1.json")
    with pytest.raises(DataError, match="file of predictions"): squad.load_squad(shared/"squad"/"predictions"/"v1.1-bert-ensemble.json")
