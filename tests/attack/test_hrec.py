from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from unlearnbench.attack import _inversion, _judged, _rank_one, hrec
from unlearnbench.convex import deletion
from unlearnbench.convex.deletion import Deletions
from unlearnbench.convex.features import rff
from unlearnbench.convex.objective import Array, Objective
from unlearnbench.protocol._audit import Audit

K = 100


@cache
def digits() -> tuple[Array, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order] / 16, y[order]


@cache
def deleted(objective: Objective, n: int = 800, k: int = K) -> Deletions:
    x, y = digits()
    targets = objective.targets(y[:n], 10)
    return deletion.delete(objective, objective.features(x[:n]), targets, np.arange(k))


def public(objective: Objective, m: int = 800, n: int = 800) -> tuple[Array, Array]:
    x, y = digits()
    return objective.features(x[n : n + m]), objective.targets(y[n : n + m], 10)


def objective(loss: str, lam: float, intercept: str = "penalised", form: str = "sum") -> Objective:
    return Objective(loss, lam, intercept, form)


def attack(goal: Objective, found: Deletions, m: int = 800, label: str = "auto"):
    return _rank_one.reconstruct(goal, found, *public(goal, m), label=label)


def cosines(goal: Objective, found: Deletions, m: int = 800) -> Array:
    return _judged.cosine(attack(goal, found, m).x_KF, digits()[0][found.rows_K])


def share_right(goal: Objective, found: Deletions, m: int = 800, label: str = "auto") -> float:
    return float((attack(goal, found, m, label).y_K == digits()[1][found.rows_K]).mean())


def with_private_hessian(goal: Objective, found: Deletions) -> Array:
    """As if all of the private rows were public, each with weight 1."""
    x, y = digits()
    known = goal.features(x[: found.n]), goal.targets(y[: found.n], 10)
    guess = _rank_one.reconstruct(goal, replace(found, n=found.n + 1), *known, label="auto")
    return _judged.cosine(guess.x_KF, x[found.rows_K])


@pytest.mark.parametrize("lam", [1e-3, 1.0, 100.0])
def test_ridge_is_exact_with_the_private_covariance(lam: float) -> None:
    goal = objective("squared", lam)
    assert with_private_hessian(goal, deleted(goal)).min() > 1 - 1e-9


@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
def test_softmax_is_nearly_exact_with_the_private_hessian(lam: float) -> None:
    goal = objective("softmax", lam)
    assert with_private_hessian(goal, deleted(goal, k=40)).min() >= 0.9997


@pytest.mark.parametrize("intercept", ["penalised", "free"])
@pytest.mark.parametrize("lam", [1e-3, 1.0, 100.0])
def test_a_regression_target_is_exact_with_the_private_covariance(
    lam: float, intercept: str
) -> None:
    """The covariance without the row: the target is θ₊'s output less its slope."""
    x, y = load_diabetes(return_X_y=True)
    goal = objective("squared", lam, intercept)
    features, t = goal.features(x), goal.targets((y - y.mean()) / y.std(), 0)
    found = deletion.delete(goal, features, t, np.arange(20))
    for k in range(20):
        rest = np.arange(len(y)) != k
        one = replace(found, delta_KPC=found.delta_KPC[[k]])
        guess = _rank_one.reconstruct(goal, one, features[rest], t[rest], label="auto")
        assert abs(guess.y_K[0] - t[k, 0]) < 1e-9 * max(1, abs(t[k, 0]))
        assert_allclose(guess.x_KF[0], x[k], atol=1e-9)


@pytest.mark.parametrize(("n", "expected"), [(2000, 0.9759)])
def test_quality_law(n: int, expected: float) -> None:
    """E cos ≈ (1 + d(1/n + 1/m))^(−1/2) for whitened features."""
    random, d = np.random.default_rng(0), 50
    x = random.normal(size=(2 * n, d))
    y = x @ random.normal(size=d) + random.normal(size=2 * n)
    goal = objective("squared", 1e-3)
    found = deletion.delete(goal, goal.features(x[:n]), goal.targets(y[:n], 0), np.arange(K))
    shown = goal.features(x[n:]), goal.targets(y[n:], 0)
    mean = _judged.cosine(
        _rank_one.reconstruct(goal, found, *shown, label="auto").x_KF, x[:K]
    ).mean()
    law = (1 + d * (2 / n)) ** -0.5
    assert law == pytest.approx(expected, abs=2e-4)
    assert mean == pytest.approx(law, abs=0.01)


