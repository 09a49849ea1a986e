"""The plate's page: whole, safe, self-contained, and alive in a browser."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycytominer.operations import RobustMAD

from jumpgpu.outputs import page_effects as effects
from jumpgpu.outputs.page_index import write_index
from jumpgpu.outputs.plate_page import page_of, report
from jumpgpu.report import main
from jumpgpu.store import render as pictures
from jumpgpu.store.layout import Layout, Quarantined, SiteTable
from jumpgpu.store.reader import open_plate
from jumpgpu.store.writer import PlateWriter

COLUMNS = ["Cells_AreaShape_Area", "Cells_Intensity_MeanIntensity_DNA", "Nuclei_AreaShape_Area"]
CHANNELS = ("DNA", "ER")
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """Four wells, one left out, one flagged, with overviews and labels, a plate map and a nasty treatment name."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(2)
    layout = Layout("DEMO", COLUMNS, CHANNELS, 0.6)
    wells = {"A01": [1, 2], "A02": [1], "B01": [1], "B02": [1]}
    with PlateWriter(folder, layout, {"batch": 2, "nested": {"name": EVIL}}, wells, False) as writer:
        writer.flag(Quarantined("DEMO", "A02", 1, "DNA", "x.tiff", "saturated", used=True))
        writer.leave_out([Quarantined("DEMO", "B02", 1, "DNA", "y.tiff", "truncated")])
        for i, well in enumerate(("A01", "A02", "B01")):
            for site in wells[well]:
                writer.append(site_table(rng, well, site, 10 * i + 5))
    metadata = folder / "metadata"
    (metadata / "platemaps").mkdir(parents=True)
    (metadata / "external").mkdir()
    (metadata / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nDEMO,map\n")
    rows = [f"A01\tS1\t{EVIL}\ttrt", "A02\tS2\tDMSO\tnegcon", "B01\tS3\tx\ttrt", "B02\tS4\ty\ttrt"]
    (metadata / "platemaps" / "map.txt").write_text(
        "\n".join(["well_position\tbroad_sample\tpert_iname\tcontrol_type", *rows])
    )
    return folder


def site_table(rng, well, site, level):
    labels = np.zeros((80, 96), np.int32)
    labels[10:30, 10:30] = 1
    labels[40:70, 50:80] = 2
    values = np.full((2, len(COLUMNS)), level, np.float32)
    values[1, 1] = np.nan
    overview = rng.integers(0, 4000, (2, 10, 12)).astype(np.uint16)
    masks, checks = {"Cells": labels, "Nuclei": labels}, {"DNA": (level / 1000, level / 100), "ER": (0.0, float("nan"))}
    return SiteTable(well, site, np.array([1, 2], np.int32), values, (), masks, overview, checks=checks)


def decoded(url):
    """The picture of a data URL, as its numbers."""
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return np.asarray(picture.convert("L") if picture.mode == "RGB" else picture)


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_the_plates_numbers(plate):
    page = page_of(open_plate(plate / "DEMO"), metadata=plate / "metadata")
    data = embedded(page)
    assert [w["well"] for w in data["wells"]] == ["A01", "A02", "B01", "B02"]
    assert (data["rows"], data["columns"]) == (2, 3)
    assert data["wells"][0]["treatment"] == EVIL
    assert data["wells"][1]["control"] == "negcon"
    assert data["wells"][1]["flags"] == 1
    assert data["wells"][3]["profile"] == -1
    assert data["features"]["names"] == COLUMNS
    steps = np.frombuffer(base64.b64decode(data["features"]["steps"]), "<u2").reshape(len(COLUMNS), 3)
    minimum, maximum = (np.array(data["features"][k])[:, None] for k in ("least", "most"))
    np.testing.assert_allclose(minimum + (maximum - minimum) * steps / 65534, np.tile([5, 15, 25], (3, 1)), atol=20 / 65534)
    assert {w: [p["site"] for p in shown] for w, shown in data["pictures"]["wells"].items()} == {
        "A01": [1, 2],
        "A02": [1],
        "B01": [1],
    }
    grey = decoded(data["pictures"]["wells"]["B01"][0]["grey"])
    assert grey.shape == (2 * 10, 12)  # a channel below the other
    lines = decoded(data["pictures"]["wells"]["B01"][0]["outlines"])
    assert lines.shape == (450, 540)
    assert set(np.unique(lines)) == {0, 2}  # cells hide nuclei of the same outline
    images = dict(zip(data["images"]["names"], data["images"]["values"], strict=True))
    assert images == {
        "sharpness DNA": [0.05, 0.15, 0.25, None],
        "sharpness ER": [None] * 4,
        "saturated DNA": [0.5, 1.5, 2.5, None],  # percent
        "saturated ER": [0.0, 0.0, 0.0, None],
    }


def test_the_page_offers_image_quality_where_it_is_stored(tmp_path):
    layout = Layout("QUAL", COLUMNS, CHANNELS, 0.6, ["Image_ImageQuality_FocusScore_DNA"])
    values = np.zeros((1, len(COLUMNS)), np.float32)
    with PlateWriter(tmp_path, layout, {"batch": 2}, {"A01": [1, 2], "B02": [1]}, False) as writer:
        for well, site, focus in (("A01", 1, 0.25), ("A01", 2, 0.75), ("B02", 1, 2.0)):
            writer.append(SiteTable(well, site, np.array([1], np.int32), values, image=np.array([focus])))
    page = page_of(open_plate(tmp_path / "QUAL"))
    assert embedded(page)["images"] == {"names": ["Image_ImageQuality_FocusScore_DNA"], "values": [[0.5, 2.0]]}


def test_the_page_is_self_contained_and_safe(plate):
    page = page_of(open_plate(plate / "DEMO"), metadata=plate / "metadata")
    assert EVIL not in page
    assert html.escape(EVIL) in page
    assert "http" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))


