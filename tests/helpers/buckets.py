"""A bucket for the tests: an S3 server on the loopback device, and a proxy before it that misbehaves as it is told."""

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

GALLERY = "cellpainting-gallery"
SOURCE = "cpg0000-jump-pilot/source_4"
BATCH = "2020_11_04_CPJUMP1"
# method, path, how many times it was asked for -> 'cut', 'drop', 'slow', one of SAID, or None
Fault = Callable[[str, str, int], str | None]
SAID = {
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "unconditional": (501, "NotImplemented", "501: a header implies functionality that is not implemented."),
    "archived": (403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "elsewhere": (301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint."),
}


class Bucket:
    """Objects of one server; what is put is public, as the gallery's are."""

    def __init__(self, endpoint: str):
        import boto3  # half a second, and few tests want it

        self.endpoint = endpoint
        self.holds = ""  # what a fixture has put there, as long as nothing was changed
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)

    def make(self, name: str) -> None:
        self.client.create_bucket(Bucket=name, ACL="public-read")

    def empty(self) -> None:
        self.holds = ""
        for bucket in self.client.list_buckets()["Buckets"]:
            if keys := self.keys(bucket["Name"]):
                self.client.delete_objects(Bucket=bucket["Name"], Delete={"Objects": [{"Key": key} for key in keys]})
            self.client.delete_bucket(Bucket=bucket["Name"])

    def remove(self, bucket: str, key: str) -> None:
        self.holds = ""
        self.client.delete_object(Bucket=bucket, Key=key)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.holds = ""
        self.client.put_object(Bucket=bucket, Key=key, Body=data, ACL="public-read")

    def get(self, bucket: str, key: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def contents(self, bucket: str, prefix: str) -> dict[str, bytes]:
        return {key.removeprefix(f"{prefix}/"): self.get(bucket, key) for key in self.keys(bucket, f"{prefix}/")}

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.put(bucket, f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server; `fault` says what goes wrong with one. `asked` counts them by method and path."""

    daemon_threads = True

    def __init__(self, server: str):
        self.server = urlsplit(server).netloc
        self.fault: Fault = lambda method, path, n: None
        self.asked: Counter[tuple[str, str]] = Counter()
        self.ranges: list[str] = []  # what parts of objects were asked for
        self.under_way = self.maximum = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, method: str, ending: str = "") -> int:
        return sum(n for (m, path), n in self.asked.items() if m == method and path.endswith(ending))

    def see(self, headers: Message) -> None:
        self.ranges.append(headers.get("Range", ""))

    def handle_error(self, request: object, address: object) -> None:
        """A client that gives up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.asked[self.command, path] += 1
            self.server.see(self.headers)
            n = self.server.asked[self.command, path]
            self.server.under_way += 1
            self.server.maximum = max(self.server.maximum, self.server.under_way)
        try:
            self.answer(self.server.fault(self.command, path, n))
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def answer(self, fault: str | None) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault in SAID:
            status, code, message = SAID[fault]
            text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.reply(status, {"Content-Type": "application/xml"}, text, None)
            return
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        onward = http.client.HTTPConnection(self.server.server, timeout=30)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.pop("x-goog-if-generation-match", "") == "0":  # as GCS says what S3 says so
            headers["if-none-match"] = "*"
        if headers.get("authorization", "").startswith("Bearer"):
            del headers["authorization"]
        onward.request(self.command, self.path, body, headers)
        answer = onward.getresponse()
        data = answer.read()
        onward.close()
        self.reply(answer.status, dict(answer.getheaders()), data, fault)

    def reply(self, status: int, headers: dict[str, str], data: bytes, fault: str | None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "slow"):
            half = len(data) // 2
            self.wfile.write(data[:half])
            self.wfile.flush()
            if fault == "slow":
                time.sleep(1.0)
                self.wfile.write(data[half:])
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            return
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def serving(proxy: Proxy) -> Iterator[Proxy]:
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
