"""Buckets that do harm: a server whose certificate nobody trusts, one that speaks no TLS, listings that never end."""

import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jumpgpu.extract import main as extract
from jumpgpu.storage import buckets
from jumpgpu.storage.buckets import place_of
from tests.helpers.buckets import serving

pytestmark = pytest.mark.mechanics

PAGE = """<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>some-bucket</Name><Prefix>x/</Prefix>
<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>
<NextContinuationToken>again</NextContinuationToken><Contents><Key>x/a</Key><LastModified>2026-01-01T00:00:00.000Z
</LastModified><ETag>"1"</ETag><Size>1</Size></Contents></ListBucketResult>"""
EMPTY = PAGE[: PAGE.index("<Contents>")] + "</ListBucketResult>"
LAST = EMPTY.replace("true", "false").replace("<NextContinuationToken>again</NextContinuationToken>", "")


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        data = self.server.page.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def server(monkeypatch):
    """A server that answers every request with its `page`, and counts them; `asked`."""
    monkeypatch.setattr(buckets, "PAUSE_S", 0.01)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Answers)) as started:
        started.page, started.asked = PAGE, 0
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{started.server_address[1]}")
        yield started


def certificates(folder, name, days="2"):
    """An authority's certificate, and a certificate with key that it signed for `name`."""
    run = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)  # noqa: E731
    run(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=lab",
        "-days",
        "2",
    )
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=own")
    (folder / "names").write_text(f"subjectAltName={name}\nbasicConstraints=CA:FALSE\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "own.pem"]
    run("x509", "-req", "-in", "own.csr", "-days", days, *signed)
    return folder / "ca.pem", folder / "own.pem", folder / "own.key"


@pytest.mark.parametrize(
    ("name", "trusted", "said"),
    [
        ("IP:127.0.0.1", False, "UnknownIssuer"),
        ("DNS:elsewhere.example.org", True, "NotValidForName"),
        ("IP:127.0.0.1", True, None),
    ],
)
def test_a_certificate_that_is_not_trusted_is_said_and_bad_use(server, monkeypatch, tmp_path, capsys, name, trusted, said):
    authority, own, key = certificates(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.page = LAST
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    words = ["--plate", "P", "--images", "s3://some-bucket/x", "--output", str(tmp_path / "out"), "--device", "cpu"]
    if said is None:
        assert place_of("s3://some-bucket/x").listing().files == {}
        assert server.asked == 1
        return
    assert extract(words) == 2
    message = capsys.readouterr().err
    assert f"the server's certificate is not trusted ({said}" in message
    assert "s3://some-bucket/x" in message
    assert server.asked == 0
    assert not (tmp_path / "out").exists()


def test_a_server_without_tls_is_said(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_address[1]}")
    with pytest.raises(PermissionError, match="speaks no TLS"):
        place_of("s3://some-bucket/x").listing(tries=2)


@pytest.mark.parametrize("page", [PAGE, EMPTY])
@pytest.mark.parametrize("deep", [True, False])
def test_a_listing_that_repeats_itself_ends(server, monkeypatch, page, deep):
    """The bucket gives the same continuation token for ever."""
    monkeypatch.setattr(buckets, "CALL_S", 3.0)
    monkeypatch.setattr(buckets, "LEVEL_S", 3.0)
    server.page, start = page, time.monotonic()
    with pytest.raises(ConnectionError, match=r"repeats itself|no end of an answer in 3 s"):
        place_of("s3://some-bucket/x").listing(deep=deep)
    assert time.monotonic() - start < 10


def test_an_interruption_ends_a_listing_within_two_seconds(server, monkeypatch):
    """As Ctrl-C sets it, while the bucket's answer has no end."""
    timer = threading.Timer(1.0, buckets.interrupted.set)
    start = time.monotonic()
    timer.start()
    try:
        with pytest.raises(ConnectionError, match="interrupted"):
            place_of("s3://some-bucket/x").listing()
        assert time.monotonic() - start < 3
    finally:
        buckets.interrupted.clear()