def test_the_penalty_helps_the_attacker_and_hrec_beats_the_baselines() -> None:
    means = {}
    for lam in (1e-3, 1.0, 100.0):
        goal = objective("squared", lam)
        means[lam] = cosines(goal, deleted(goal)).mean()
    assert means[100.0] > means[1.0] > means[1e-3]
    x, _ = digits()
    for loss in ("squared", "softmax"):
        goal = objective(loss, 1.0)
        found = deleted(goal)
        shown, _ = public(goal)
        nearest = _rank_one.max_diff(goal, found, shown, space="probabilities")
        max_diff = _judged.cosine(x[800:1600][nearest], x[:K]).mean()
        avg = _judged.cosine(x[800:1600].mean(axis=0)[None], x[:K]).mean()
        assert cosines(goal, found).mean() > max_diff + 0.02
        assert max_diff > avg + 0.02


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_the_sign_matters(loss: str) -> None:
    """A gradient of the wrong sign points the right way, but says that the label is unlikely."""
    goal = objective(loss, 1.0)
    found = deleted(goal)
    wrong = replace(found, delta_KPC=-found.delta_KPC)
    assert_allclose(cosines(goal, wrong), cosines(goal, found), atol=1e-9)
    assert share_right(goal, found, label="least") > 0.85
    assert share_right(goal, wrong, label="least") < 0.2


def test_the_sign_matters_to_a_mean_form_trainer_and_to_a_regression() -> None:
    goal = objective("softmax", 1 / 800, form="mean")
    found = deleted(goal)
    flipped = replace(found, theta_PC=-found.theta_PC)  # public curvature is nearly as before
    assert cosines(goal, found).mean() > cosines(goal, flipped).mean()
    x, y = load_diabetes(return_X_y=True)
    goal = objective("squared", 1e-3)
    features, t = goal.features(x), goal.targets((y - y.mean()) / y.std(), 0)
    found = deletion.delete(goal, features, t, np.arange(K))
    wrong = replace(found, delta_KPC=-found.delta_KPC)
    missed, by_far = (
        abs(_rank_one.reconstruct(goal, one, features, t, label="auto").y_K - t[:K, 0]).mean()
        for one in (found, wrong)
    )
    assert missed < 0.05 < 1 < by_far


def test_the_factor_matters_where_the_penalty_is_large() -> None:
    """(n − 1)/m = 4 here; with n said to be m + 1 it is left out."""
    for loss, lam in (("squared", 100.0), ("softmax", 10.0)):
        goal = objective(loss, lam)
        found = deleted(goal)
        without = replace(found, n=201)
        assert cosines(goal, found, 200).mean() > cosines(goal, without, 200).mean() + 0.03
    scarce = objective("squared", 1e-9)
    same = cosines(scarce, replace(deleted(scarce), n=201), 200).mean()
    assert same == pytest.approx(cosines(scarce, deleted(scarce), 200).mean(), abs=1e-3)


