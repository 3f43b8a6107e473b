"""Double output: what a slow loop finds, what theory says, and chance where nothing changed."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from attack.pairs import PARTS, chosen, drawn, outputs
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from unlearnbench.attack.double_output import CLASSIFIERS, double_output
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores
from unlearnbench.defense.label_only import label_only
from unlearnbench.defense.rounding import rounding
from unlearnbench.defense.temperature import temperature
from unlearnbench.defense.top_k import top_k

FEATURES = ("direct_concat", "sorted_concat", "direct_diff", "sorted_diff", "l2_distance")
DIFFERENCES = FEATURES[2:]
SETTINGS: dict[str, Any] = {"classifier": "dt", "feature": "sorted_diff", "records": "in_out"}
SHADOW = drawn(seed=1)


def attacked(target: Predictions, shadow: Predictions = SHADOW, **settings: str) -> Scores:
    return double_output(target, shadow, **SETTINGS | settings)


def aucs(scores: Scores) -> dict[str, float]:
    return {name: scores.metrics[f"double_output_auc_{name}"][0] for name in FEATURES}


def table(scores: Scores) -> dict[int, float]:
    return dict(zip(scores.row.tolist(), scores.score.tolist(), strict=True))


# ---------------------------------------------------------------------------------------------
# The attack written out, record by record.


def slow_posterior(logits_QC: NDArray[np.float32]) -> list[float]:
    queries = []
    for z in logits_QC.tolist():
        e = [math.exp(one - max(z)) for one in z]
        queries.append([one / math.fsum(e) for one in e])
    return [math.fsum(column) / len(queries) for column in zip(*queries, strict=True)]


def slow_feature(name: str, p: list[float], q: list[float], k: int, alike: bool) -> list[float]:
    ascending = sorted(range(len(p)), key=lambda c: p[c])[len(p) - k :]
    p_sorted, q_sorted = [p[c] for c in ascending], [q[c] for c in ascending]
    return {
        "direct_concat": p + q,
        "sorted_concat": p_sorted + q_sorted,
        "direct_diff": [a - b for a, b in zip(p, q, strict=True)],
        "sorted_diff": [a - b for a, b in zip(p_sorted, q_sorted, strict=True)],
        "l2_distance": [math.sqrt(sum((a - b) ** 2 for a, b in zip(p, q, strict=True)))],
        "classical": p if alike else p_sorted,
    }[name]


def slow_records(side: Predictions, records: str) -> list[int]:
    assert side.model_N is not None
    assert side.request_N is not None
    part = RETAINED if records == "in_in" else FORGOTTEN
    by_pair: dict[tuple[int, int], dict[int, list[int]]] = {}
    for i, (m, r) in enumerate(zip(side.model_N.tolist(), side.request_N.tolist(), strict=True)):
        lists = by_pair.setdefault((m, r), {part: [], UNSEEN: []})
        lists.get(int(side.status_MN[1, i]), []).append(i)
    found = []
    for lists in by_pair.values():
        n = 1 if records != "in_out" else min(len(one) for one in lists.values())
        found += lists[part][:n] + lists[UNSEEN][:n]
    return sorted(found)


def slow_probability(classifier: str, x: Any, member: list[int], asked: Any) -> list[float]:
    # By the last value first: what the classifiers draw depends on the order.
    both = sorted(zip(x, member, strict=True), key=lambda one: (*one[0][::-1], one[1]))
    x_fit, y_fit = np.array([one for one, _ in both]), [one for _, one in both]
    model: Any
    if classifier == "lr":
        mean, std = x_fit.mean(axis=0), x_fit.std(axis=0)
        std = np.where(std > 1e-9, std, 1)
        x_fit, asked = (x_fit - mean) / std, (np.array(asked) - mean) / std
        model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=400)
    if classifier == "dt":
        model = DecisionTreeClassifier(max_leaf_nodes=10, random_state=0)
    if classifier == "rf":
        model = RandomForestClassifier(500, min_samples_leaf=30, random_state=0)
    if classifier == "mlp":
        model = MLPClassifier(early_stopping=True, learning_rate_init=0.01, random_state=0)
    model.fit(x_fit, y_fit)
    return [float(one[1]) for one in model.predict_proba(np.array(asked))]


def slow_auc(score: list[float], member: list[int]) -> float:
    inside, outside = (
        [s for s, m in zip(score, member, strict=True) if m == side] for side in (1, 0)
    )
    won = sum((a > b) + 0.5 * (a == b) for a in inside for b in outside)
    return won / len(inside) / len(outside)


def by_loops(
    target: Predictions, shadow: Predictions, classifier: str, feature: str, records: str
) -> tuple[dict[int, float], dict[str, float]]:
    sides, classes = (shadow, target), [one.logits_MQNC.shape[-1] for one in (shadow, target)]
    places = [slow_records(one, records) for one in sides]
    member = [
        [int(one.status_MN[1, i] != UNSEEN) for i in which]
        for one, which in zip(sides, places, strict=True)
    ]
    features = FEATURES if classifier != "rf" else (feature,)  # five hundred trees are slow
    names = [n for n in (*features, "classical") if len(set(classes)) == 1 or "direct" not in n]
    told = {}
    for name in names:
        x = [
            [
                slow_feature(
                    name,
                    slow_posterior(one.logits_MQNC[0, :, i]),
                    slow_posterior(one.logits_MQNC[1, :, i]),
                    min(classes),
                    len(set(classes)) == 1,
                )
                for i in which
            ]
            for one, which in zip(sides, places, strict=True)
        ]
        told[name] = slow_probability(classifier, x[0], member[0], x[1])
    truth = {
        name: [s if m else 1 - s for s, m in zip(told[name], member[1], strict=True)]
        for name in (feature, "classical")
    }
    pairs = list(zip(truth[feature], truth["classical"], strict=True))
    right = {
        name: [(s > 0.5) == m for s, m in zip(told[name], member[1], strict=True)] for name in truth
    }
    figures = {f"double_output_auc_{n}": slow_auc(told[n], member[1]) for n in names[:-1]} | {
        "double_output_auc": slow_auc(told[feature], member[1]),
        "double_output_acc": sum(right[feature]) / len(pairs),
        "classical_auc": slow_auc(told["classical"], member[1]),
        "classical_acc": sum(right["classical"]) / len(pairs),
        "deg_count": sum(u > c for u, c in pairs) / len(pairs),
        "deg_rate": sum(u - c for u, c in pairs) / len(pairs),
    }
    rows = target.rows_N[places[1]].tolist()
    return dict(zip(rows, told[feature], strict=True)), figures


@pytest.mark.parametrize(
    ("classifier", "feature", "records", "classes"),
    [
        *(("dt", feature, "in_out", 5) for feature in FEATURES),
        ("dt", "sorted_concat", "in_in", 5),
        ("dt", "sorted_diff", "in_out", 4),
        ("dt", "sorted_concat", "in_out", 7),
        ("lr", "direct_concat", "multi_version", 5),
        ("lr", "sorted_diff", "in_out", 5),
        ("lr", "l2_distance", "in_out", 4),
        ("lr", "sorted_concat", "in_out", 7),
        ("mlp", "direct_diff", "in_out", 5),
        ("mlp", "sorted_diff", "in_out", 7),
    ],
)
def test_against_loops(classifier: str, feature: str, records: str, classes: int) -> None:
    """Shadows of as many classes, of fewer and of more; two queries a record."""
    shadow = drawn(40, classes=classes, queries=2, seed=1)
    target = drawn(30, queries=2)
    scores = attacked(target, shadow, classifier=classifier, feature=feature, records=records)
    slow, figures = by_loops(target, shadow, classifier, feature, records)
    assert table(scores) == pytest.approx(slow, rel=1e-9, abs=1e-9)
    for name, value in figures.items():
        assert scores.metrics[name] == (pytest.approx(value, abs=1e-9), len(slow)), name


def test_of_classes_that_tie_the_first_one_stands_first() -> None:
    """All but one of 40 posteriors before are equal: what orders those after is the class."""
    sides = []
    for seed in (0, 1):
        one = drawn(classes=40, seed=seed)
        before = top_k(one, k=1).logits_MQNC[:1]
        sides.append(replace(one, logits_MQNC=np.concatenate([before, one.logits_MQNC[1:]])))
    slow, _ = by_loops(sides[0], sides[1], "lr", "sorted_diff", "in_out")
    found = table(attacked(sides[0], sides[1], classifier="lr"))
    assert found == pytest.approx(slow, rel=1e-9, abs=1e-9)


# ---------------------------------------------------------------------------------------------
# What must come out.


@pytest.mark.parametrize("classifier", ["dt", "lr", "mlp"])
def test_null_a_model_compared_with_itself(classifier: str) -> None:
    """Nothing changed: differences say nothing, and [p, p] what p says."""
    same, shadow = (replace(one, logits_MQNC=one.logits_MQNC[[0, 0]]) for one in (drawn(), SHADOW))
    scores = attacked(same, shadow, classifier=classifier, feature="direct_concat")
    assert {aucs(scores)[name] for name in DIFFERENCES} == {0.5}
    slow, _ = by_loops(same, shadow, classifier, "direct_concat", "in_out")
    assert table(scores) == pytest.approx(slow, abs=1e-9)
    assert 0.4 < scores.metrics["double_output_auc"][0] < 0.6
    if classifier == "dt":  # a tree on p twice is a tree on p: the classical attack against itself
        assert scores.metrics["deg_count"][0] == scores.metrics["deg_rate"][0] == 0
        assert scores.metrics["double_output_auc"] == scores.metrics["classical_auc"]


@pytest.mark.parametrize("classifier", ["dt", "lr"])
def test_null_of_deg_count_is_where_the_classical_attack_errs(classifier: str) -> None:
    """A feature that is constant gives every truth ½, which is more than c_i where that is less."""
    same, shadow = (replace(one, logits_MQNC=one.logits_MQNC[[0, 0]]) for one in (drawn(), SHADOW))
    scores = attacked(same, shadow, classifier=classifier)
    assert scores.score == pytest.approx(0.5)
    assert scores.metrics["deg_count"][0] == pytest.approx(0.5, abs=0.1)
    assert abs(scores.metrics["deg_rate"][0]) < 0.02
    if classifier == "lr":  # a tree's leaf may be at ½ itself
        errs = 1 - scores.metrics["classical_acc"][0]
        assert scores.metrics["deg_count"][0] == pytest.approx(errs)


def test_known_separation() -> None:
    """Two classes even before, and apart by exp N(d, 1) or exp N(0, 1) after: AUC Φ(d/√2)."""

    def moved(seed: int) -> Predictions:
        random, status = np.random.default_rng(seed), np.tile(PARTS, 1000)
        margin = np.exp(random.normal(size=len(status)) - 2 + 1.5 * (status == FORGOTTEN))
        zero = np.zeros_like(margin)
        return outputs(np.stack([zero, zero], -1), np.stack([zero, margin], -1), status, status % 2)

    metrics = attacked(moved(0), moved(1), classifier="lr", feature="direct_diff").metrics
    for name in FEATURES:
        expected = pytest.approx(norm.cdf(1.5 / 2**0.5), abs=0.015)
        assert metrics[f"double_output_auc_{name}"] == (expected, 4000), name
    assert metrics["double_output_auc"] == metrics["double_output_auc_direct_diff"]
    at_1pct = norm.sf(norm.isf(0.01) - 1.5)
    assert metrics["double_output_tpr_at_1pct"][0] == pytest.approx(at_1pct, abs=0.07)
    below = metrics["double_output_tpr_at_01pct"][0]
    assert below < metrics["double_output_tpr_at_1pct"][0]
    assert metrics["double_output_acc"][0] == pytest.approx(norm.cdf(0.75), abs=0.05)
    assert metrics["classical_auc"][0] == metrics["classical_acc"][0] == 0.5


@pytest.mark.parametrize("classifier", list(CLASSIFIERS))
def test_finds_what_only_the_change_tells(classifier: str) -> None:
    scores = attacked(drawn(), classifier=classifier)
    slow, _ = by_loops(drawn(), SHADOW, classifier, "sorted_diff", "in_out")
    assert table(scores) == pytest.approx(slow, rel=1e-9, abs=1e-9)
    metrics = scores.metrics
    for name in ("double_output_auc", "double_output_acc", "double_output_auc_l2_distance"):
        assert metrics[name][0] > 0.75, name
    assert metrics["classical_auc"][0] == pytest.approx(0.5, abs=0.12)
    assert metrics["deg_count"][0] > 0.6
    assert metrics["deg_rate"][0] > 0


def test_permuted_membership_is_chance() -> None:
    """Of the records attacked, or of those that taught the attack."""

    def permuted(one: Predictions, seed: int) -> Predictions:
        status = one.status_MN.copy()
        places = np.flatnonzero(status[1] != RETAINED)
        status[:, places] = np.random.default_rng(seed).permutation(status[:, places], axis=1)
        return replace(one, status_MN=status)

    target, shadow = drawn(400), drawn(400, seed=1)
    assert attacked(target, shadow).metrics["double_output_auc"][0] > 0.75
    for pair in ((permuted(target, 0), shadow), (target, permuted(shadow, 0))):
        scores = attacked(*pair)
        for name, value in {**aucs(scores), "acc": scores.metrics["double_output_acc"][0]}.items():
            assert value == pytest.approx(0.5, abs=0.07), name


# ---------------------------------------------------------------------------------------------
# Which records, and in which order.


def test_record_sets() -> None:
    """By hand: two requests, the first one with more unseen records, the second with fewer."""
    status = [UNSEEN, FORGOTTEN, RETAINED, UNSEEN, FORGOTTEN, RETAINED, UNSEEN]
    status += [RETAINED, FORGOTTEN, FORGOTTEN, UNSEEN]
    target = chosen(drawn(3), range(11))
    target = replace(
        target,
        status_MN=np.array([status[::-1], status], np.int8),  # the second is the request's
        model_N=np.repeat([4, 12], [7, 4]),
        request_N=np.zeros(11, np.int64),
    )
    expected = {
        "in_out": [0, 1, 3, 4, 8, 10],
        "in_in": [0, 2, 7, 10],
        "multi_version": [0, 1, 8, 10],
    }
    for records, places in expected.items():
        scores = attacked(target, records=records)
        assert scores.row.tolist() == target.rows_N[places].tolist(), records
        assert scores.member.tolist() == [status[i] != UNSEEN for i in places]
        assert scores.pool == ["model 04" if i < 7 else "model 12" for i in places]
        assert {n for _, n in scores.metrics.values()} == {len(places)}


def test_retained_records_are_attacked_as_such() -> None:
    """A change of the retained ones alone is found by in_in alone."""
    target, shadow = drawn(100, drop=0), drawn(100, drop=0, seed=1)
    logits = [one.logits_MQNC.copy() for one in (target, shadow)]
    for one in logits:
        one[1] += 3 * (target.status_MN[1] == RETAINED)[:, None] * np.eye(5, dtype=np.float32)[0]
    target, shadow = (
        replace(one, logits_MQNC=z) for one, z in zip((target, shadow), logits, strict=True)
    )
    found = {
        records: attacked(target, shadow, records=records).metrics["double_output_auc"]
        for records in ("in_in", "in_out", "multi_version")
    }
    assert [n for _, n in found.values()] == [200, 400, 200]
    assert found["in_in"][0] > 0.9
    assert found["in_out"][0] == pytest.approx(0.5, abs=0.1)
    assert found["multi_version"][0] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("classifier", ["dt", "lr", "mlp"])
def test_order_of_records_does_not_matter(classifier: str) -> None:
    random, target = np.random.default_rng(0), drawn()
    here = attacked(target, classifier=classifier)
    orders = [random.permutation(250) for _ in range(2)]
    there = attacked(chosen(target, orders[0]), chosen(SHADOW, orders[1]), classifier=classifier)
    assert table(there) == table(here)
    for name, figure in here.metrics.items():
        assert there.metrics[name] == pytest.approx(figure, nan_ok=True), name
    assert (
        there.row == chosen(target, orders[0]).rows_N[np.isin(orders[0] % 5, [0, 1, 3, 4])]
    ).all()


def asked_one_by_one(score: Callable[[Predictions], dict[int, float]]) -> dict[int, float]:
    """What each request's first record of either kind gets when no other is asked about."""
    found: dict[int, float] = {}
    for pair in range(50):
        found |= score(chosen(drawn(), [5 * pair, 5 * pair + 1]))
    return found


