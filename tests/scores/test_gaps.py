"""What a score leaves out and what it counts: wells without features, labels, controls, common features, nulls that end."""

import itertools

import numpy as np
import pandas as pd
import pytest

from jumpgpu.profiles.files import read_profiles
from jumpgpu.profiles.platemap import feature_columns, mark_controls
from jumpgpu.scores.common import complete, concatenate, draw_distinct, draw_groups, generator
from jumpgpu.scores.mean_average_precision import matching, replicability
from jumpgpu.scores.percent_matching import percent_matching
from jumpgpu.scores.percent_replicating import percent_replicating
from jumpgpu.scores.transfer import pairs
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"G{i}-{k}" for i in range(6) for k in ("a", "b")]
EFFECTS = draw_effects(SAMPLES, [1.0] * len(SAMPLES), 100)


@pytest.fixture
def profiles():
    return concatenate([draw_plate(f"P{k}", EFFECTS, [*SAMPLES, *[None] * 8]) for k in range(4)])


SCORES = {
    "replicating": lambda p, **o: percent_replicating(p, draws=300, **o),
    "matching": lambda p, **o: percent_matching(p, draws=300, **o),
    "two sided": lambda p, **o: percent_matching(p, p, draws=300, **o),
    "map": lambda p, **o: replicability(p, null_size=100, **o),
    "map of labels": lambda p, **o: matching(p, "Metadata_gene", null_size=100, **o),
    "transfer": lambda p, **o: pairs(p, p, **o),
}


def settings_of(score):
    return score.settings if hasattr(score, "settings") else score.summary()


def same(a, b):
    if hasattr(a, "table"):
        pd.testing.assert_frame_equal(a.table, b.table)
    else:
        np.testing.assert_array_equal(a.source, b.source)
        np.testing.assert_array_equal(a.target, b.target)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_well_without_features_is_left_out_by_name(profiles, score, bad):
    """A well of 96 missing features of 100: the score is that of the plate without the well, not of the 4 features."""
    features = feature_columns(profiles)
    row = profiles.index[profiles["Metadata_broad_sample"] == SAMPLES[3]][1]
    gap = profiles.copy()
    gap.loc[row, features[:96]] = bad
    result, expected = SCORES[score](gap), SCORES[score](profiles.drop(index=row))
    same(result, expected)
    settings = settings_of(result)
    well = f"P1 {profiles.loc[row, 'Metadata_Well']} (lacks 96 of 100 features)"
    assert set(settings["wells_left_out"]) == {well}
    assert (settings["features"], settings["features_given"]) == (100, 100)
    assert f"1 well is left out because features are missing: {well}" in result.findings


@pytest.mark.parametrize("score", SCORES)
def test_the_features_used_are_counted(profiles, score):
    """Five wells that lack one feature each lose no well; those five features take part in nothing."""
    features = feature_columns(profiles)
    gap = profiles.copy()
    treated = profiles.index[profiles["Metadata_broad_sample"].notna()]
    for k in range(5):
        gap.loc[treated[7 * k], features[k]] = np.nan
    result = SCORES[score](gap)
    same(result, SCORES[score](profiles.drop(columns=features[:5])))
    settings = settings_of(result)
    assert (settings["features"], settings["features_given"], settings["wells_left_out"]) == (95, 100, [])
    assert "95 of 100 features are used; 5 are missing in some well" in result.findings


@pytest.mark.parametrize("score", SCORES)
def test_a_well_of_one_value_is_left_out_too(profiles, score):
    """It correlates with nothing: a null that holds it would have no percentile, and the score would be 0."""
    row = profiles.index[profiles["Metadata_broad_sample"] == SAMPLES[0]][2]
    flat = profiles.copy()
    flat.loc[row, feature_columns(profiles)] = 0.0
    result = SCORES[score](flat)
    same(result, SCORES[score](profiles.drop(index=row)))
    assert "(one value in every feature)" in settings_of(result)["wells_left_out"][0]


