"""Text tables and the text of their cells: names stay names, repeats go, contradictions and broken files are refused."""

import numpy as np
import pandas as pd
import pytest

from jumpgpu.profiles.platemap import (
    add_conditions,
    annotate,
    find_platemap,
    read_experiments,
    read_platemap,
    read_treatments,
)
from jumpgpu.profiles.text_tables import as_text, as_wells, label_text, numbers, read_table, split_labels

TEXT = ["0012345", "NA", "None", "1e5", "007", "1.10", "nan", "Inf", "TRUE"]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_names_that_look_like_something_else_stay_as_they_are(tmp_path):
    rows = "".join(
        f"{w}\t{name}\t{i}\n" for i, (w, name) in enumerate(zip([f"A{k + 1}" for k in range(9)], TEXT, strict=True))
    )
    path = write(tmp_path / "map.txt", f"well_position\tbroad_sample\tdose\n{rows}")
    table = read_platemap(path)
    assert table["broad_sample"].tolist() == TEXT
    assert table["well_position"].tolist() == [f"A{k + 1:02d}" for k in range(9)]
    assert table["dose"].tolist() == list(range(9))
    assert table["dose"].dtype == np.int64


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2", ""], [1.0, 2.0, np.nan]),
        (["0.5", "1e-05", "-3"], [0.5, 1e-5, -3.0]),
        (["12", "012"], ["12", "012"]),
        (["1.5", "1.50"], ["1.5", "1.50"]),  # two spellings of one number: names
        (["1", "x"], ["1", "x"]),
        (["12345678901234567890"], ["12345678901234567890"]),  # more digits than a float has
        (["NaN", "inf"], ["NaN", "inf"]),
    ],
)
def test_a_column_becomes_numbers_only_where_nothing_is_lost(cells, expected):
    result = numbers(as_text(pd.Series(cells)))
    assert pd.Series(result.tolist()).equals(pd.Series(expected))


def test_the_text_of_integers_floats_categories_and_bytes_is_one():
    kinds = [
        pd.Series(["12", " 12 ", "7 "]),
        pd.Series([12, 12, 7]),
        pd.Series([12.0, 12.0, 7.0]),
        pd.Series(["12", "12", "7"], dtype="category"),
        pd.Series([12, 12, 7], dtype="Int64"),
        pd.Series(["12", "12", "7"], dtype="string"),
        pd.Series([b"12", b"12", b"7"]),
    ]
    for values in kinds:
        assert as_text(values).tolist() == ["12", "12", "7"]
    missing = [None, np.nan, pd.NA, pd.NaT, "", "  "]
    assert as_text(pd.Series(missing, dtype=object)).isna().all()
    assert as_text(pd.Series([0.5, 1e-5, 1e22])).tolist() == ["0.5", "1e-05", "10000000000000000000000"]


def test_wells_have_one_spelling():
    text = pd.Series(["A1", "a01", "A001", " A01", "P24", "aF48", "h9"])
    assert as_wells(text, "x").tolist() == ["A01"] * 4 + ["P24", "AF48", "H09"]
    for wrong in ("A0", "A49", "AG01", "1A", "A1B", "well", "A-1", "Ａ1"):
        with pytest.raises(ValueError, match=r"map.txt: .* is not a well"):
            as_wells(pd.Series(["A01", wrong]), "map.txt")
    with pytest.raises(ValueError, match=r"map.txt: 2 of 3 rows have no well, the first is row 2"):
        as_wells(pd.Series(["A01", None, " "]), "map.txt")


def test_labels_are_stripped_split_and_filtered():
    values = pd.Series([" A | B", "B|A", "A||A", "", " | ", None, "NA", 7])
    assert split_labels(values).tolist() == [("A", "B"), ("A", "B"), ("A",), (), (), (), ("NA",), ("7",)]
    assert label_text(values).tolist()[:3] == ["A|B", "A|B", "A"]
    assert label_text(values)[3:6].isna().all()