@pytest.mark.parametrize("classifier", ["dt", "lr", "mlp"])
def test_a_record_does_not_depend_on_the_others(classifier: str) -> None:
    whole = table(attacked(drawn(), classifier=classifier))
    score = partial(attacked, classifier=classifier)
    if classifier == "mlp":  # slow to train fifty times
        places = [i for pair in range(0, 50, 2) for i in (5 * pair, 5 * pair + 1)]
        part = table(score(chosen(drawn(), places)))
    else:
        part = asked_one_by_one(lambda one: table(score(one)))
    assert len(part) == (50 if classifier == "mlp" else 100)
    assert part == pytest.approx({row: whole[row] for row in part}, rel=1e-12)


def test_a_scaler_fitted_again_on_each_query_would_see_nothing() -> None:
    """The published defect, in the attack and in a target: AUC .5 to the bit. Ours finds it."""
    whole = attacked(drawn(), classifier="lr")
    assert whole.metrics["double_output_auc"][0] > 0.75
    slow = by_loops(drawn(), SHADOW, "lr", "sorted_diff", "in_out")[0]
    member = dict(zip(whole.row.tolist(), whole.member.tolist(), strict=True))
    fitted = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    broken = {
        row: float(fitted.predict_proba(StandardScaler().fit_transform([[score]]))[0, 1])
        for row, score in slow.items()
    }
    assert slow_auc(list(broken.values()), [int(member[row]) for row in broken]) == 0.5

    def hidden(one: Predictions) -> Predictions:
        """A linear model that standardises each query by itself says its intercept of all."""
        assert one.model_N is not None
        assert one.request_N is not None
        logits = np.zeros_like(one.logits_MQNC)
        logits[0] += np.sin(one.model_N[:, None] + np.arange(5))
        logits[1] += np.sin(5 * one.model_N[:, None] + one.request_N[:, None] + np.arange(5))
        return replace(one, logits_MQNC=logits)

    for classifier in ("dt", "lr", "mlp"):
        scores = attacked(hidden(drawn()), hidden(SHADOW), classifier=classifier)
        assert {*aucs(scores).values(), scores.metrics["classical_auc"][0]} == {0.5}


