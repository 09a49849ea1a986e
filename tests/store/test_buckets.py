"""A plate written into a bucket: the keys and bytes of one on disk, committed by the record put last."""

import base64
import hmac
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate

import numpy as np
import pytest

import jumpgpu
from jumpgpu import verify
from jumpgpu.export import main as export
from jumpgpu.extract import main
from jumpgpu.storage import buckets
from jumpgpu.storage.atomic import commit_folder
from jumpgpu.storage.buckets import place_of
from jumpgpu.store.layout import Layout, SiteTable
from jumpgpu.store.writer import PlateWriter
from tests.helpers.buckets import Bucket, Proxy, serving
from tests.helpers.plates import CHANNELS, SETTINGS, contents, write_images, write_plate

WELLS = {"B10": [1, 2], "AA01": [7]}
OUT = "s3://results/run 1"
KEYS = ("results", "run 1")


@pytest.fixture
def bucket(server, monkeypatch) -> Iterator[Bucket]:
    """An empty bucket `results` behind a proxy, and credentials for it."""
    server.empty()
    server.make("results")
    monkeypatch.setattr(buckets, "PAUSE_S", 0.01)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with serving(Proxy(server.endpoint)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        server.proxy = proxy
        yield server


def test_a_bucket_holds_the_bytes_that_a_folder_holds(bucket, tmp_path):
    write_plate(tmp_path, WELLS, images=True)
    bucket.proxy.fault = lambda method, path, n: ["busy", "drop", None][sum(path.encode()) % 3] if n == 1 else None
    assert write_plate(place_of(OUT), WELLS, images=True) == ["B10", "AA01"]
    here = {key: data for key, data in contents(tmp_path).items() if not key.endswith(".lock")}
    assert bucket.contents(*KEYS) == here
    assert write_plate(place_of(OUT), WELLS, images=True) == []

    plate, local = jumpgpu.open_plate(f"{OUT}/BR00117010"), jumpgpu.open_plate(tmp_path / "BR00117010")
    assert plate.wells == local.wells
    assert plate.verify() == []
    assert plate.to_pandas().equals(local.to_pandas())
    np.testing.assert_array_equal(plate.labels("AA01", 7)["Cells"], local.labels("AA01", 7)["Cells"])
    assert "s3://results/run 1/BR00117010.zarr" in repr(plate)
    with pytest.raises(FileNotFoundError, match="no plate at s3://results/run 1/BR2"):
        jumpgpu.open_plate(f"{OUT}/BR2")


def test_a_few_columns_come_by_ranges_of_an_object(bucket, monkeypatch):
    columns = [f"Cells_Texture_Variance_DNA_{i}_00_256" for i in range(1, 101)]
    values = np.random.default_rng(4).normal(size=(20, 100)).astype(np.float32)
    with PlateWriter(place_of(OUT), Layout("WIDE", columns, CHANNELS), SETTINGS, {"A01": [1]}) as writer:
        writer.append(SiteTable("A01", 1, np.arange(1, 21), values))
    plate, whole = jumpgpu.open_plate(f"{OUT}/WIDE"), []
    honest = buckets.RemotePath.read_bytes
    monkeypatch.setattr(
        buckets.RemotePath, "read_bytes", lambda self, *given: (whole.append(self.key), honest(self, *given))[1]
    )
    result = plate.to_pandas(columns=[columns[99], columns[3], columns[50]])
    np.testing.assert_array_equal(result.iloc[:, 4:].to_numpy(), values[:, [99, 3, 50]])
    assert not [key for key in whole if key.endswith("X/c.0.0")]
    bucket.put("results", "run 1/WIDE.zarr/A/01/tables/cells/X/c.0.0", b"short")
    with pytest.raises((ValueError, OSError), match="WIDE"):
        plate.to_pandas(columns=columns[99:])


def test_a_well_is_there_when_its_record_is_and_a_dead_run_leaves_none(bucket):
    puts: list[str] = []
    honest = buckets.RemotePath.write_bytes

    def dying(self, data, new=False):
        puts.append(self.key)
        if "B/10" in self.key and "tables/cells/X" in self.key:
            raise ConnectionError("the machine is gone")
        honest(self, data, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets.RemotePath, "write_bytes", dying)
        with pytest.raises(ConnectionError):
            write_plate(place_of(OUT), WELLS)
    assert [k for k in bucket.keys("results") if "B/10/" in k]  # half a well
    assert jumpgpu.open_plate(f"{OUT}/BR00117010").wells == []
    bucket.put("results", "run 1/BR00117010.zarr/B/10/tables/left/over", b"x")
    assert write_plate(place_of(OUT), WELLS) == ["B10", "AA01"]
    assert jumpgpu.open_plate(f"{OUT}/BR00117010").verify() == []

    puts.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            buckets.RemotePath, "write_bytes", lambda self, data, new=False: (puts.append(self.key), honest(self, data, new))
        )
        write_plate(place_of(OUT), {"A03": [1]})
    well = [key for key in puts if "A/03/" in key]
    assert len(well) > 10
    assert well[-1] == "run 1/BR00117010.zarr/A/03/zarr.json"


