"""Buckets (S3, GCS, Azure): objects read, listed, written and removed, with retries; and a path that does for a folder's.

obstore holds the connections and tries again, with growing pauses, what fails in passing; here its errors become Python's,
with the URL in them, and what does not go away becomes a ConnectionError. Endpoint, credentials and region come from the
variables and files that each provider documents. What a bucket says is not believed: sizes are bounds on what is read,
names are checked before use.
"""

import contextlib
import errno
import os
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

T = TypeVar("T")
OPEN_BUCKETS = ("cellpainting-gallery",)  # read without credentials, whatever the machine has
TRIES = 8  # of a call in a run; the pauses between them come to half a minute
FIRST_TRIES = 3  # of a first look, where nobody knows yet that there is a network
PAUSE_S, LONGEST_S = 0.25, 16.0
CONNECT_S, READ_S = 10.0, 20.0  # without a byte
WHOLE_S = 900.0  # of one object
MAX_KEYS = 2_000_000  # of a listing
THREADS = 16  # calls under way at once
CALL_S, TICK_S = 1200.0, 0.5  # of a call with all its tries; between looks at it
LEVEL_S = 120.0  # of listing one level, whose pages nobody sees: a bucket may repeat them for ever
interrupted = threading.Event()  # the user wants this process to end
URL = re.compile(r"(s3|gs|az)://([^/]*)/?(.*)", re.DOTALL)
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
# Environment variables, by provider: what all begin with, where its servers are, and any that names credentials.
PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT",),
}
CREDENTIALS = re.compile(r"(?!AWS_SHARED).*(KEY|TOKEN|CREDENTIALS|SERVICE_ACCOUNT|CLIENT_ID|AZURE_CLI|EMULATOR)")
CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)(?:[\s(]*\w+[\s(]+(\w+))?")  # rustls's words for it
NO_TLS = re.compile(r"InvalidMessage\(|InvalidContentType")
AWS_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}


def is_url(place: object) -> bool:
    """Whether a text or path means a bucket."""
    return isinstance(place, RemotePath) or bool(URL.match(str(place)))


def place_of(text: str | os.PathLike[str]) -> "Place":
    """A folder here or in a bucket, from what a user gave."""
    if isinstance(text, RemotePath):
        return text
    url = URL.fullmatch(str(text))
    if not url:
        if "://" in str(text):
            raise ValueError(f"{text}: only folders and s3://, gs:// and az:// URLs can be read and written")
        return Path(text).expanduser()
    scheme, bucket, key = url.groups()
    if not BUCKET.fullmatch(bucket):
        raise ValueError(f"{text!r}: {bucket!r} is not a bucket's name; expected {scheme}://bucket/prefix")
    parts = [p for p in key.split("/") if p]
    if any(p in (".", "..") or not p.isprintable() for p in parts):
        raise ValueError(f"{text!r}: '.', '..' and control characters have no place in a URL")
    return RemotePath(bucket, "/".join(parts), scheme)


@dataclass(frozen=True)
class Listed:
    """What lies under a prefix.

    folders   names of the next level, without '/'
    files     name -> (bytes, mark of its content); names below the prefix, with '/' where the listing is deep
    """

    folders: tuple[str, ...] = ()
    files: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class RemotePath:
    """An object or a prefix of a bucket, with the part of pathlib's words that a plate's store needs."""

    bucket: str
    key: str = ""
    scheme: str = "s3"

    def __truediv__(self, name: str | os.PathLike[str]) -> "RemotePath":
        return replace(self, key=f"{self.key}/{name}" if self.key else str(name))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    __fspath__ = __str__  # what has no bucket's business with it fails on the name, and says it

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> "RemotePath":
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    def with_name(self, name: str) -> "RemotePath":
        return self.parent / name

    def inside(self, root: "RemotePath") -> bool:
        """Whether it lies below a prefix of the same bucket."""
        below = f"{root.key}/" if root.key else ""
        return (self.scheme, self.bucket) == (root.scheme, root.bucket) and self.key.startswith(below)

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self.size() >= 0

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return bool(attempt(self, lambda store: next(iter(store.list(self.key, chunk_size=1)), None))) or self.is_file()

    def absolute(self) -> "RemotePath":
        """Itself: a URL means the same everywhere."""
        return self

    def mkdir(self, **_: bool) -> None:
        """Nothing: a bucket has no folders."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object, if it is there."""
        self.parent.remove([self.name])

    def size(self) -> int:
        """The object's bytes; -1 where there is none."""
        try:
            return attempt(self, lambda store: int(store.head(self.key)["size"]))
        except FileNotFoundError:
            return -1

    def read_bytes(self, limit: int = 1 << 31, tries: int = TRIES) -> bytes:
        """The object's bytes; ValueError where it has more than `limit`."""

        def get(store: Any) -> bytes:
            answer = store.get(self.key)
            if (size := int(answer.meta["size"])) > limit:
                raise ValueError(f"{self}: {size} bytes, more than {limit}")
            return bytes(answer.bytes())

        return attempt(self, get, tries)

    def read_ranges(self, ranges: Sequence[tuple[int, int]], tries: int = TRIES) -> list[bytes]:
        """Parts of the object, by first byte and number of bytes."""
        starts, lengths = [start for start, _ in ranges], [n for _, n in ranges]

        def get(store: Any) -> list[bytes]:
            return [bytes(part) for part in store.get_ranges(self.key, starts=starts, lengths=lengths)]

        return attempt(self, get, tries) if ranges else []

    def write_bytes(self, data: bytes | bytearray, new: bool = False) -> None:
        """Put the object; with `new`, FileExistsError where there is one."""

        def put(store: Any, mode: str = "overwrite") -> None:
            store.put(self.key, bytes(data), mode=mode, use_multipart=False)

        try:
            attempt(self, partial(put, mode="create") if new else put)
        except ConnectionError as error:
            if not new or "501" not in str(error):
                raise
            attempt(self, put)  # a server that knows no conditions

    def listing(self, deep: bool = False, tries: int = TRIES) -> Listed:
        """What lies under this prefix: its own level, or with `deep` all."""
        base = f"{self.key}/" if self.key else ""

        def entries(store: Any) -> tuple[list[str], list[Any]]:
            if not deep:
                level = store.list_with_delimiter(self.key or None)
                return level["common_prefixes"], level["objects"]
            objects: list[Any] = []
            seen: set[str] = set()
            for page in store.list(self.key or None, chunk_size=1000):
                if page and page[0]["path"] in seen:
                    raise ConnectionError(f"{self}: its listing repeats itself from {page[0]['path'][:100]} on")
                seen.update(o["path"] for o in page[:1])
                objects += page
                if len(objects) > MAX_KEYS:
                    break
            return [], objects

        folders, objects = attempt(self, entries, tries, None if deep else LEVEL_S)
        if len(folders) + len(objects) > MAX_KEYS:
            raise ValueError(f"{self}: more than {MAX_KEYS} objects")
        files = {o["path"].removeprefix(base): (int(o["size"]), (o["e_tag"] or "").strip('"')) for o in objects}
        return Listed(tuple(f.removeprefix(base) for f in folders), files)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects below this prefix; absent ones are no matter."""
        keys = [f"{self.key}/{name}" if self.key else name for name in names]
        for some in [keys] if self.scheme == "s3" else [[key] for key in keys]:  # others mind an absent one
            with contextlib.suppress(FileNotFoundError):
                attempt(self, partial(obstore.delete, paths=some))


Place = Path | RemotePath


def attempt(path: RemotePath, call: Callable[[Any], T], tries: int = TRIES, seconds: float | None = None) -> T:
    """What the call returns for the bucket's store, which tries again by itself, up to `tries` times and `seconds` in all.

    Raises FileNotFoundError, PermissionError, FileExistsError and ValueError, with the URL; ConnectionError where the bucket
    is out of reach.
    """
    started, store = time.monotonic(), connected(path, tries)
    for n in range(tries):
        try:
            return in_time(path, partial(call, store), seconds or CALL_S)
        except (exceptions.BaseError, FileNotFoundError) as error:
            text, _, details = str(error).partition("Debug source")
            if "body error" in text and n + 1 < tries:  # a listing that was cut in its middle, which obstore leaves to us
                time.sleep(min(LONGEST_S, PAUSE_S * 2**n) * random.uniform(0.5, 1.0))
                continue
            why, code = reason(text, details), lasting(error, text, details)
            if code == errno.EINVAL:
                raise ValueError(f"{path}: {why}") from error
            if code:
                raise OSError(code, why, str(path)) from error
            spent = time.monotonic() - started
            raise ConnectionError(f"{path} cannot be reached ({tries} tries in {spent:.0f} s; the last: {why})") from error
    raise ValueError("tries must be positive")


def in_time(path: RemotePath, call: Callable[[], T], seconds: float) -> T:
    """What a call returns that may never do so: ConnectionError after `seconds`, and at once after an interruption.

    It is made by a thread that the process does not wait for; this one looks after it, and hears signals meanwhile.
    """
    answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised by the thread that asked
            answer.put((None, error))

    threading.Thread(target=ask, name="bucket call", daemon=True).start()
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(queue.Empty):
            result, error = answer.get(timeout=TICK_S)
            if error is not None:
                raise error
            return cast(T, result)
        if interrupted.is_set() or time.monotonic() > end:
            raise ConnectionError(
                f"{path}: no end of an answer in {seconds:.0f} s" if time.monotonic() > end else "interrupted"
            )


def lasting(error: Exception, text: str, details: str) -> int:
    """The errno of an error that the next try would meet again; 0 where the network or the server may recover."""
    status = int(result[1]) if (result := re.search(r"non-2xx status code: (\d+)", text)) else 0
    if isinstance(error, FileNotFoundError) or status == 404:
        return errno.ENOENT
    if isinstance(error, exceptions.AlreadyExistsError):
        return errno.EEXIST
    if isinstance(error, exceptions.InvalidPathError):
        return errno.EINVAL
    refused = isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError))
    refused = refused or bool(CERTIFICATE.search(details) or NO_TLS.search(details))
    if refused or (400 <= status < 500 and status not in (408, 429)) or re.search("redirect|credential|169.254", text):
        return errno.EACCES
    return 0


def reason(text: str, details: str) -> str:
    """What an error of obstore says, in one line of at most 160 characters."""
    said = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
    deep = re.findall(r'(?:message|error): "([^"]+)"|kind: (?:Timeout|TimedOut)\b', details)
    if certificate := CERTIFICATE.search(details):
        kind = certificate[1] if certificate[1] != "Other" else certificate[2]
        return f"the server's certificate is not trusted ({kind}); SSL_CERT_FILE names a private authority's"
    if NO_TLS.search(details):
        return "the server speaks no TLS; is its address to begin with http://?"
    if "redirect" in text:
        return "the bucket lies in another region; set AWS_REGION to it"
    if said := said or re.search(r"non-2xx status code: (\d+ [\w ]+)", text):
        text = said[1]
    elif "HTTP error" in text and deep:
        text = deep[-1] or "no answer in time"
    return re.sub(r"\?[^\s\"]*", "", " ".join(text.split()))[:160]  # no query of a URL


def connected(path: RemotePath, tries: int) -> Any:
    """The store that holds a bucket's connections, by what the environment says now."""
    variables = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(PREFIXES[path.scheme])))
    return open_store(path.scheme, path.bucket, variables, tries, PAUSE_S, READ_S)