def test_a_missing_metadata_folder_is_bad_use(plate, capsys):
    assert main([str(plate / "DEMO"), "--metadata", str(plate / "nowhere")]) == 2
    assert "no such metadata folder" in capsys.readouterr().err


def test_the_page_shows_scores_that_have_a_null(plate, tmp_path):
    histogram = {"edges": [0.0, 0.5, 1.0], "values": [0.25, 0.75], "null": [0.9, 0.1]}
    record = {"score": "replicating", "condition": "48 h", "percent": 75.0, "null_95th": 0.6, "histogram": histogram}
    record |= {f"controls_position_{k}": v for k, v in {"percent": 53.1, "low": 40.2, "high": 65.7, "n": 64}.items()}
    record |= {"controls_row_percent": None, "controls_row_low": None, "controls_row_high": None, "controls_row_n": 0}
    record["findings"] = ["part of this score is the position"]
    (tmp_path / "replicating.json").write_text(json.dumps([record, {"score": "map", "condition": ""}]))
    data = embedded(page_of(open_plate(plate / "DEMO"), scores=[tmp_path / "replicating.json"]))
    notes = [
        "Negative controls that share only a position: 53.1 % pass [40.2, 65.7] over 64; chance 5 %",
        *record["findings"],
    ]
    assert data["scores"] == [
        {"name": "replicating", "condition": "48 h", "percent": 75.0, "null_95th": 0.6, "notes": notes, **histogram}
    ]


def test_the_command_writes_beside_the_plate(plate, capsys):
    assert main([str(plate / "DEMO"), "--pictures", "all"]) == 0
    assert capsys.readouterr().out.startswith("DEMO  ")
    data = embedded((plate / "DEMO.html").read_text())
    assert [p["site"] for p in data["pictures"]["wells"]["A01"]] == [1, 2]