def test_overwriting_takes_the_record_first(bucket):
    write_plate(place_of(OUT), WELLS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets.RemotePath, "write_bytes", lambda *_: (_ for _ in ()).throw(ConnectionError("gone")))
        with pytest.raises(ConnectionError):
            write_plate(place_of(OUT), {"B10": [1, 2]}, overwrite=True)
    assert jumpgpu.open_plate(f"{OUT}/BR00117010").wells == ["AA01"]  # absent, and no mixture
    write_plate(place_of(OUT), {"B10": [1, 2]}, overwrite=True)
    assert jumpgpu.open_plate(f"{OUT}/BR00117010").verify() == []


def test_other_settings_are_refused_and_overwriting_leaves_nothing_of_them(bucket):
    write_plate(place_of(OUT), WELLS)
    other = {**SETTINGS, "kernels": "xyz"}
    with pytest.raises(ValueError, match="kernels: stored abc, asked xyz"):
        write_plate(place_of(OUT), WELLS, settings=other)
    write_plate(place_of(OUT), WELLS, settings=other, overwrite=True, images=True)
    plate = jumpgpu.open_plate(f"{OUT}/BR00117010")
    assert plate.settings["kernels"] == "xyz"
    assert plate.verify() == []
    with pytest.raises(FileExistsError):  # of two runs that make a plate at once, one is first
        commit_folder({"zarr.json": b"{}"}, place_of(f"{OUT}/BR00117010.zarr"), place_of(OUT))


def test_a_server_without_conditional_puts_is_written_without(bucket):
    bucket.proxy.fault = lambda method, path, n: "unconditional" if method == "PUT" and n <= 8 else None
    place_of("s3://results/new").write_bytes(b"1", new=True)
    assert bucket.get("results", "new") == b"1"


def test_one_changed_byte_and_a_missing_object_are_found(bucket, capsys):
    write_plate(place_of(OUT), WELLS)
    key = next(k for k in bucket.keys("results") if "B/10/tables/cells/X/c" in k)
    data = bytearray(bucket.get("results", key))
    data[-1] ^= 1
    bucket.put("results", key, bytes(data))
    gone = next(k for k in bucket.keys("results") if "AA/01/tables/cells/obs/_index/c" in k)
    bucket.remove("results", gone)
    assert verify.main([f"{OUT}/BR00117010.zarr"]) == 1
    out = capsys.readouterr()
    assert "B10: tables/cells/X/c.0.0 is not as it was written" in out.out + out.err
    assert "AA01: tables/cells/obs/_index/c.0 is not as it was written (-1 bytes" in out.out + out.err