def test_a_mean_form_trainer_needs_the_correction() -> None:
    goal = objective("softmax", 1 / 800, form="mean")
    found = deleted(goal)
    as_sum = objective("softmax", 799 / 800)  # the same but for the term −λ'θ₊
    with_it, without = cosines(goal, found), cosines(as_sum, found)
    assert with_it.mean() > without.mean()
    g = _rank_one.gradient(goal, found, *public(goal)) - _rank_one.gradient(
        as_sum, found, *public(goal)
    )
    assert_allclose(g, np.broadcast_to(-found.theta_PC / 800, g.shape), atol=1e-12)
    assert with_private_hessian(as_sum, found).min() < 0.9997
    # All private rows as public ones, each with weight 799/800.
    x, y = digits()
    known = goal.features(x[:800]), goal.targets(y[:800], 10)
    exact = _rank_one.reconstruct(goal, found, *known, label="auto")
    assert _judged.cosine(exact.x_KF, x[:K]).min() >= 0.9997


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_null_the_truth_permuted_over_deletions(loss: str) -> None:
    goal = objective(loss, 1.0)
    found = deleted(goal)
    guess, x = attack(goal, found), digits()[0]
    null = _judged.figures(guess.x_KF, np.roll(x[:K], 1, axis=0), x[800:1600])
    own = _judged.figures(guess.x_KF, x[:K], x[800:1600])
    avg = _judged.cosine(x[800:1600].mean(axis=0)[None], x[:K]).mean()
    assert null["cos"].mean() < avg
    assert null["cos"].mean() < own["cos"].mean() - 0.15
    assert abs(null["cos_centered"].mean()) < 0.15 < 0.9 < own["cos_centered"].mean()
    assert np.median(null["rank"]) > 200 > 1 == np.median(own["rank"])


def test_label_rules() -> None:
    ridge, soft = objective("squared", 1.0), objective("softmax", 10.0)
    assert share_right(ridge, deleted(ridge), label="least") >= 0.81
    assert 0.5 < share_right(ridge, deleted(ridge), label="largest") < 0.81
    for label in ("largest", "least", "intercept", "auto"):
        assert share_right(soft, deleted(soft), label=label) >= 0.95
    assert attack(ridge, deleted(ridge)).quality_K.max() < 1e-9, "rank one whatever the estimate"
    quality = {
        lam: attack(objective("softmax", lam), deleted(objective("softmax", lam))).quality_K
        for lam in (0.1, 10.0)
    }
    assert quality[10.0].mean() < quality[0.1].mean()


def test_the_largest_entry_is_the_label_where_the_gradient_has_rank_one() -> None:
    goal = objective("softmax", 0.1)
    found = deleted(goal)
    auto, largest, least = (attack(goal, found, label=one) for one in ("auto", "largest", "least"))
    sure = auto.quality_K < 0.15
    assert (largest.y_K != least.y_K)[sure].any()
    assert (largest.y_K != least.y_K)[~sure].any()
    assert (auto.y_K == np.where(sure, largest.y_K, least.y_K)).all()


def test_squared_hinge() -> None:
    """Exact for support vectors; other rows leave no trace, and that is what is said."""
    goal = objective("squared_hinge", 10.0)
    found = deleted(goal)
    guess = attack(goal, found)
    trace = abs(found.delta_KPC).max(axis=(1, 2)) > 1e-9
    close = _judged.cosine(guess.x_KF, digits()[0][:K])
    assert np.median(close[trace]) > 0.97
    silent = replace(found, delta_KPC=np.zeros_like(found.delta_KPC))
    nothing = attack(goal, silent)
    assert (nothing.x_KF == 0).all()
    assert (nothing.quality_K == 1).all()
    assert (_judged.cosine(nothing.x_KF, digits()[0][:K]) == 0).all()


def test_without_an_intercept_the_public_mean_gives_the_sign() -> None:
    goal = objective("squared", 1.0, "none")
    found = deleted(goal)
    for one in (found, replace(found, delta_KPC=-found.delta_KPC)):
        assert cosines(goal, one).mean() > 0.95
    with pytest.raises(ValueError, match="the model has none"):
        attack(goal, found, label="intercept")


