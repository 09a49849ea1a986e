"""Profiles of anyone: each convention is recognised, said in one line, and gives the numbers of our own spelling."""

import pandas as pd
import pytest

from jumpgpu import score
from jumpgpu.profile import main as profile
from jumpgpu.profiles.conventions import choose_controls, choose_group, choose_label, join_columns
from jumpgpu.profiles.files import read_profiles
from jumpgpu.profiles.platemap import feature_columns, is_negcon
from tests.helpers.profiles_drawn import draw_effects, draw_plate

SAMPLES = [f"{g}-{k}" for g in "ABCD" for k in (1, 2)]
EFFECTS = draw_effects(SAMPLES, [1.5] * len(SAMPLES), 40)
OURS = ["Metadata_broad_sample", "Metadata_control_type", "Metadata_pert_type", "Metadata_gene"]


def ours(k):
    return draw_plate(f"P{k}", EFFECTS, [*SAMPLES, *[None] * 10])


def spelled(table, **columns):
    """The table's wells and features under other metadata."""
    rest = table.drop(columns=[c for c in table if c.startswith("Metadata_")])
    return pd.concat([pd.DataFrame({k: v.to_numpy() for k, v in columns.items()}), rest], axis=1)


def jump(t):
    """cpg0016: JCP2022 names, DMSO among them, and pert_type trt, negcon, poscon."""
    kind = t["Metadata_control_type"].fillna("trt")
    return spelled(
        t,
        Metadata_Source=pd.Series(["source_4"] * len(t)),
        Metadata_Plate=t["Metadata_Plate"],
        Metadata_Well=t["Metadata_Well"],
        Metadata_JCP2022=t["Metadata_broad_sample"].fillna("JCP2022_033924"),
        Metadata_pert_type=kind,
    )


def jump_bare(t):
    return jump(t).drop(columns="Metadata_pert_type")


def lincs(t):
    sample = t["Metadata_broad_sample"]
    return spelled(
        t,
        Metadata_broad_sample=sample.fillna("DMSO"),
        Metadata_pert_well=t["Metadata_Well"],
        Metadata_pert_type=t["Metadata_pert_type"],
        Metadata_moa=t["Metadata_gene"],
        Metadata_Assay_Plate_Barcode=t["Metadata_Plate"],
    )


def chammi(t):
    """The JUMPCP benchmark's profiles: CPJUMP1's columns."""
    return t


def cell_lines(t):
    """WayScience's layout with a compound in place of the line; controls by name."""
    return spelled(
        t,
        Metadata_Plate=t["Metadata_Plate"],
        Metadata_Well=t["Metadata_Well"].str.replace("A0", "a"),
        Metadata_compound=t["Metadata_broad_sample"].fillna("dmso"),
        Metadata_gene=t["Metadata_gene"],
    )


def plain(t):
    """A table without prefixes, as an nELISA or a laboratory's own export has it."""
    return spelled(
        t,
        Plate=t["Metadata_Plate"],
        Well=t["Metadata_Well"],
        compound=t["Metadata_broad_sample"].fillna("DMSO"),
        moa=t["Metadata_gene"],
        read=pd.Series(range(len(t))),
    )


def shouted(t):
    """Upper case and spaces, the number of cells without a prefix, kinds of wells in words."""
    return spelled(
        t,
        **{
            "PLATE": t["Metadata_Plate"],
            "Well ID": t["Metadata_Well"],
            "Treatment": t["Metadata_broad_sample"].fillna("none"),
        },
        Cell_Count=t["Metadata_Object_Count"],
        **{"Well Type": t["Metadata_control_type"].map({"negcon": "Negative Control"}).fillna("sample")},
    )


def lines(t):
    """Rows and columns in place of wells, rows as numbers."""
    return spelled(
        t,
        Metadata_PlateID=t["Metadata_Plate"],
        Metadata_Row=pd.Series([1] * len(t)),
        Metadata_Col=t["Metadata_Well"].str[1:].astype(int),
        Metadata_Compound=t["Metadata_broad_sample"].fillna("DMSO control"),
    )


def jump_guides(t):
    """cpg0016's CRISPR plates: two negative controls of many, by number, and empty wells."""
    names = t["Metadata_broad_sample"].where(t["Metadata_broad_sample"].notna(), "JCP2022_800002")
    names = names.where(~t["Metadata_Well"].isin(["A09", "A10"]), "JCP2022_800001")
    empty = t.head(2).assign(Metadata_Well=["B01", "B02"])
    t, names = pd.concat([t, empty], ignore_index=True), pd.concat([names, pd.Series(["JCP2022_999999"] * 2)])
    return spelled(
        t,
        Metadata_Plate=t["Metadata_Plate"],
        Metadata_Well=t["Metadata_Well"],
        Metadata_JCP2022=names.reset_index(drop=True),
    )