@lru_cache(64)
def open_store(
    scheme: str, bucket: str, variables: tuple[tuple[str, str], ...], tries: int, pause_s: float, read_s: float
) -> Any:
    given = dict(variables)
    endpoint = next((given[name] for name in ENDPOINTS[scheme] if given.get(name)), "")
    config: dict[str, Any] = {"base_url" if scheme == "gs" else "endpoint": endpoint} if endpoint else {}
    how = credentials(scheme, bucket, given)
    if how is None:
        config["skip_signature"] = "true"
    if bucket in OPEN_BUCKETS:
        config["region"] = "us-east-1"
    kinds: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    backoff = {"init_backoff": timedelta(seconds=pause_s), "max_backoff": timedelta(seconds=LONGEST_S), "base": 2}
    try:
        return kinds[scheme](
            bucket,
            config=config,
            client_options={
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "read_timeout": timedelta(seconds=read_s),
                "timeout": timedelta(seconds=WHOLE_S),
                "allow_http": endpoint.startswith("http://"),
            },
            retry_config={"max_retries": tries - 1, "backoff": backoff, "retry_timeout": timedelta(seconds=WHOLE_S)},
            **({"credential_provider": how} if how else {}),
        )
    except exceptions.BaseError as error:
        raise ValueError(f"{scheme}://{bucket}: {str(error).partition('Debug source')[0].strip()}") from error


