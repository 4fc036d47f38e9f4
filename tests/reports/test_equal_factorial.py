"""Architecture × recipe, and the figures of the equal arm."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tal_lib.reports import figures
from tal_lib.reports.equal import factorial
from tal_lib.reports.equal.arms import MAIN, MEAN, PLAIN, TUNED, scores_of
from tal_lib.reports.report import tidy_tables

EFFECTS = {"temporalmaxer": 10, "tridet": 4, "actionformer": 0, "bilstm": -6}


def both_arms(records):
    data = tidy_tables(records)
    return factorial.factorial(scores_of(data, MAIN), scores_of(data, PLAIN))


def test_the_recipe_and_the_architectures_have_their_known_worth(study):
    models, summary = both_arms(study(EFFECTS, noise=0.5))
    assert len(models) == 8 and len(summary) == 2
    for row in summary.itertuples():
        assert row.recipe_low < 5 < row.recipe_high and row.recipe_high - row.recipe_low < 1
        for arm in ("plain", "equal"):
            assert getattr(row, f"{arm}_sd") == pytest.approx(np.std(list(EFFECTS.values()), ddof=1), abs=0.5)
            assert getattr(row, f"{arm}_range") == pytest.approx(16, abs=0.6)
            assert getattr(row, f"{arm}_noise") < 0.3
        assert row.floor == pytest.approx(31, abs=6)
    assert (models.difference - 5).abs().max() < 0.6 and (models.p_adjusted < 0.001).all()
    text = factorial.sentence(next(summary.itertuples()))
    assert text.startswith("On hapt with 10 % of the labels, the recipe (augmentation and tuning) adds +5.")
    assert (
        "over 4 models. The standard deviation between architectures is" in text
        and "timeline_prior, has" in text
    )


def test_models_without_differences_have_the_spread_of_noise(study):
    names = [f"model_{number}" for number in range(12)]
    spreads, noises = [], []
    for seed in range(8):
        data = tidy_tables(study(dict.fromkeys(names, 0), fractions=(1.0,), noise=4, seed=seed))
        sd, _, noise = factorial.spread(scores_of(data, MAIN)["hapt", 1.0], names)
        spreads.append(sd), noises.append(noise)
    assert np.mean(spreads) == pytest.approx(4 / 30**0.5, rel=0.15)
    assert np.mean(noises) == pytest.approx(np.mean(spreads), rel=0.2)


def test_only_models_with_both_arms_count_and_benchmarks_weigh_equally(study):
    records = [
        record
        for record in study(EFFECTS, TUNED, (1.0,))
        if (record["sweep"], record["parameters"]["model"]) != ("plain", "temporalmaxer")
        or record["parameters"]["fold"] < 4
    ]
    models, summary = both_arms(records)
    assert "temporalmaxer" not in set(models.model) and (summary.models == 3).all()
    mean = summary[summary.benchmark == MEAN].iloc[0]
    each = summary[summary.benchmark != MEAN]
    for column in ("recipe", "plain_sd", "equal_range", "floor"):
        assert mean[column] == pytest.approx(each[column].mean())
    largest = each.loc[each.recipe.abs().idxmax()]
    rest = each[each.benchmark != largest.benchmark]
    assert mean.without == largest.benchmark and mean.without_recipe == pytest.approx(rest.recipe.mean())
    assert mean.without_low < mean.without_recipe < mean.without_high and mean.without_p < 0.001
    text = factorial.of_mean(summary[summary.benchmark == MEAN])
    assert f"adds {mean.recipe:+.1f} [" in text and "means over 3 models and the tuned benchmarks." in text
    assert f"Without {mean.without}, where the gain with 100 % is farthest from zero, it is" in text
    assert "architectures" not in text  # the conclusion compares them


def test_several_benchmarks_are_told_in_two_sentences(study):
    _, summary = both_arms(study(EFFECTS, ("hapt", "sfinge3d"), (1.0,)))
    recipe, architectures = factorial.overview(summary)
    low, high = sorted(summary.recipe)
    assert f"gains {low:+.1f} to {high:+.1f} points of avg mAP" in recipe
    told = [
        f"{row.recipe:+.1f} [{row.recipe_low:+.1f}, {row.recipe_high:+.1f}] ({row.benchmark}, 100 %)"
        for row in summary.itertuples()
    ]
    assert recipe.endswith(f"Told apart from zero: {'; '.join(told)}.")
    low, high = sorted(summary.equal_sd)
    assert f"is {low:.1f} to {high:.1f} points" in architectures
    low, high = sorted(summary.equal_noise)
    assert architectures.endswith(f"Noise alone would give {low:.1f} to {high:.1f}.")
    nothing = summary.assign(recipe_p_adjusted=0.06)  # the intervals alone do not decide
    assert factorial.overview(nothing)[0].endswith("No gain can be told apart from zero.")


def test_gains_of_the_recipe_are_adjusted_over_all_benchmarks_and_fractions(study):
    """Holm by hand: the smallest p-value times their number, the next times one less, never falling."""
    _, summary = both_arms(study(EFFECTS, TUNED))
    each, means = summary[summary.benchmark != MEAN], summary[summary.benchmark == MEAN]
    assert len(each) == 2 * len(TUNED) and len(means) == 2
    for group in (each, means):
        ordered, least = group.sort_values("recipe_p"), 0.0
        for place, row in enumerate(ordered.itertuples()):
            least = max(least, min(1.0, (len(group) - place) * row.recipe_p))
            assert row.recipe_p_adjusted == pytest.approx(least)
    assert (each.recipe_p_adjusted > each.recipe_p).any()


def test_the_figure_has_a_panel_per_benchmark_and_fraction(study):
    models, summary = both_arms(study(EFFECTS, ("hapt", "sfinge3d")))
    floors = summary.set_index(["benchmark", "fraction"]).floor
    axes = figures.factorial(models, floors.to_dict(), {("hapt", 0.1): 95.8, ("sfinge3d", 1.0): 2564.0})
    assert [ax.get_title() for ax in axes] == [
        f"{name}\n{100 * fraction:g} % of the labels{known}\nfloor {floors[name, fraction]:.1f}"
        for name, fraction, known in (
            ("hapt", 0.1, "\n96 training segments"),
            ("hapt", 1.0, ""),
            ("sfinge3d", 0.1, ""),
            ("sfinge3d", 1.0, "\n2,564 training segments"),
        )
    ]
    for ax in axes[::2]:  # the names are once in a row; the best is on top
        labels = [text.get_text() for text in ax.get_yticklabels()]
        assert labels == ["bilstm", "actionformer", "tridet", "temporalmaxer"]
    for ax in axes:
        plain, equal = (points.get_offsets()[:, 0] for points in ax.collections[1::2])
        assert abs(equal - plain - 5).max() < 2
        for bars, scores in zip(ax.collections[::2], (plain, equal), strict=True):
            assert all(
                bar[0, 0] < place < bar[1, 0] for bar, place in zip(bars.get_segments(), scores, strict=True)
            )
        stars = [text for text in ax.texts if text.get_text() == "*"]
        assert len(stars) == len(EFFECTS)
        right = max(bar[1, 0] for bars in ax.collections[::2] for bar in bars.get_segments())
        assert max(star.xy[0] for star in stars) == pytest.approx(right)
    plt.close("all")


def test_a_models_mean_over_benchmarks_is_the_mean_of_its_rows(study):
    models, _ = both_arms(study(EFFECTS, TUNED, (1.0,)))
    mean = models[models.benchmark == MEAN].set_index("model")
    each = models[models.benchmark != MEAN].groupby("model")[["plain", "equal", "difference"]].mean()
    assert len(mean) == len(EFFECTS)
    for name in each:
        np.testing.assert_allclose(mean[name].sort_index(), each[name].sort_index())
    assert (mean.low < mean.difference).all() and (mean.difference < mean.high).all()
    for arm in ("plain", "equal"):
        assert ((mean[f"{arm}_low"] < mean[arm]) & (mean[arm] < mean[f"{arm}_high"])).all()
    axes = figures.factorial(mean.reset_index(), {})
    assert [ax.get_title() for ax in axes] == ["mean over benchmarks\n100 % of the labels"]
    plt.close("all")


def test_a_gain_that_is_noise_has_no_star(study):
    models, _ = both_arms(study(EFFECTS))
    (ax, *_) = figures.factorial(models.assign(p_adjusted=0.5), {})
    assert not ax.texts
    plt.close("all")