def test_why_the_change_itself_beats_it_on_a_small_table_the_model_is_sure_of() -> None:
    """Few rows bend the loss, so the public Hessian is poor, and the constant has the wrong sign.

    Of breast cancer at λ = 1: with the private Hessian, with a larger penalty, or but for the
    sign, HRec is the better one.
    """
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:400]
    x, y = ((x - x.mean(axis=0)) / x.std(axis=0))[order], y[order]
    near, effective = {}, {}
    for lam in (1.0, 10.0):
        goal = objective("softmax", lam)
        features, t = goal.features(x), goal.targets(y, 2)
        found = deletion.delete(goal, features[:200], t[:200], np.arange(50))
        own = _rank_one.reconstruct(goal, found, features[200:], t[200:], label="auto")
        change = _rank_one.read(goal, found, features, found.delta_KPC, label="auto")
        known = features[:200], t[:200]
        private = _rank_one.reconstruct(goal, replace(found, n=201), *known, label="auto")
        near[lam] = [_judged.cosine(one.x_KF, x[:50]) for one in (own, change, private)]
        bent_N = softmax(features[:200] @ found.theta_PC, axis=1).prod(axis=1)
        effective[lam] = bent_N.sum() ** 2 / (bent_N**2).sum()
    own, change, private = near[1.0]
    assert own.mean() < change.mean() - 0.1
    assert private.mean() > 0.9
    assert effective[1.0] < 40 < 60 < effective[10.0], "of 200 rows, for 31 parameters a class"
    assert (own < 0).mean() > 2 * (change < 0).mean()
    assert abs(own).mean() > abs(change).mean()
    own, change, _ = near[10.0]
    assert own.mean() > change.mean() + 0.1


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_several_deletions_at_once_score_low(loss: str) -> None:
    goal = objective(loss, 1.0)
    x, y = digits()
    features, t = goal.features(x[:800]), goal.targets(y[:800], 10)
    rest = deletion.fit(goal, features[50:], t[50:])
    single = deleted(goal)
    delta = np.broadcast_to(rest - single.theta_PC, (50, *rest.shape))
    found = replace(single, delta_KPC=delta, rows_K=np.arange(50))
    assert cosines(goal, found).mean() < cosines(goal, single)[:50].mean() - 0.1
    assert attack(goal, found).quality_K.mean() > attack(goal, single).quality_K.mean() + 0.1


def test_unconverged_training_scores_low() -> None:
    goal = objective("softmax", 1.0)
    found = deleted(goal)
    noise = np.random.default_rng(0).normal(size=found.delta_KPC.shape)
    noise *= abs(found.delta_KPC).max()
    noisy = replace(found, delta_KPC=found.delta_KPC + noise)
    x = digits()[0]
    seen = _judged.figures(attack(goal, noisy).x_KF, x[:K], x[800:1600])
    assert seen["cos"].mean() < cosines(goal, found).mean() - 0.1
    assert seen["cos_centered"].mean() < 0.4
    assert attack(goal, noisy).quality_K.mean() > attack(goal, found).quality_K.mean()
    broken = replace(found, delta_KPC=found.delta_KPC * np.nan)
    with pytest.raises(ValueError, match="finite"):
        attack(goal, broken)


def test_a_deletion_does_not_depend_on_the_others() -> None:
    goal = objective("softmax", 1.0)
    found = deleted(goal)
    order = np.random.default_rng(0).permutation(K)[:30]
    part = replace(found, delta_KPC=found.delta_KPC[order], rows_K=order)
    assert_allclose(attack(goal, part).x_KF, attack(goal, found).x_KF[order], rtol=1e-9, atol=1e-9)
    assert (attack(goal, part).y_K == attack(goal, found).y_K[order]).all()


def test_max_diff_and_figures_against_loops() -> None:
    random = np.random.default_rng(0)
    for loss, space in (("softmax", "probabilities"), ("softmax", "logits"), ("squared", "logits")):
        goal = objective(loss, 1.0)
        found, (shown, _) = deleted(goal), public(goal)
        chosen = _rank_one.max_diff(goal, found, shown, space=space)
        for k in range(5):
            f = [shown @ found.theta_PC, shown @ (found.theta_PC + found.delta_KPC[k])]
            if space == "probabilities":
                f = [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in f]
            assert chosen[k] == np.linalg.norm(f[1] - f[0], axis=1).argmax()
    guess, truth, others = random.normal(size=(3, 4, 5)) + 1
    found_figures = _judged.figures(guess, truth, others)
    for k in range(4):

        def cos(a: Array, b: Array) -> float:
            return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

        mean = others.mean(axis=0)
        rank = 1 + sum(cos(one, guess[k]) > cos(truth[k], guess[k]) for one in others)
        expected = {
            "cos": cos(guess[k], truth[k]),
            "cos_centered": cos(guess[k] - mean, truth[k] - mean),
            "scale": np.linalg.norm(guess[k]) / np.linalg.norm(truth[k]),
            "rank": rank,
        }
        assert {name: value[k] for name, value in found_figures.items()} == pytest.approx(expected)