def credentials(scheme: str, bucket: str, given: Mapping[str, str]) -> Any:
    """Where credentials come from: '' for obstore's own search, a provider of them, or None for anonymous requests."""
    if bucket in OPEN_BUCKETS:
        return None
    if any(CREDENTIALS.match(name) for name, value in given.items() if value) or machine_has_role(scheme, given):
        return ""
    if scheme == "gs":
        return "" if Path("~/.config/gcloud/application_default_credentials.json").expanduser().is_file() else None
    files = [given.get(name) or f"~/.aws/{file}" for name, file in AWS_FILES.items()]
    if scheme == "s3" and (given.get("AWS_PROFILE") or any(has_bytes(Path(file).expanduser()) for file in files)):
        try:
            import boto3
            from obstore.auth.boto3 import Boto3CredentialProvider
        except ImportError as error:
            raise ValueError(
                f"s3://{bucket}: credentials in ~/.aws are read by boto3 ({error}); pip install boto3, or set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        session = boto3.Session()
        return Boto3CredentialProvider(session) if session.get_credentials() else None
    return None


def machine_has_role(scheme: str, given: Mapping[str, str]) -> bool:
    """Whether this is a virtual machine of the bucket's provider, whose metadata give credentials."""
    if scheme == "az" or given.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    try:
        name = Path("/sys/devices/virtual/dmi/id/sys_vendor").read_text(encoding="utf-8")
    except OSError:
        return False
    return name.startswith({"s3": "Amazon", "gs": "Google"}[scheme])


def has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def in_parallel(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`map` with up to `THREADS` calls at once, results in order; the first error ends it."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="bucket") as threads:
        try:
            with told_of_interruptions():
                yield from threads.map(function, items)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def told_of_interruptions() -> Iterator[None]:
    """Within it, calls of other threads end where this one is interrupted, so that nobody waits for them."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted.set()
        raise