TABLES = {
    chammi: [],
    jump: ["treatments Metadata_JCP2022 (--group)", "negative controls Metadata_pert_type=negcon, 20 wells (--control)"],
    jump_bare: ["treatments Metadata_JCP2022", "negative controls Metadata_JCP2022=JCP2022_033924, 20 wells"],
    lincs: [
        "plate Metadata_Assay_Plate_Barcode (--plate-column); well Metadata_pert_well (--well-column)",
        "negative controls Metadata_pert_type=control, 20 wells",
    ],
    cell_lines: ["treatments Metadata_compound", "negative controls Metadata_compound=dmso, 20 wells"],
    plain: [
        "plate Plate (--plate-column); well Well (--well-column); compound, moa as Metadata_",
        "treatments Metadata_compound",
        "negative controls Metadata_compound=DMSO, 20 wells",
    ],
    shouted: [
        "plate PLATE (--plate-column); well Well ID (--well-column)",
        "read by convention: number of cells Cell_Count",
        "treatments Metadata_Treatment",
        "negative controls Metadata_Well Type=Negative Control, 20 wells",
    ],
    lines: [
        "plate Metadata_PlateID (--plate-column); well of Metadata_Row and Metadata_Col",
        "negative controls Metadata_Compound=DMSO control, 20 wells",
    ],
    jump_guides: [
        "negative controls Metadata_JCP2022=JCP2022_800001, JCP2022_800002, 20 wells",
        "2 wells without a treatment (JCP2022_999999 or empty) take no part",
    ],
}


@pytest.mark.parametrize("convention", TABLES)
def test_each_convention_scores_as_ours(tmp_path, capsys, convention):
    output = {}
    for name, tables in (("ours", [ours(0), ours(1)]), ("theirs", [convention(ours(k)) for k in (0, 1)])):
        files = [tmp_path / f"{name}{k}.csv" for k in (0, 1)]
        for file, table in zip(files, tables, strict=True):
            table.to_csv(file, index=False)
        arguments = [a for f in files for a in ("--plate", str(f))]
        assert (
            score.main(["replicating", *arguments, "--output", str(tmp_path / name), "--draws", "99", "--no-figures"]) == 0
        )
        output[name] = pd.read_parquet(tmp_path / name / "scores" / "replicating.parquet")
    said = capsys.readouterr().err
    for words in TABLES[convention]:
        assert words in said
    if not TABLES[convention]:
        assert "by convention" not in said
    assert output["theirs"].iloc[:, 2].tolist() == SAMPLES
    columns = ["n_wells", "value"]  # the rest is judged by a null, which another column's name seeds
    pd.testing.assert_frame_equal(output["theirs"][columns], output["ours"][columns])


def test_the_columns_can_be_named(tmp_path, capsys):
    table = plain(ours(0)).rename(columns={"Plate": "run", "Well": "place"})
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"t.csv: no column Metadata_Plate; .*\(--plate-column\)"):
        read_profiles(path)
    result = read_profiles(path, plate_column="run", well_column="place")
    assert result["Metadata_Plate"].tolist() == ["P0"] * len(result)
    assert feature_columns(result) == feature_columns(ours(0))
    with pytest.raises(ValueError, match=r"t.csv: no column rum; "):
        read_profiles(path, plate_column="rum")
    arguments = ["--plate", str(path), "--output", str(tmp_path), "--plate-column", "run", "--well-column", "place"]
    assert profile([*arguments, "--control", "compound=DMSO"]) == 0
    output = pd.read_parquet(tmp_path / "profiles" / "P0" / "P0_normalized_negcon.parquet")
    assert is_negcon(output).sum() == 10
    assert abs(output.loc[is_negcon(output), feature_columns(output)[3]].median()) < 1e-12