def test_repeats_are_dropped_and_said_and_contradictions_name_the_column(tmp_path):
    rows = "A-1\tX\t1\nB-1\tY\t2\nA-1\tX\t1\n\t\t3\n\t\t3\n"
    table = read_treatments(write(tmp_path / "t.tsv", f"broad_sample\tgene\tdose\n{rows}"))
    assert table["broad_sample"].tolist()[:2] == ["A-1", "B-1"]
    assert len(table) == 3
    assert table.attrs["findings"] == [
        f"{tmp_path / 't.tsv'}: 2 rows repeat another in every column and are dropped (broad_sample A-1, (empty))"
    ]
    path = write(tmp_path / "u.tsv", f"broad_sample\tgene\tdose\n{rows}A-1\tX\t9\n")
    with pytest.raises(ValueError, match=r"u.tsv: broad_sample A-1 appears twice, with dose 1 and 9"):
        read_treatments(path)
    path = write(tmp_path / "v.tsv", f"broad_sample\tgene\tdose\n{rows}\tZ\t3\n")
    with pytest.raises(ValueError, match=r"v.tsv: broad_sample \(empty\) appears twice, with gene nothing and Z"):
        read_treatments(path)
    wells = "well_position\tbroad_sample\nA1\tX\nA01\tX\n"
    assert read_platemap(write(tmp_path / "m.txt", wells))["well_position"].tolist() == ["A01"]
    with pytest.raises(ValueError, match=r"m.txt: well_position A01 appears twice, with broad_sample X and Y"):
        read_platemap(write(tmp_path / "m.txt", f"{wells}a01\tY\n"))


def test_blank_lines_short_lines_and_a_byte_order_mark_are_read(tmp_path):
    path = write(
        tmp_path / "m.txt", "\ufeffwell_position\tbroad_sample\tsolvent\t\r\nA01\tX\r\n\r\nA02\tY\tDMSO\t\r\n\t\t\r\n \r\n"
    )
    table = read_platemap(path)
    assert table["broad_sample"].tolist() == ["X", "Y"]
    assert list(table) == ["well_position", "broad_sample", "solvent"]
    assert pd.isna(table["solvent"].iloc[0])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.txt", b"", "empty"),
        ("m.txt", b"\n\n", "empty"),
        ("m.txt", b"Well\tCompound\nA01\tX\n", "no column 'well_position'; found Well, Compound"),
        ("m.txt", b"well_position,broad_sample\nA01,X\n", r"no column 'well_position'; .*; \.txt is split at tabs"),
        ("m.csv", b"well_position;broad_sample\nA01;X\n", r"no column 'well_position'; .*; \.csv is split at commas"),
        ("m.txt", "well_position\tbroad_sample\nA01\tµM\n".encode("latin-1"), "not UTF-8 text"),
        ("m.txt", "well_position\tbroad_sample\nA01\tX\n".encode("utf-16"), "not UTF-8 text"),
        ("m.txt", b"well_position\tbroad_sample\nA01\tX\tY\n", "line 2 has 3 cells; the header has 2"),
        ("m.txt", b"well_position\tbroad_sample\tbroad_sample\nA01\tX\tY\n", "column 'broad_sample' appears twice"),
        ("m.txt", b"well_position\t\tbroad_sample\nA01\tX\tY\n", "column 2 has no name"),
        ("m.txt", b"well_position\tbroad_sample\n\tX\n", "1 of 1 rows have no well"),
        ("m.txt", b"well_position\tbroad_sample\nQ99\tX\n", "'Q99' is not a well"),
    ],
)
def test_a_broken_table_is_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as told:
        read_platemap(tmp_path / name)
    assert str(tmp_path / name) in str(told.value)


def test_a_barcode_is_text_and_its_map_no_path(tmp_path):
    (tmp_path / "platemaps").mkdir()
    write(tmp_path / "platemaps" / "m.txt", "well_position\tbroad_sample\nA01\tX\n")
    barcodes = tmp_path / "barcode_platemap.csv"
    write(barcodes, "Assay_Plate_Barcode,Plate_Map_Name\n0012345,m\n\n,\n")
    assert find_platemap(tmp_path, "0012345").name == "m.txt"
    with pytest.raises(ValueError, match=r"12345: no plate map in .*; 0012345 is another barcode"):
        find_platemap(tmp_path, "12345")
    for name in ("../m", "/etc/m", "*", "."):
        write(barcodes, f"Assay_Plate_Barcode,Plate_Map_Name\nP1,{name}\n")
        with pytest.raises(ValueError, match=r"P1: Plate_Map_Name '.*' cannot be the name of a file"):
            find_platemap(tmp_path, "P1")
    write(barcodes, "Assay_Plate_Barcode,Plate_Map_Name\nP1,[m]\n")  # no pattern, which would be m.txt
    with pytest.raises(FileNotFoundError, match="P1: 0 files for plate map"):
        find_platemap(tmp_path, "P1")
    write(barcodes, "Barcode,Map\nP1,m\n")
    with pytest.raises(ValueError, match=r"barcode_platemap.csv: no column 'Assay_Plate_Barcode'; found Barcode, Map"):
        find_platemap(tmp_path, "P1")