# ---------------------------------------------------------------------------------------------
# Defended outputs, other classes, and what it cannot do.


@pytest.mark.parametrize("classifier", ["dt", "lr", "mlp"])
@pytest.mark.parametrize(
    "defense",
    [
        label_only,
        partial(top_k, k=1),
        partial(top_k, k=3),
        partial(temperature, temperature=50.0),
        partial(temperature, temperature=1e-4),
        partial(rounding, decimals=0),
        partial(rounding, decimals=2),
    ],
    ids=["label_only", "top_1", "top_3", "hot", "cold", "no_decimals", "two_decimals"],
)
def test_defended_outputs(defense: Callable[[Predictions], Predictions], classifier: str) -> None:
    scores = attacked(defense(drawn()), defense(SHADOW), classifier=classifier)
    assert ((scores.score >= 0) & (scores.score <= 1)).all()
    too_few = {"double_output_tpr_at_01pct"}
    assert {name for name, (value, _) in scores.metrics.items() if np.isnan(value)} == too_few


@pytest.mark.parametrize("classifier", ["dt", "lr", "mlp"])
def test_labels_that_stay_say_nothing(classifier: str) -> None:
    def kept(one: Predictions) -> Predictions:
        same = one.logits_MQNC[0].argmax(-1) == one.logits_MQNC[1].argmax(-1)
        logits = np.where(same[..., None], one.logits_MQNC, one.logits_MQNC[[0, 0]])
        return replace(one, logits_MQNC=logits)

    target, shadow = kept(drawn()), kept(SHADOW)
    assert attacked(target, shadow, classifier=classifier).metrics["double_output_auc"][0] > 0.6
    found = attacked(label_only(target), label_only(shadow), classifier=classifier)
    assert {aucs(found)[name] for name in DIFFERENCES} == {0.5}


