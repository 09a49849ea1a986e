"""The plate's page: whole, safe, self-contained, and alive in a browser."""

import base64
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from jumpgpu.outputs.plate_page import page_of
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
    assert sorted(data["pictures"]) == ["A01", "A02", "B01"]
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
    assert [p["site"] for p in data["pictures"]["A01"]] == [1, 2]


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
byId("feature").value = "Nuclei_AreaShape_Area";
byId("feature").dispatchEvent(new Event("change"));
seen.mean = at("B01").getAttribute("aria-label");
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
    assert len(re.findall(r'<svg viewBox="0 0 \d', page)) == 4  # one distribution, three edge views
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
        "mean": "B01: 25, x",
        "wide": [],
    }