def test_one_bad_well_of_the_published_plates_changes_nothing_much(shared):
    """900 of 904 features missing in one well: 73.5 % fell to 27.8 %, and the record said 904 features."""
    folder = shared / "data" / "profiles"
    plates = [read_profiles(folder / f"BR0011701{k}_normalized_feature_select_negcon_batch.csv.gz") for k in range(4)]
    features = feature_columns(plates[0])
    before = percent_replicating(concatenate(plates), draws=2000)
    plates[0].loc[0, features[:900]] = np.nan
    after = percent_replicating(concatenate(plates), draws=2000)
    assert after.settings["features"] == 904
    assert after.settings["wells_left_out"] == ["BR00117010 A01 (lacks 900 of 904 features)"]
    assert after.percent == pytest.approx(before.percent, abs=1)  # one group of 306 has a well less


def test_a_feature_that_most_wells_lack_counts_against_no_well(profiles):
    features = feature_columns(profiles)
    gap = profiles.assign(**dict.fromkeys(features[:40], np.nan))
    gap.loc[5, features[:40]] = 1.0
    result = complete(gap)
    assert result.features == features[40:]
    assert result.left_out == ()
    with pytest.raises(ValueError, match="fewer than two of 100 features are finite in every well"):
        complete(gap.assign(**dict.fromkeys(features, np.nan)))
    with pytest.raises(ValueError, match="has one value in every feature"):
        complete(gap.assign(**dict.fromkeys(features, 0.0)))


def test_drawn_groups_are_as_probable_as_their_wells_make_them():
    """Every set of k wells of k groups has the same probability: counted beside the product of the sizes."""
    codes = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [1, 2, 3, 4, 20, 2]))
    sizes = np.bincount(codes)
    for k in (2, 3, 5, 6):
        sets = draw_groups(codes, k, 40_000, generator("test", k))
        drawn = np.sort(codes[sets], axis=1)
        assert (np.diff(drawn, axis=1) > 0).all()
        weights = {s: float(np.prod(sizes[list(s)])) for s in itertools.combinations(range(6), k)}
        result = dict(zip(*np.unique(drawn @ 7 ** np.arange(k), return_counts=True), strict=True))
        for s, weight in weights.items():
            p = weight / sum(weights.values())
            # five deviations of a count of 40,000
            assert result.get(int(np.array(s) @ 7 ** np.arange(k)), 0) == pytest.approx(
                40_000 * p, abs=5 * np.sqrt(4e4 * p) + 1
            )
        of_big = sets[codes[sets] == 4]
        counts = np.unique(of_big, return_counts=True)[1]
        assert len(counts) == 20  # its wells are drawn alike
        assert np.abs(counts - len(of_big) / 20).max() < 5 * np.sqrt(len(of_big) / 20)


def test_both_ways_of_drawing_give_one_null(profiles):
    codes = np.repeat(np.arange(8), [3, 1, 4, 1, 5, 2, 6, 5])
    values = np.random.default_rng(1).normal(size=len(codes))
    rejected, drawn = (values[d(codes, 4, 40_000, generator("x"))].mean(axis=1) for d in (draw_distinct, draw_groups))
    for q in (5, 50, 95):  # a percentile of 40,000 means of spread 0.5: 0.003 to 0.006 each
        assert np.percentile(rejected, q) == pytest.approx(np.percentile(drawn, q), abs=0.03)
    assert rejected.mean() == pytest.approx(drawn.mean(), abs=0.02)


@pytest.mark.parametrize(("groups", "wells"), [(18, 60), (12, 32), (40, 40), (300, 4)])
def test_a_null_of_about_as_many_wells_as_groups_ends(groups, wells):
    """18 cell lines did not end in 420 s, 12 groups of 32 wells in 173 s: a set of k of k groups is hardly ever drawn."""
    codes = np.repeat(np.arange(groups), wells)
    sets = draw_distinct(codes, min(groups, wells), 500, generator("test"))
    assert (np.sort(codes[sets], axis=1)[:, 1:] > np.sort(codes[sets], axis=1)[:, :-1]).all()