def test_experiments_are_text_too(tmp_path):
    path = write(tmp_path / "e.tsv", "Assay_Plate_Barcode\tTime\n0012\t48\n0013\t24\n0012\t48\n")
    table = read_experiments(path)
    assert table["Metadata_Plate"].tolist() == ["0012", "0013"]
    assert "1 rows repeat another" in table.attrs["findings"][0]
    profiles = pd.DataFrame({"Metadata_Plate": pd.Categorical(["0012"]), "Metadata_Time": [7], "Cells_x": [1.0]})
    assert add_conditions(profiles, table)["Metadata_Time"].tolist() == [7]  # what a profile says of itself stays
    with pytest.raises(ValueError, match=r"e.tsv: no column 'Batch', by which --batch b chooses"):
        read_experiments(path, "b")
    with pytest.raises(ValueError, match=r"e.tsv: Assay_Plate_Barcode 0012 appears twice, with Time 48 and 96"):
        read_experiments(write(path, "Assay_Plate_Barcode\tTime\n0012\t48\n0012\t96\n"))
    with pytest.raises(ValueError, match=r"e.tsv: 1 rows have no Assay_Plate_Barcode"):
        read_experiments(write(path, "Assay_Plate_Barcode\tTime\n\t48\n"))


@pytest.mark.parametrize("column", ["Plate", "Well", "Object_Count", "Site_Count", "Metadata_Plate", "Metadata_Well"])
def test_a_profile_keeps_its_identity(column):
    profiles = pd.DataFrame(
        {"Metadata_Plate": "P1", "Metadata_Well": ["A01", "a2"], "Metadata_Object_Count": [5, 6], "Metadata_Site_Count": 9}
    ).assign(Cells_x=[1.0, 2.0])
    platemap = pd.DataFrame({"well_position": ["A1", "A02"], "broad_sample": ["7", "8"], column: ["P9", "P8"]})
    treatments = pd.DataFrame({"broad_sample": [7, 8], "gene": ["G", "H"], column: ["Q9", "Q8"]})
    result = annotate(profiles, platemap, treatments)
    assert result["Metadata_Plate"].tolist() == ["P1", "P1"]
    assert result["Metadata_Well"].tolist() == ["A01", "A02"]
    assert result["Metadata_Object_Count"].tolist() == [5, 6]
    assert result["Metadata_Site_Count"].tolist() == [9, 9]
    assert result["Metadata_gene"].tolist() == ["G", "H"]  # 7 the integer is "7" the text
    name = column.removeprefix("Metadata_")
    assert result[f"Metadata_{name}_platemap"].tolist() == ["P9", "P8"]
    assert result[f"Metadata_{name}_treatments"].tolist() == ["Q9", "Q8"]
    assert result.attrs["findings"] == [
        f"the plate map's column {name} is kept as Metadata_{name}_platemap",
        f"the treatment table's column {name} is kept as Metadata_{name}_treatments",
    ]
    assert len(annotate(result, platemap, treatments)) == 2  # and again


def test_the_official_target_2_table_is_read(tmp_path, shared):
    """JUMP-Target-2_compound_metadata.tsv has exact duplicates; here the shape of it, made of Target-1's."""
    source = (shared / "data" / "metadata" / "external" / "JUMP-Target-1_compound_metadata.tsv").read_text().splitlines()
    write(tmp_path / "t.tsv", "\n".join([*source, *source[1:4]]) + "\n")
    table = read_treatments(tmp_path / "t.tsv")
    assert len(table) == len(source) - 1
    assert "3 rows repeat another" in table.attrs["findings"][0]


def test_a_required_column_is_named(tmp_path):
    path = write(tmp_path / "t.csv", "a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"t.csv: no column 'c'; found a, b"):
        read_table(path, ["a", "c"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path / "none.csv")