def test_a_barcode_is_found_in_the_output_folder(plate, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    shutil.copytree(plate / "DEMO.zarr", output / "DEMO.zarr")
    monkeypatch.chdir(tmp_path)
    assert main(["DEMO", "--output", "out", "--pictures", "none"]) == 0
    assert (output / "DEMO.html").is_file()
    assert main(["OTHER", "--output", "out"]) == 2
    assert "no plate at OTHER" in capsys.readouterr().err


def test_a_table_for_multiqc_counts_what_is_stored(plate, tmp_path, capsys):
    target = tmp_path / "jumpgpu_mqc.json"
    assert main([str(plate / "DEMO"), "--multiqc", str(target)]) == 0
    table = json.loads(target.read_text())
    row = {"wells": 4, "sites": 4, "cells": 8, "cells_per_site": 2.0, "left_out": 1, "odd": 1}
    assert table["data"] == {"DEMO": row}
    assert table["headers"].keys() == row.keys()
    assert not list(tmp_path.glob("*.html"))


def test_boundaries_are_inside_their_objects():
    labels = np.zeros((9, 11), np.int32)
    labels[2:6, 2:5], labels[2:6, 5:9] = 1, 2
    edge = pictures.boundary(labels)
    assert not edge[labels == 0].any()
    assert edge[3, [2, 4, 5, 8]].all()
    assert not edge[3:5, 3].any()
    assert not edge[3:5, 6:8].any()


DRIVER = """<script>
const press = (on, key) => on.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const at = w => document.querySelector(`#plate button[aria-label^="${w}:"]`);
const seen = {};
at("A01").focus();
press(at("A01"), "ArrowDown");
seen.focus = document.activeElement.getAttribute("aria-label");
press(document.activeElement, "ArrowUp");
press(document.activeElement, "ArrowRight");
document.activeElement.click();
seen.well = byId("well").querySelector("h3").textContent;
byId("minis").querySelectorAll("button")[2].click();
seen.feature = byId("feature").value;
seen.label = at("B01").getAttribute("aria-label");
seen.pressed = byId("minis").querySelectorAll("[aria-pressed=true]").length;
byId("compartment").value = "Nuclei";
byId("compartment").dispatchEvent(new Event("change"));
seen.nuclei = byId("found").textContent;
byId("compartment").value = "";
byId("channel").value = "DNA";
byId("channel").dispatchEvent(new Event("change"));
seen.dna = [...byId("feature").options].map(o => o.value);
byId("channel").value = "";
byId("search").value = "area nuc";
byId("search").dispatchEvent(new Event("input"));
seen.search = [...byId("feature").options].map(o => o.value);
byId("feature").value = "Nuclei_AreaShape_Area";
byId("feature").dispatchEvent(new Event("change"));
seen.mean = at("B01").getAttribute("aria-label");
byId("mode").value = "z";
byId("mode").dispatchEvent(new Event("change"));
seen.z = at("B01").getAttribute("aria-label");
seen.ends = [byId("low").textContent, byId("high").textContent];
document.querySelector("#treatments button").click();
seen.treatment = document.querySelector("#treatments button").textContent;
seen.marked = document.querySelectorAll(".plate .group").length;
document.querySelectorAll("#plane [data-well]")[0]?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
at("A01").click();
seen.sites = [...document.querySelectorAll("#sites button")].map(b => b.textContent);
document.querySelector("#channels input").click();
seen.channels = look.shown;
document.querySelector("#enlarge").click();
seen.large = [byId("large").open, byId("large-title").textContent];
byId("large").close();
byId("dark").click();
document.querySelector("#against [data-feature]").click();
seen.against = [byId("feature").value, byId("mode").value];
seen.small = byId("narrow").hidden;
seen.dark = document.documentElement.classList.contains("dark");
document.body.style.width = "390px";
seen.wide = [...document.querySelectorAll("body *")]
  .filter(e => !e.closest(".scroll") && e.getBoundingClientRect().right > 391)
  .map(e => e.outerHTML.slice(0, 80));
const out = document.createElement("pre");
out.id = "seen";
out.textContent = JSON.stringify(seen);
document.body.append(out);
</script>"""


@pytest.fixture(scope="module")
def dom(plate, tmp_path_factory):
    """The page's elements after a browser has run it, and what `DRIVER` saw of it, by keyboard and at 390 pixels."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine; apt-get install chromium")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "page.html"
    page.write_text(page_of(open_plate(plate / "DEMO"), metadata=plate / "metadata"))
    driven = folder / "driven.html"
    driven.write_text(page.read_text().replace("</body>", DRIVER + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", "--disable-quic", f"--user-data-dir={folder / 'profile'}"]
    result = []
    for file in (page, driven):
        done = subprocess.run([chromium, *options, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        result.append(done.stdout)
    return result[0], json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', result[1])[1]))


def test_the_page_lives_in_a_browser(dom):
    page = dom[0]
    labels = [html.unescape(x) for x in re.findall(r'role="gridcell"[^>]*aria-label="([^"]*)"', page)]
    assert len(labels) == 4
    assert labels[1] == "A02: 2, DMSO, flagged"
    assert "A01 site 1, channels as colours" in page
    assert len(re.findall(r'<svg viewBox="0 0 \d', page)) == 4  # one distribution, three edge views; three wells make no map
    assert re.findall(r'aria-label="([^"]*) over the plate', page) == [
        "sharpness DNA",
        "sharpness ER",
        "saturated DNA",
        "saturated ER",
    ]


def test_the_page_works_by_keyboard_and_on_a_phone(dom):
    assert dom[1] == {
        "focus": "B01: 2, x",
        "well": "A02: DMSO",
        "feature": "saturated DNA",
        "label": "B01: 2.5, x",
        "pressed": 1,
        "nuclei": "Feature: 1 of 9",
        "dna": ["saturated DNA", "Cells_Intensity_MeanIntensity_DNA"],  # the chosen one stays
        "search": ["saturated DNA", "Nuclei_AreaShape_Area"],
        "mean": "B01: 25, x",
        "z": "B01: 0.6745, x",  # of 5, 15, 25
        "ends": ["-3", "3"],
        "treatment": EVIL,
        "marked": 1,
        "sites": ["site 1", "site 2"],
        "channels": [False, True],
        "large": [True, "A01 site 1: " + EVIL],
        "against": ["Cells_AreaShape_Area", "z"],
        "small": True,
        "dark": True,
        "wide": [],
    }


def profiles_of_wells(rng, wells, features=40):
    names = [f"Cells_Texture_Variance_DNA_{i}_00_256" for i in range(features)]
    return pd.DataFrame(rng.normal(3, 2, (len(wells), features)), index=wells, columns=names), names


def test_z_is_pycytominers_over_the_negative_controls():
    """MAD robustize, fitted to the controls alone; features without a spread there have none."""
    wells = [f"A{i:02d}" for i in range(1, 11)]
    table, names = profiles_of_wells(np.random.default_rng(3), wells)
    table[names[5]] = [1.0] * 5 + [1, 2, 3, 4, 5]  # no spread among the controls
    table.loc["A09", names[7]] = np.nan
    known = {
        w: {"treatment": "DMSO" if i < 5 else "t", "control": "negcon" if i < 5 else "trt"} for i, w in enumerate(wells)
    }
    result = effects.effects_of(table, names, known)
    kept = [n for n in names if n != names[5]]
    assert result.names == kept
    assert result.reference == "5 negative controls"
    twin = RobustMAD(epsilon=0).fit(table.loc[wells[:5], kept]).transform(table[kept])
    np.testing.assert_allclose(result.z, twin.to_numpy(), rtol=1e-12)
    few = effects.effects_of(table, names, {"A01": known["A01"]})
    assert few.reference == "all 10 wells (1 negative control known, three are needed)"
    np.testing.assert_allclose(few.z, RobustMAD(epsilon=0).fit(table[few.names]).transform(table[few.names]), rtol=1e-12)


def test_treatments_are_listed_by_effect_with_the_correlation_of_their_wells():
    wells = [f"A{i:02d}" for i in range(1, 13)]
    rng = np.random.default_rng(4)
    table, names = profiles_of_wells(rng, wells)
    shift = rng.normal(0, 30, len(names))
    table.loc[wells[6:9]] += shift  # one strong treatment, three wells
    groups = ["DMSO"] * 6 + ["strong"] * 3 + ["weak"] * 2 + ["alone"]
    known = {w: {"treatment": g, "control": "negcon" if g == "DMSO" else "trt"} for w, g in zip(wells, groups, strict=True)}
    result = effects.effects_of(table, names, known)
    listed = effects.treatment_table(result, wells, [100] * 6 + [20] * 3 + [100] * 3, known)
    rows = {r["treatment"]: r for r in listed["rows"]}
    assert listed["rows"][0]["treatment"] == "strong"
    assert rows.keys() == {"strong", "weak", "alone"}
    assert rows["strong"]["wells"] == wells[6:9]
    assert rows["strong"]["cells"] == 20
    z = np.clip(result.z[6:9], -20, 20)
    assert rows["strong"]["correlation"] == pytest.approx(np.median(np.corrcoef(z)[np.triu_indices(3, 1)]), rel=1e-3)
    middle = np.clip(np.median(result.z[6:9], axis=0), -20, 20)
    assert rows["strong"]["effect"] == pytest.approx(np.sqrt((middle**2).mean()), rel=1e-3)
    assert rows["strong"]["changed"] == pytest.approx(100 * (np.abs(middle) > 3).mean(), rel=1e-3)
    assert rows["alone"]["correlation"] is None
    controls = np.sqrt((np.clip(result.z[:6], -20, 20) ** 2).mean(axis=1))
    assert listed["threshold"] == pytest.approx(np.percentile(controls, 95), rel=1e-3)


def test_the_page_begins_with_what_happened(plate):
    rows = [{"treatment": t, "effect": e} for t, e in (("a", 5.0), ("b", 4.0), ("c", 0.5))]
    score = {"name": "replicating", "condition": "48 h", "percent": 74.7}
    assert effects.in_short({"rows": rows, "threshold": 1.0}, 16, [score], 1, 24) == (
        "3 treatments, 16 wells of negative controls. 2 differ from the controls by more than 95 % of single "
        "control wells do: "
        "a, b, the strongest first. Percent Replicating, 48 h: 75 %. 1 of 24 wells has flagged or left-out images."
    )
    assert effects.in_short({"rows": rows[:1], "threshold": 9.0}, 3, [], 0, 24) == (
        "1 treatment, 3 wells of negative controls. None differs from the controls by more than 95 % of single "
        "control wells do."
    )
    many = [{"treatment": str(i), "effect": 9.0} for i in range(8)]
    assert "0, 1, 2, 3, 4 and 3 more, the strongest first" in effects.in_short({"rows": many, "threshold": 1.0}, 8, [], 0, 9)
    assert effects.in_short({"rows": [], "threshold": None}, 0, [], 0, 4) == ""
    page = page_of(open_plate(plate / "DEMO"), metadata=plate / "metadata")
    happened = re.search(r'<p class="happened">(.*?)</p>', page)[1]
    assert happened == "2 treatments, 1 well of negative controls. 2 of 4 wells have flagged or left-out images."


def test_a_wells_top_features_are_one_of_each_kind_by_size():
    wells = [f"A{i:02d}" for i in range(1, 8)]
    table, names = profiles_of_wells(np.random.default_rng(5), wells, 6)
    table["Nuclei_AreaShape_Area"] = np.arange(7.0)
    table.loc["A07", names[2]] = 1e4
    table.loc["A07", names[3]] = 1e3  # of the same compartment, family and channel
    features = list(table)
    result = effects.effects_of(table, features, {})
    top = effects.top_features(result, features, ("DNA", "ER"))[6]
    assert [features[i] for i, _ in top] == [names[2], "Nuclei_AreaShape_Area"]
    assert top[1][1] == pytest.approx(3 / (1.4826 * 2), rel=1e-3)


def test_wells_in_a_plane_say_how_they_were_laid_out():
    wells = [f"A{i:02d}" for i in range(1, 9)]
    table, names = profiles_of_wells(np.random.default_rng(6), wells)
    result = effects.plane_of_wells(effects.effects_of(table, names, {}))
    assert len(result["points"]) == 8
    assert result["note"].startswith("Principal components of the wells' z over 40 features (")  # and why not UMAP
    assert [a[:3] for a in result["axes"]] == ["PC1", "PC2"]
    few = effects.plane_of_wells(effects.effects_of(table[:3], names, {}))
    assert few == {"points": [], "axes": [], "note": "3 wells with cells are too few for a map of wells."}


def test_a_page_is_never_replaced_by_less(plate, tmp_path, capsys):
    histogram = {"edges": [0.0, 0.5, 1.0], "values": [0.25, 0.75], "null": [0.9, 0.1]}
    score = {"score": "replicating", "condition": "", "percent": 75.0, "null_95th": 0.6, "histogram": histogram}
    (tmp_path / "replicating.json").write_text(json.dumps([score]))
    output, metadata = tmp_path / "pages", plate / "metadata"
    full = {"metadata": metadata, "scores": [tmp_path / "replicating.json"]}
    page = report(plate / "DEMO", output, **full)
    before = page.read_text()
    for less, lost in (({}, "treatments on 4 wells, the score replicating"), (full | {"pictures": "none"}, "4 pictures")):
        with pytest.raises(ValueError, match=f"DEMO.html has {lost}, which this page would lack.*--overwrite"):
            report(plate / "DEMO", output, **less)
        assert page.read_text() == before
    assert report(plate / "DEMO", output, **full) == page
    assert main([str(plate / "DEMO"), "--output", str(output)]) == 2
    assert "give the same options again, or --overwrite" in capsys.readouterr().err
    assert main([str(plate / "DEMO"), "--output", str(output), "--overwrite"]) == 0
    assert "treatments on" not in page.read_text()


def test_a_folder_of_pages_gets_an_index_that_loses_none(plate, tmp_path):
    output = tmp_path / "pages"
    report(plate / "DEMO", output)
    assert not (output / "index.html").exists()
    other = (output / "DEMO.html").read_text()
    summary = re.search(r'id="summary">(.*?)</script>', other)[1]
    (output / "P & Q.html").write_text(other.replace(summary, summary.replace('"DEMO"', '"P \\u0026 Q"')))
    (output / "note.html").write_text("<p>mine</p>")
    report(plate / "DEMO", output)
    index = (output / "index.html").read_text()
    assert re.findall(r'<a href="([^"]*)"', index) == ["DEMO.html", "P%20%26%20Q.html"]
    assert "<h2>P &amp; Q</h2>" in index
    assert "2 plates" in index
    (output / "index.html").write_text("<p>my own</p>")
    assert write_index(output) is None
    assert (output / "index.html").read_text() == "<p>my own</p>"


def test_the_worst_images_are_listed_with_thumbnails(tmp_path):
    layout = Layout("BLUR", COLUMNS, CHANNELS, 0.6)
    rng = np.random.default_rng(7)
    wells = {f"A{i:02d}": [1] for i in range(1, 11)}
    with PlateWriter(tmp_path, layout, {"batch": 2}, wells, False) as writer:
        for well in wells:
            sharp = (0.004, 0.005) if well == "A04" else (0.02 + rng.uniform(0, 0.002), 0.03)
            table = site_table(rng, well, 1, 5)
            checks = {c: (0.0, s) for c, s in zip(CHANNELS, sharp, strict=True)}
            writer.append(SiteTable(**{**vars(table), "checks": checks}))
    plate = open_plate(tmp_path / "BLUR")
    assert plate.quarantine[["well", "channel", "used"]].to_numpy().tolist() == [["A04", "ER", True], ["A04", "DNA", True]]
    page = page_of(plate)
    listed = re.findall(r'<button type="button" data-well="(\w+)" data-site="1"><img src="data:image/webp', page)
    assert listed[:2] == ["A04", "A04"]
    assert len(listed) == 2 + 9
    assert "blurred: sharpness 0.0040, the plate&#39;s DNA images have" in page
    assert embedded(page)["wells"][3]["flags"] == 2