def test_inversion_finds_the_input_of_an_embedding() -> None:
    x = torch.from_numpy(digits()[0]).float()
    drawn = torch.Generator().manual_seed(0)
    embedding = rff(64, dimension=512, gamma=0.05, generator=drawn).to(torch.float32)
    goal, shown = embedding(x[:6]) * 3, x[800:1000]  # its length has no say
    begin = _inversion.starts(goal, shown, embedding(shown), restarts=2)
    assert begin.shape == (6, 3, 64)
    torch.testing.assert_close(begin[:, 0], shown.mean(dim=0).expand(6, -1))
    near = (_judged.unit(embedding(shown).numpy()) @ goal[0].numpy()).argmax()
    assert torch.equal(begin[0, 1], shown[near])
    settings = {"low": 0.0, "high": 1.0, "steps": 300}
    found, apart = _inversion.invert(embedding, goal, begin, **settings)
    assert _judged.cosine(found.double().numpy(), x[:6].double().numpy()).min() > 0.999
    assert apart.max() < 1e-4
    assert found.min() >= 0
    assert found.max() <= 1
    alone, _ = _inversion.invert(embedding, goal[:1], begin[:1], **settings)
    assert _judged.cosine(alone.numpy(), found[:1].numpy())[0] > 0.9999


def test_what_it_cannot_do() -> None:
    goal = objective("squared", 1.0)
    found = deleted(goal)
    with pytest.raises(ValueError, match="no public record"):
        attack(goal, found, m=0)


# ---------------------------------------------------------------------------------------------
# The attack as cells call it, on everything at once.


CALL = {"label": "auto", "space": "probabilities", "restarts": 1, "steps": 20}


@cache
def audit(loss: str = "softmax", lam: float = 1.0) -> Audit:
    goal = objective(loss, lam)
    x, y = digits()
    return Audit(
        objective=goal,
        found=deleted(goal),
        public_MF=x[800:1600],
        public_y_M=y[800:1600],
        x_KF=x[:K],
        y_K=y[:K],
        row_K=np.arange(K) + 7,
        n_classes=10,
        embedding=None,
        shape=(1, 8, 8),
        low_F=np.zeros(64),
        high_F=np.ones(64),
    )


def figures_of(about: Audit, **changed: Any) -> dict[str, float]:
    told = hrec.hrec(about, **{**CALL, **changed}).metrics
    return {name: value for name, (value, _) in told.items()}


def of(about: Audit, rows: np.ndarray) -> Audit:
    """The same audit, of some of its deletions in some order."""
    found = about.found
    part = replace(
        found,
        delta_KPC=found.delta_KPC[rows],
        residual_K=found.residual_K[rows],
        rows_K=found.rows_K[rows],
    )
    return replace(
        about, found=part, x_KF=about.x_KF[rows], y_K=about.y_K[rows], row_K=about.row_K[rows]
    )


@pytest.mark.parametrize("loss", ["squared", "softmax", "squared_hinge"])
def test_figures_are_means_of_the_scores(loss: str) -> None:
    about = audit(loss)
    scores, told = hrec.hrec(about, **CALL), figures_of(about)
    assert {n for _, n in scores.metrics.values()} == {K}
    pool = np.array(scores.pool)
    for who in ("hrec", "avg", "max_diff"):
        assert (scores.row[pool == who] == about.row_K).all()
        assert told[f"{who}_cos"] == pytest.approx(scores.score[pool == who].mean())
    assert np.isfinite(list(told.values())).all()
    assert_allclose(scores.score[pool == "hrec"], cosines(about.objective, about.found))
    assert scores.member.all()
    most = np.bincount(about.public_y_M).argmax()
    assert told["avg_label_acc"] == (about.y_K == most).mean()


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_null_and_reference(loss: str) -> None:
    """Against the truths of other deletions it is no better than the public mean is."""
    told = figures_of(audit(loss))
    assert told["hrec_null_cos"] < told["avg_cos"] < told["max_diff_cos"] < told["hrec_cos"]
    wrong = replace(audit(loss), x_KF=np.roll(audit(loss).x_KF, 1, axis=0))
    assert figures_of(wrong)["hrec_cos"] == pytest.approx(told["hrec_null_cos"])