def test_the_command_extracts_into_a_bucket_resumes_and_others_read_it(bucket, tmp_path, monkeypatch, capsys):
    write_images(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    (next((tmp_path / "images").rglob("r01c01f02*ch3*"))).unlink()
    monkeypatch.chdir(tmp_path)
    known = ["--plate", "DEMO", "--images", "images", "--config", "small.toml", "--device", "cpu", "--masks", "masks"]
    assert main([*known, "--output", "here"]) == 3
    assert main([*known, "--output", OUT, "--wells", "B02"]) == 0
    assert main([*known, "--output", OUT]) == 3
    err = capsys.readouterr().err
    assert "1 of 2 wells are measured already" in err
    assert f"see {OUT}/quarantine.csv" in err
    assert "estimated from 3 fields (kept in s3://results/run 1/illum/DEMO)" in err
    here = {k: v for k, v in contents(tmp_path / "here").items() if not k.endswith(".lock")}
    there = bucket.contents(*KEYS)
    assert there.keys() == here.keys()
    for key in (k for k in here if not k.endswith("_estimate.json")):  # which names the images' places
        assert there[key] == here[key], key
    plate = jumpgpu.extract("DEMO", images="images", config="small.toml", device="cpu", masks="masks", output=OUT)
    assert len(plate.to_pandas()) == 12
    assert main([*known, "--output", OUT, "--dry-run"]) == 0
    assert f"write: {OUT}/DEMO.zarr" in (told := capsys.readouterr().out)
    assert "measured already: 2 wells" in told
    assert export([f"{OUT}/DEMO.zarr", "--format", "csv", "--output", "exported"]) == 0
    assert len(list((tmp_path / "exported").iterdir())) == 1


def test_a_bucket_that_cannot_be_written_is_one_line(bucket, tmp_path, monkeypatch, capsys):
    write_images(tmp_path)
    (tmp_path / "small.toml").write_text('[features]\nfamilies = ["number"]\n')
    monkeypatch.chdir(tmp_path)
    known = ["--plate", "DEMO", "--images", "images", "--config", "small.toml", "--masks", "masks", "--illumination", "none"]
    assert main([*known, "--device", "cpu", "--output", "s3://no-such-bucket/x"]) == 2
    assert "s3://no-such-bucket/x" in (err := capsys.readouterr().err.splitlines()[-1])
    assert err.startswith("error: ")
    bucket.proxy.fault = lambda method, path, n: "drop"
    monkeypatch.setattr(buckets, "PAUSE_S", 0.001)
    assert main([*known, "--device", "cpu", "--output", OUT]) == 75
    assert "cannot be reached (8 tries" in capsys.readouterr().err.splitlines()[-1]


def test_the_plates_metadata_in_a_bucket_is_that_of_its_wells(bucket):
    write_plate(place_of(OUT), WELLS, images=True)
    attributes = json.loads(bucket.get("results", "run 1/BR00117010.zarr/zarr.json"))["attributes"]
    assert [w["path"] for w in attributes["ome"]["plate"]["wells"]] == ["B/10", "AA/01"]


@pytest.fixture
def google(bucket, monkeypatch) -> str:
    """The same server by the words of Google Cloud Storage."""
    key = {
        "disable_oauth": True,
        "gcs_base_url": bucket.proxy.endpoint,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
    monkeypatch.setenv("GOOGLE_BASE_URL", bucket.proxy.endpoint)
    return "gs://results/run 1"


@pytest.fixture
def azure(monkeypatch) -> Iterator[str]:
    """Azurite, where it is installed (npm install azurite): Microsoft's emulator of Azure Blob Storage."""
    program = shutil.which("azurite-blob")
    if not program:
        pytest.skip("no azurite-blob; npm install -g azurite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    server = subprocess.Popen([program, *options, "--blobPort", str(port)], stdout=subprocess.DEVNULL)
    key = (
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # the emulator's, public
    )
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{port}/devstoreaccount1")
    try:
        create_container(f"http://127.0.0.1:{port}/devstoreaccount1/results", key)
        yield "az://results/run 1"
    finally:
        server.kill()
        server.wait()


def create_container(url: str, key: str) -> None:
    """Signed as Azure's shared key wants it; tried until the emulator listens."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    said = "".join(f"{name}:{value}\n" for name, value in headers.items())
    text = "PUT" + "\n" * 12 + said + "/devstoreaccount1/devstoreaccount1/results\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
    headers |= {"Authorization": f"SharedKey devstoreaccount1:{signature}", "Content-Length": "0"}
    request = urllib.request.Request(f"{url}?restype=container", method="PUT", headers=headers)
    for tries in range(100):
        try:
            urllib.request.urlopen(request).close()
            return
        except urllib.error.URLError:
            if tries == 99:
                raise
            time.sleep(0.1)


@pytest.mark.parametrize("provider", ["google", "azure"])
def test_other_providers_hold_the_same_plate(provider, request, tmp_path):
    place = place_of(request.getfixturevalue(provider))
    write_plate(tmp_path / "here", WELLS)
    assert write_plate(place, WELLS) == ["B10", "AA01"]
    here = {key: data for key, data in contents(tmp_path / "here").items() if not key.endswith(".lock")}
    assert {key: (place / key).read_bytes() for key in place.listing(deep=True).files} == here
    assert place.listing().folders == ("BR00117010.zarr",)
    assert write_plate(place, WELLS) == []
    write_plate(place, {"B10": [1, 2]}, overwrite=True)
    plate = jumpgpu.open_plate(f"{place}/BR00117010")
    assert plate.verify() == []
    assert f"{place}/BR00117010.zarr" in repr(plate)
    with pytest.raises(FileExistsError):
        (place / "BR00117010.zarr/zarr.json").write_bytes(b"{}", new=True)
    with pytest.raises(FileNotFoundError, match=str(place)):
        (place / "absent").read_bytes()
    (place / "absent").unlink()
    place.remove(["absent", "BR00117010.zarr/zarr.json"])
    assert (place / "BR00117010.zarr/zarr.json").size() == -1


def test_a_profile_of_the_aws_files_is_used_and_its_absence_said(bucket, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = LABKEY\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    signed = []
    bucket.proxy.fault = lambda method, path, n: None
    monkeypatch.setattr(type(bucket.proxy), "see", lambda self, headers: signed.append(headers.get("Authorization", "")))
    place_of("s3://results/x").write_bytes(b"1")
    assert "Credential=LABKEY/" in signed[-1]
    monkeypatch.setitem(sys.modules, "boto3", None)
    buckets.open_store.cache_clear()
    with pytest.raises(ValueError, match=r"s3://results: credentials in ~/.aws are read by boto3 .*pip install boto3"):
        place_of("s3://results/x").write_bytes(b"1")
    buckets.open_store.cache_clear()
    monkeypatch.delenv("AWS_PROFILE")
    (tmp_path / "credentials").write_text("")
    place_of("s3://results/x").read_bytes()
    assert signed[-1] == ""  # nobody's credentials: an open bucket