@pytest.mark.parametrize("classes", [3, 8])
def test_shadows_of_other_classes(classes: int) -> None:
    scores = attacked(drawn(), drawn(classes=classes, seed=1), feature="l2_distance")
    for name, value in aucs(scores).items():
        assert np.isnan(value) if "direct" in name else value > 0.7, name
    assert 0.4 < scores.metrics["classical_auc"][0] < 0.6


def test_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few iterations are part of the attack, not news."""
    monkeypatch.setitem(CLASSIFIERS, "lr", LogisticRegression(max_iter=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacked(drawn(), classifier="lr")


@pytest.mark.parametrize(
    ("keyword", "word"), [("classifier", "svm"), ("feature", "diff"), ("records", "all")]
)
def test_unknown_words(keyword: str, word: str) -> None:
    known = {"classifier": "lr, dt, rf, mlp", "feature": ", ".join(FEATURES)}
    right = known.get(keyword, "in_out, in_in, multi_version")
    with pytest.raises(ValueError, match=f"attack.call.{keyword}={word}: must be one of {right}"):
        attacked(drawn(), **{keyword: word})


def test_what_it_cannot_do() -> None:
    target = drawn()
    with pytest.raises(
        ValueError, match=r"attack.call.feature=direct_diff: .* 3 and 5 .* sorted_concat, sorted_di"
    ):
        attacked(target, drawn(classes=3), feature="direct_diff")
    one_output = replace(target, logits_MQNC=target.logits_MQNC[:1])
    nowhere, unasked = replace(target, model_N=None), replace(target, request_N=None)
    for broken in (one_output, nowhere, unasked):
        with pytest.raises(ValueError, match="target predictions must be of two outputs"):
            attacked(broken)
        with pytest.raises(ValueError, match="shadow predictions must be of two outputs"):
            attacked(target, broken)
    with pytest.raises(ValueError, match="target posteriors are not finite"):
        attacked(replace(target, logits_MQNC=np.full_like(target.logits_MQNC, np.nan)))
    regression = replace(target, y_N=target.y_N * 1.0)
    for sides in ((regression, SHADOW), (target, regression)):
        with pytest.raises(Skip, match="regression"):
            attacked(*sides)
    for places in (range(0), range(0, 250, 5), range(1, 250, 5)):  # nothing, or one side alone
        with pytest.raises(Skip, match="no target request"):
            attacked(chosen(target, list(places) or np.zeros(0, np.int64)))
        with pytest.raises(Skip, match="no shadow request"):
            attacked(target, chosen(target, list(places) or np.zeros(0, np.int64)))
    few = chosen(SHADOW, range(25))
    with pytest.raises(Skip, match="10 shadow records are too few for mlp"):
        attacked(target, few, classifier="mlp", records="multi_version")
    attacked(target, chosen(SHADOW, range(15)), classifier="mlp")
