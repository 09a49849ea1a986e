"""Buckets: objects read, listed, written and removed over S3, with retries; and a path that does for a folder's.

Endpoint, credentials and region come from the usual AWS variables and files. s3fs holds the connections; each call here is
tried again, with growing pauses, when the network or the server fails in passing, and ends in a ConnectionError when
that does not help. What a bucket says is not believed: sizes are bounds on what is read, names are checked before use.
"""

import asyncio
import errno
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

SCHEME = "s3://"
OPEN_BUCKETS = ("cellpainting-gallery",)  # read without credentials, whatever the machine has
TRIES = 8  # of a call in a run; the pauses between them come to half a minute
FIRST_TRIES = 3  # of a first look, where nobody knows yet that there is a network
PAUSE_S, LONGEST_S = 0.25, 16.0
CONNECT_S, READ_S = 10, 20  # without a byte
SLOWEST = 50_000  # bytes a second, below which a read is given up and tried again
MAX_KEYS = 2_000_000  # of a listing
THREADS = 16  # calls under way at once
PASSING = {errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO), errno.ETIMEDOUT, errno.ECONNRESET}
CODES = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, FileExistsError: errno.EEXIST}
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_url(place: object) -> bool:
    """Whether a text or path means a bucket."""
    return isinstance(place, RemotePath) or str(place).startswith(SCHEME)


def place_of(text: str | os.PathLike[str]) -> "Place":
    """A folder here or in a bucket, from what a user gave."""
    if isinstance(text, RemotePath):
        return text
    if not is_url(text):
        if "://" in str(text):
            raise ValueError(f"{text}: only folders and s3:// URLs can be read and written")
        return Path(text).expanduser()
    bucket, _, key = str(text).removeprefix(SCHEME).partition("/")
    if not BUCKET.fullmatch(bucket):
        raise ValueError(f"{text!r}: {bucket!r} is no bucket's name; expected s3://bucket/prefix")
    parts = [p for p in key.split("/") if p]
    if any(p in (".", "..") or not p.isprintable() for p in parts):
        raise ValueError(f"{text!r}: '.', '..' and control characters have no place in a URL")
    return RemotePath(bucket, "/".join(parts))


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

    def __truediv__(self, name: str | os.PathLike[str]) -> "RemotePath":
        return RemotePath(self.bucket, f"{self.key}/{name}" if self.key else str(name))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")

    __fspath__ = __str__  # what has no bucket's business with it fails on the name, and says it

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.bucket, self.key.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    def with_name(self, name: str) -> "RemotePath":
        return self.parent / name

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self.size() >= 0

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        found = self._call("list_objects_v2", Prefix=f"{self.key}/", MaxKeys=1)
        return bool(found.get("Contents")) or self.is_file()

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
            return int(self._call("head_object", Key=self.key)["ContentLength"])
        except FileNotFoundError:
            return -1

    def read_bytes(self, limit: int = 1 << 31, tries: int = TRIES) -> bytes:
        """The object's bytes; ValueError where it has more than `limit`."""

        async def get(system: Any) -> bytearray:
            answer = await system._call_s3("get_object", Bucket=self.bucket, Key=self.key)
            async with answer["Body"] as body:
                size = int(answer["ContentLength"])
                if size > limit:
                    raise ValueError(f"{self}: {size} bytes, more than {limit}")
                data: bytearray = await asyncio.wait_for(whole(body, size), READ_S + size / SLOWEST)
                return data

        return bytes(attempt(self, get, tries))

    def write_bytes(self, data: bytes | bytearray, new: bool = False) -> None:
        """Put the object; with `new`, FileExistsError where there is one."""
        if new:
            try:
                self._call("put_object", Key=self.key, Body=bytes(data), IfNoneMatch="*")
                return
            except OSError as error:
                if error.errno != errno.ENOSYS:  # a server that knows no conditions
                    raise
        self._call("put_object", Key=self.key, Body=bytes(data))

    def listing(self, deep: bool = False, start: str = "", tries: int = TRIES) -> Listed:
        """What lies under this prefix: its own level, or with `deep` all; only names that begin with `start`."""
        base = f"{self.key}/" if self.key else ""
        folders: list[str] = []
        files: dict[str, tuple[int, str]] = {}
        more: dict[str, Any] = {} if deep else {"Delimiter": "/"}
        while True:
            page = self._call("list_objects_v2", Prefix=base + start, tries=tries, **more)
            folders += [p["Prefix"].removeprefix(base).rstrip("/") for p in page.get("CommonPrefixes", ())]
            for entry in page.get("Contents", ()):
                files[entry["Key"].removeprefix(base)] = int(entry["Size"]), str(entry.get("ETag", "")).strip('"')
            if len(folders) + len(files) > MAX_KEYS:
                raise ValueError(f"{self}: more than {MAX_KEYS} objects")
            if not page.get("IsTruncated") or not page.get("NextContinuationToken"):
                return Listed(tuple(folders), {name: entry for name, entry in files.items() if name})
            more["ContinuationToken"] = page["NextContinuationToken"]

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects below this prefix; absent ones are no matter."""
        keys = [f"{self.key}/{name}" for name in names]
        for i in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[i : i + 1000]]
            answer = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
            if failed := answer.get("Errors"):
                raise PermissionError(f"{self}: {failed[0].get('Key')} cannot be removed: {failed[0].get('Message')}")

    def _call(self, method: str, tries: int = TRIES, **arguments: Any) -> dict[str, Any]:
        async def call(system: Any) -> Any:
            return await asyncio.wait_for(
                system._call_s3(method, Bucket=self.bucket, **arguments),
                CONNECT_S + READ_S + len(arguments.get("Body", b"")) / SLOWEST,
            )

        answer: dict[str, Any] = attempt(self, call, tries)
        return answer


Place = Path | RemotePath


async def whole(body: Any, size: int) -> bytearray:
    """A body of `size` bytes; EOFError where it ends before or goes on."""
    data = bytearray()
    while len(data) <= size and (chunk := await body.read(1 << 18)):
        data += chunk
    if len(data) != size:
        raise EOFError(f"the connection ended after {len(data)} of {size} bytes")
    return data


@cache
def system(anonymous: bool, endpoint: str | None, process: int) -> Any:
    """The s3fs file system that holds the connections; one for each process, since they do not live through a fork."""
    try:
        import s3fs
    except ImportError as error:
        raise RuntimeError(f"reading and writing buckets needs s3fs ({error}); pip install s3fs") from error
    made = s3fs.S3FileSystem(
        anon=anonymous,
        endpoint_url=endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
        client_kwargs={"region_name": "us-east-1"} if anonymous and not endpoint else {},
        config_kwargs={
            "retries": {"total_max_attempts": 1, "mode": "standard"},  # `attempt` is the one that tries again
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "max_pool_connections": 2 * THREADS,
        },
    )
    made.retries = 1
    return made


def connected(bucket: str) -> Any:
    """The file system for a bucket, by what the environment says now."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return system(bucket in OPEN_BUCKETS or not has_credentials(), endpoint, os.getpid())