def test_published_foreign_plates(shared, tmp_path, capsys):
    """LINCS: 384 wells of 58 compounds and 24 of DMSO. Cell lines: no controls at all, which is said."""
    folder = shared / "data" / "profiles_foreign"
    run = ["--output", str(tmp_path), "--draws", "500", "--no-figures"]
    assert score.main(["replicating", "--plate", str(folder / "SQ00015054.csv.gz"), *run]) == 0
    table = pd.read_parquet(tmp_path / "scores" / "replicating.parquet")
    assert len(table) == 58
    assert "DMSO" not in set(table["Metadata_broad_sample"])
    one = ["--plate", str(folder / "SQ00015054.csv.gz"), "--output", str(tmp_path), "--no-figures", "--null-size", "500"]
    assert score.main(["hits", *one, "--label", "moa"]) == 0  # one plate: no control shares a row with another
    assert "controls at 24 positions of 1 plate" in capsys.readouterr().err
    assert len(pd.read_parquet(tmp_path / "scores" / "hits.parquet")) == 58
    assert score.main(["matching", "--plate", str(folder / "SQ00015054.csv.gz"), *run]) == 0
    assert "labels Metadata_moa (--label)" in capsys.readouterr().err
    pairs = pd.read_parquet(tmp_path / "scores" / "matching.parquet")
    known = read_profiles(folder / "SQ00015054.csv.gz").drop_duplicates("Metadata_broad_sample")
    moa = known.set_index("Metadata_broad_sample")["Metadata_moa"].dropna().map(lambda v: set(v.split("|")))
    expected = {(a, b) for a in moa.index for b in moa.index if a < b and moa[a] & moa[b]}
    assert set(zip(pairs.iloc[:, 2], pairs.iloc[:, 3], strict=True)) == expected
    lines = [a for k in (1, 2, 3) for a in ("--plate", str(folder / f"BR0014700{k}_bulk_feature_selected.parquet"))]
    assert score.main(["replicating", *lines, *run]) == 0
    said = capsys.readouterr().err
    assert "treatments Metadata_cell_line (--group)" in said
    assert "no well is a negative control" in said
    wells = pd.concat([pd.read_parquet(p)["Metadata_cell_line"] for p in lines[1::2]]).value_counts().sort_index()
    scored = pd.read_parquet(tmp_path / "scores" / "replicating.parquet")
    assert scored.set_index("Metadata_cell_line")["n_wells"].to_dict() == wells.to_dict()


def test_controls_of_several_treatments_are_no_negative_ones():
    """CPJUMP1's pert_type control holds positive controls too: only a kind whose wells are one treatment is taken."""
    table = ours(0)
    table["Metadata_pert_type"] = ["control"] * 4 + ["trt"] * (len(table) - 4)
    result, said = choose_controls(table.assign(Metadata_control_type="poscon"), ())
    assert said == []
    assert "Metadata_negative_control" not in result
    assert is_negcon(result).sum() == 0
    assert choose_controls(result, ["gene=A"])[1] == []


def test_groups_and_labels_by_convention():
    table = ours(0)
    assert choose_group(table, None) == ("Metadata_broad_sample", [])
    assert choose_group(table.assign(Metadata_broad_sample="x"), None)[0] == "Metadata_gene"  # one value names no treatments
    with pytest.raises(ValueError, match=r"no column names the treatments .* choose one by --group: Metadata_Plate"):
        choose_group(table.drop(columns=OURS), None)
    assert choose_label(table, None) == ("Metadata_gene", [])
    assert choose_label(table.assign(Metadata_gene="", Metadata_target="T"), None)[0] == "Metadata_target"
    joined, name = join_columns(table.assign(Metadata_dose=3.0), ["Metadata_broad_sample", "Metadata_dose"])
    assert name == "Metadata_broad_sample,dose"
    assert joined[name].tolist()[:2] == ["A-1 @ 3", "A-2 @ 3"]
    assert joined[name].isna().sum() == 10


def test_a_table_of_several_plates_is_profiled_as_a_table_for_each(tmp_path):
    tables = [shouted(ours(k)) for k in (0, 1)]
    pd.concat(tables).to_parquet(tmp_path / "both.parquet")  # with pandas' row numbers, which are no column
    for k, table in enumerate(tables):
        table.to_parquet(tmp_path / f"own{k}.parquet")
    assert profile([str(tmp_path / "both.parquet"), "--output", str(tmp_path / "together")]) == 0
    assert profile([str(tmp_path / f"own{k}.parquet") for k in (0, 1)] + ["--output", str(tmp_path / "apart")]) == 0
    for k in (0, 1):
        name = f"profiles/P{k}/P{k}_normalized_feature_select_negcon_plate.parquet"
        pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / f / name) for f in ("together", "apart")))
    read = read_profiles(tmp_path / "both.parquet")
    assert not [c for c in read if "index" in c]
    assert len(read) == 2 * len(tables[0])