def test_cell_lines_are_scored(shared):
    plates = [read_profiles(p) for p in sorted((shared / "data" / "profiles_foreign").glob("BR*.parquet"))]
    profiles = concatenate(plates)
    counts = [len(feature_columns(t)) for t in plates]
    n = len(feature_columns(profiles))
    assert counts == [524, 660, 632]
    assert profiles.attrs["findings"] == [
        f"{n} features are on every plate, of 524 to 660 per plate; the others are not scored"
        + ("; so few say little of either" if 2 * n < 524 else "")
    ]
    score = percent_replicating(profiles, "Metadata_cell_line", draws=500)
    assert list(score.table["Metadata_cell_line"]) == ["CHLA-186", "CHLA-210", "U-2OS"]
    assert score.settings["null_k"] == 3


def test_few_features_in_common_are_a_finding(profiles):
    features = feature_columns(profiles)
    plates = [profiles[profiles["Metadata_Plate"] == p] for p in ("P0", "P1")]
    few = concatenate([plates[0].drop(columns=features[42:]), plates[1].drop(columns=features[:40])])
    assert feature_columns(few) == features[40:42]
    assert few.attrs["findings"] == [
        "2 features are on every plate, of 42 to 60 per plate; the others are not scored; so few say little of either"
    ]
    two = percent_matching(plates[0].drop(columns=features[42:]), plates[1].drop(columns=features[:40]), draws=50)
    assert two.settings["features"] == 2
    assert "2 features are in common, of 42 and 60; the others are not scored" in two.findings


@pytest.mark.parametrize("score", SCORES)
def test_columns_without_a_compartment_are_no_features(profiles, score):
    """Numbers of images and tables, the same in all wells or rising with them, outweigh what was measured."""
    n = len(profiles)
    counted = profiles.assign(
        ImageNumber=np.arange(n) * 1000, TableNumber=7, Count_Cells=np.arange(n)[::-1] * 1e6, Image_Width=5.0
    )
    same(SCORES[score](counted), SCORES[score](profiles))
    asked = SCORES[score](counted, also=["Image*"])
    assert settings_of(asked)["features"] == 102


def relabelled(profiles, labels):
    return profiles.assign(Metadata_gene=profiles["Metadata_broad_sample"].map(labels))


def test_labels_are_the_same_for_every_score(profiles):
    """Spaces, empty labels and the order of several are no matter; "" is no label (it made 124 pairs of 4)."""
    plain = {s: s.split("-")[0] for s in SAMPLES[:8]}
    spelled = {s: f" {g} " if s.endswith("a") else f"|{g}||" for s, g in plain.items()} | dict.fromkeys(SAMPLES[8:], " ")
    for name, nothing in (("matching", ""), ("two sided", None), ("map of labels", "|")):
        a, b = (SCORES[name](relabelled(profiles, labels)) for labels in (plain, spelled | {SAMPLES[-1]: nothing}))
        pd.testing.assert_frame_equal(a.table, b.table)
    result = percent_matching(relabelled(profiles, spelled), draws=100)
    assert len(result.table) == 4
    assert list(result.table["Metadata_gene"]) == ["G0", "G1", "G2", "G3"]


def test_treatments_of_several_labels_match_by_any(profiles):
    labels = dict(zip(SAMPLES[:4], ["X|Y", "Y", "X", "Z"], strict=True))
    table = percent_matching(relabelled(profiles, labels), draws=100).table
    assert list(zip(*(table[c] for c in table.columns[:3]), strict=True)) == [
        (SAMPLES[0], SAMPLES[1], "Y"),
        (SAMPLES[0], SAMPLES[2], "X"),
    ]
    three = relabelled(profiles, {SAMPLES[0]: "X", SAMPLES[1]: "X|Y", SAMPLES[2]: "Y"})
    with pytest.raises(ValueError, match=f"{SAMPLES[1]} shares a label with every other treatment"):
        matching(three, "Metadata_gene", null_size=50)