def has_credentials() -> bool:
    """Whether the environment names credentials; without any, requests are anonymous."""
    keys = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_PROFILE")
    return any(keys) or stored_credentials()


@cache
def stored_credentials() -> bool:
    """Whether there are credentials in files or from the machine's role; asked once, for it may ask the network."""
    try:
        from botocore.session import Session
    except ImportError:
        return False
    return Session().get_credentials() is not None


def attempt(path: RemotePath, call: Callable[[Any], Awaitable[Any]], tries: int) -> Any:
    """What the call returns; again, after a pause that doubles and is never the same twice, where it fails in passing.

    Raises ConnectionError when it still fails; FileNotFoundError, PermissionError, FileExistsError, ValueError as they come.
    """
    from botocore.exceptions import BotoCoreError
    from fsspec.asyn import sync

    files, started, last = connected(path.bucket), time.monotonic(), ""
    for n in range(tries):
        if n:
            time.sleep(min(LONGEST_S, PAUSE_S * 2 ** (n - 1)) * random.uniform(0.5, 1.0))
        try:
            return sync(files.loop, call, files)
        except Exception as error:
            if not passing(error):
                if isinstance(error, BotoCoreError):  # no credentials, an expired login, a bucket's name that cannot be
                    raise PermissionError(errno.EACCES, reason(error), str(path)) from error
                if isinstance(error, OSError) and not error.filename:  # s3fs names no file
                    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), error.errno or errno.EIO)
                    raise OSError(code, reason(error), str(path)) from error
                raise
            last = reason(error)
    spent = time.monotonic() - started
    raise ConnectionError(f"{path} cannot be reached ({tries} tries in {spent:.0f} s; the last: {last})")


def passing(error: Exception) -> bool:
    """Whether an error may be gone the next time: the network's, or a server that is busy or fails."""
    import aiohttp
    from botocore.exceptions import ConnectionError as Unconnected
    from botocore.exceptions import HTTPClientError
    from botocore.parsers import ResponseParserError

    kinds = (Unconnected, HTTPClientError, ResponseParserError, aiohttp.ClientError, TimeoutError, EOFError)
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError)):
        return False
    response = getattr(error.__cause__, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status:
        return bool(status >= 500 or status == 429 or isinstance(error, TimeoutError))
    return isinstance(error, kinds) or (isinstance(error, OSError) and (error.errno in PASSING or not error.errno))


def reason(error: BaseException) -> str:
    """An error in one line of at most 160 characters."""
    if isinstance(error, OSError) and error.errno and len(error.args) == 2:
        return " ".join(str(error.args[1]).split())[:160]
    return re.sub(r"\?[^\s\"]*", "", " ".join(str(error).split()))[:160] or type(error).__name__  # no query of a URL


def in_parallel(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`map` with up to `THREADS` calls at once, results in order; the first error ends it."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="bucket") as threads:
        try:
            yield from threads.map(function, items)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