def test_the_order_of_deletions_has_no_say() -> None:
    about = audit()
    order = np.random.default_rng(0).permutation(K)
    ways = [hrec.hrec(one, **CALL) for one in (about, of(about, order))]
    cosine_of = [dict(zip(zip(w.pool, w.row, strict=True), w.score, strict=True)) for w in ways]
    assert cosine_of[0].keys() == cosine_of[1].keys()
    for key, value in cosine_of[0].items():
        assert cosine_of[1][key] == pytest.approx(value)


def test_no_trace_is_no_score() -> None:
    about = audit()
    still = replace(about.found, delta_KPC=np.zeros_like(about.found.delta_KPC))
    told = figures_of(replace(about, found=still))
    assert (told["hrec_cos"], told["hrec_quality"], told["deletion_trace"]) == (0, 1, 0)
    assert told["hrec_rank"] == 1 + 800 / 2
    assert np.isfinite(list(told.values())).all()
    assert np.isnan(figures_of(of(about, np.arange(1)))["hrec_null_cos"])


def test_a_step_up_the_gradient_is_read_off_the_change_itself() -> None:
    about = audit()
    goal, found = about.objective, about.found
    x_KP, t_KC = goal.features(about.x_KF), goal.targets(about.y_K, 10)
    slope_KC = goal.slope(x_KP @ found.theta_PC, t_KC)
    step = replace(found, delta_KPC=0.01 * x_KP[:, :, None] * slope_KC[:, None])
    told = figures_of(replace(about, found=step))
    assert told["change_cos"] == pytest.approx(1)
    assert told["hrec_cos"] < 0.99


def test_of_two_classes_the_sign_tells_the_label() -> None:
    """Their residuals are as large as each other."""
    x, y = digits()
    goal, y = objective("softmax", 1.0), y % 2
    found = deletion.delete(goal, goal.features(x[:800]), goal.targets(y[:800], 2), np.arange(K))
    shown = goal.features(x[800:1600]), goal.targets(y[800:1600], 2)
    auto, least = (
        _rank_one.reconstruct(goal, found, *shown, label=label).y_K for label in ("auto", "least")
    )
    assert (auto == least).all()
    assert (auto == y[:K]).mean() > 0.9


def test_a_picture_shows_one_record_of_each_class() -> None:
    shown = hrec.hrec(audit(), **CALL).picture
    assert shown is not None
    assert shown.shape == (10 * 68 + 17, 4 * 68 + 4, 3)
    truth = shown[17 : 17 + 64, 4 : 4 + 64, 0]  # of the first record of class 0, magnified 8 times
    first = audit().x_KF[np.flatnonzero(audit().y_K == 0)[0]].reshape(8, 8)
    assert (truth[::8, ::8] == np.round(first * 255)).all()
    table = replace(audit(), shape=(64,))
    assert hrec.hrec(table, **CALL).picture is None


def test_what_the_attack_refuses() -> None:
    with pytest.raises(ValueError, match=r"attack.call.restarts=-1: must not be negative"):
        hrec.hrec(audit(), **{**CALL, "restarts": -1})


def test_words_and_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match=r"attack.call.label=A: must be one of auto, largest"):
        figures_of(audit(), label="A")
    with pytest.raises(ValueError, match=r"attack.call.space=odds: must be one of probabilities"):
        figures_of(audit(), space="odds")
    for name in ("restarts", "steps"):
        with pytest.raises(ValueError, match=rf"attack.call.{name}=-1: must not be negative"):
            figures_of(audit(), **{name: -1})