@pytest.mark.parametrize("kind", ["integer", "float", "category", "mixed"])
@pytest.mark.parametrize("score", SCORES)
def test_treatments_that_are_numbers_or_categories_are_text(profiles, score, kind):
    codes = profiles["Metadata_broad_sample"].map({s: k + 10 for k, s in enumerate(SAMPLES)})
    text = codes.map(lambda v: None if pd.isna(v) else str(int(v)))
    kinds = {
        "integer": codes.astype("Int64"),
        "float": codes,
        "category": text.astype("category"),
        "mixed": codes.where(codes.index % 2 == 0, text),
    }
    same(*(SCORES[score](profiles.assign(Metadata_broad_sample=v)) for v in (kinds[kind], text)))


def test_lincs_controls_are_controls_when_named(shared):
    """DMSO of LINCS: Metadata_pert_type is control, and no well is negcon."""
    table = read_profiles(shared / "data" / "profiles_foreign" / "SQ00015054.csv.gz")
    blind = percent_replicating(table, "Metadata_broad_sample", draws=200)
    assert "DMSO" in set(blind.table["Metadata_broad_sample"])
    assert blind.findings[0].startswith("no well is a negative control, so controls count as treatments: Metadata_pert_type")
    named = percent_replicating(mark_controls(table, ["Metadata_pert_type=control"]), "Metadata_broad_sample", draws=200)
    assert "DMSO" not in set(named.table["Metadata_broad_sample"])
    assert not any("control" in f for f in named.findings)
    assert len(named.table) == len(blind.table) - 1


@pytest.mark.parametrize(
    ("score", "change", "words"),
    [
        ("replicating", lambda p: p[p["Metadata_Plate"] == "P0"], "no value of Metadata_broad_sample has two wells"),
        ("map", lambda p: p[p["Metadata_Plate"] == "P0"], "no value of Metadata_broad_sample has two wells"),
        ("map", lambda p: p.assign(Metadata_control_type="poscon"), r"no negative controls .* holds poscon \(80\)"),
        (
            "map",
            lambda p: p[(p["Metadata_Plate"] != "P2") | p["Metadata_broad_sample"].notna()],
            "plate P2 .* has no negative controls",
        ),
        ("replicating", lambda p: p[p["Metadata_broad_sample"].isin([SAMPLES[0]])], "is the only value of"),
        (
            "matching",
            lambda p: p.assign(Metadata_gene=p["Metadata_broad_sample"]),
            "no two treatments share a Metadata_gene",
        ),
        ("matching", lambda p: p.assign(Metadata_gene=" "), "no treated well has a Metadata_gene"),
        ("matching", lambda p: p.assign(Metadata_gene="X"), "all treatments share one Metadata_gene"),
        ("map of labels", lambda p: p.assign(Metadata_gene=p["Metadata_broad_sample"]), "no two treatments share a label"),
        ("map of labels", lambda p: p.assign(Metadata_gene="X"), "shares a label with every other treatment"),
        ("transfer", lambda p: p.assign(Metadata_control_type="negcon"), "no treated well is left"),
    ],
)
def test_what_cannot_be_scored_is_told(profiles, score, change, words):
    with pytest.raises(ValueError, match=words):
        SCORES[score](change(profiles))


@pytest.mark.parametrize(("groups", "wells", "plates"), [(18, 60, 3), (12, 32, 2), (16, 16, 16)])
@pytest.mark.parametrize("null_wells", ["typical", "matched"])
def test_as_many_wells_as_groups_are_scored_with_the_controls_check(groups, wells, plates, null_wells):
    """The whole score, its check of negative controls included, which draws sets of as many wells."""
    names = [f"line {k}" for k in range(groups)]
    effects = draw_effects(names, [1.0] * groups, 30)
    layout = np.random.default_rng(0).permutation(np.repeat(names, wells)).reshape(plates, -1)
    profiles = concatenate([draw_plate(f"P{k}", effects, [*row, *[None] * 20]) for k, row in enumerate(layout)])
    score = percent_replicating(profiles, null_wells=null_wells, draws=1000)
    assert score.percent == 100
    assert score.settings["null_k"] == min(groups, wells)
    checks = {c.place: c for c in score.checks}
    assert set(checks) == {"position", "row", "column", "plate"}
    assert all(c.reason or 0 <= c.low <= c.percent <= c.high <= 100 for c in checks.values())
