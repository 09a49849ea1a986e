"""Scores order drawn effects as they were drawn, fall to 5 % when labels are shuffled, and do not know any order of rows."""

import numpy as np
import pandas as pd
import pytest

from jumpgpu.scores.common import concatenate
from jumpgpu.scores.mean_average_precision import matching, replicability
from jumpgpu.scores.percent_matching import percent_matching
from jumpgpu.scores.percent_replicating import percent_replicating
from tests.helpers.profiles_drawn import draw_effects, draw_plate

GENES = [f"G{i:02d}" for i in range(40)]
STRENGTHS = {"none": 0.0, "weak": 0.25, "medium": 0.5, "strong": 1.0}


def plates(modality, effects, time, n=4, noise=1.0):
    """n replicate plates of one modality and time point, 16 negative controls each."""
    samples = [*effects.index, *[None] * 16]
    tables = [draw_plate(f"{modality}{time}{k}", effects, samples, noise, seed=k) for k in range(n)]
    return concatenate(tables)


def condition(modality, strength, time, sign=1.0):
    samples = [f"{g}-{modality}" for g in GENES]
    return plates(modality, draw_effects(samples, [sign * strength] * len(samples)), time)


@pytest.fixture(scope="module")
def drawn():
    """Compounds at two time points (strong, then half of it), guides that agree and reagents that oppose, weaker."""
    return {
        ("compound", 24): condition("compound", 0.6, 24),
        ("compound", 48): condition("compound", 0.3, 48),
        ("crispr", 96): condition("crispr", 0.4, 96),
        ("crispr", 144): condition("crispr", 0.2, 144),
        ("orf", 48): condition("orf", 0.4, 48, sign=-1.0),
    }


def test_percent_replicating_orders_strengths():
    percents = [percent_replicating(condition("c", s, 24), draws=2000).percent for s in STRENGTHS.values()]
    assert percents[0] < 20  # 5 % of 40 treatments are expected: 8 or more of 40 by chance has p < 0.001
    assert percents == sorted(percents)
    assert percents[-1] == 100


def test_time_points_and_modalities_are_ordered_as_drawn(drawn):
    value = {k: float(percent_replicating(p, draws=2000).table["value"].median()) for k, p in drawn.items()}
    assert value["compound", 24] > value["crispr", 96] > value["compound", 48] > value["crispr", 144]
    precision = {k: float(replicability(p, null_size=500).table["value"].mean()) for k, p in drawn.items()}
    assert precision["compound", 24] > precision["crispr", 96] > precision["compound", 48] > precision["crispr", 144]


def test_agreeing_modalities_match_above_and_opposing_ones_below(drawn):
    compound = drawn["compound", 24]
    agree = percent_matching(compound, drawn["crispr", 96], draws=2000)
    later = percent_matching(compound, drawn["crispr", 144], draws=2000)
    oppose = percent_matching(compound, drawn["orf", 48], draws=2000)
    assert agree.table["value"].median() > later.table["value"].median() > 0
    assert agree.percent > later.percent > 20 > agree.share("below")
    assert oppose.share("below") > 90 > 10 > oppose.percent
    assert oppose.share("beyond") > 90


def test_map_matching_retrieves_genes_across_modalities(drawn):
    both = concatenate([t.assign(Metadata_kind=k[0]) for k, t in drawn.items() if k in (("compound", 24), ("orf", 48))])
    result = matching(both, "Metadata_gene", across="Metadata_kind", null_size=2000)
    assert result.fraction_retrieved("map") > 0.8  # |cosine| sees opposition as well
    assert set(result.table["n_treatments"]) == {2}


def shuffled(profiles, column, seed):
    """Labels of treated wells dealt out anew."""
    treated = profiles["Metadata_broad_sample"].notna().to_numpy()
    labels = profiles[column].to_numpy(object).copy()
    labels[treated] = np.random.default_rng(seed).permutation(labels[treated])
    return profiles.assign(**{column: labels})


def test_shuffled_samples_replicate_at_5_percent(drawn):
    percents = []
    for seed in range(50):
        profiles = shuffled(drawn["compound", 24], "Metadata_broad_sample", seed)
        percents.append(percent_replicating(profiles, draws=1000, seed=seed).percent)
    # 40 treatments a seed, 50 seeds: 5 % +- 0.5 for independent treatments; three of them
    assert np.mean(percents) == pytest.approx(5, abs=1.5)


def test_shuffled_genes_match_at_5_percent(drawn):
    compound, crispr = drawn["compound", 24], drawn["crispr", 96]
    samples = np.sort(crispr["Metadata_broad_sample"].dropna().unique())
    percents = []
    for seed in range(50):
        genes = dict(zip(samples, np.random.default_rng(seed).permutation(GENES), strict=True))
        others = crispr.assign(Metadata_gene=crispr["Metadata_broad_sample"].map(genes))
        percents.append(percent_matching(compound, others, draws=1000, seed=seed).percent)
    assert np.mean(percents) == pytest.approx(5, abs=1.5)


def test_scores_do_not_know_the_order_of_rows_or_of_features(drawn):
    compound, crispr = drawn["compound", 24], drawn["crispr", 96]
    mixed = compound.sample(frac=1, random_state=1)
    for score in (
        lambda p: percent_replicating(p, draws=500),
        lambda p: percent_replicating(p, draws=500, null_wells="matched"),
        lambda p: percent_matching(p, crispr, draws=500),
        lambda p: replicability(p, null_size=200),
    ):
        a, b = score(compound), score(mixed)
        pd.testing.assert_frame_equal(a.table, b.table)
        assert a.summary() == b.summary()


def test_conditions_have_nulls_of_their_own_and_repeat_them(drawn):
    a, b, again = (percent_replicating(drawn["compound", 24], condition=c, draws=200).null for c in ("A549", "U2OS", "A549"))
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, again)
