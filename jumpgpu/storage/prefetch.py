"""A plate's image files in a bucket: fetched ahead of the decoders, kept in a cache if asked, sizes from one listing."""

import collections
import contextlib
import io
import os
import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from .atomic import move_into_place, write_new
from .buckets import FIRST_TRIES, THREADS, TRIES, Listed, RemotePath, place_of, told_of_interruptions
from .local import ABSENT, Status
from .pages import read_page, split_page

AHEAD_BYTES = 256 << 20  # of files fetched and not yet taken, and of those under way
STACK_BYTES = 1 << 31  # of a file of several pages
STACKS = 3  # kept while their pages are read
PART = re.compile(r"[^/\\:\x00-\x1f]{1,255}")  # what a cache may have as a name


class RemoteFiles:
    """Image files of a bucket, by their URLs.

    folder : the plate's, against which files are named
    roots : prefixes outside of which nothing is read
    cache : folder that keeps what was read, or None
    """

    def __init__(self, folder: RemotePath, roots: tuple[RemotePath, ...], cache: Path | None = None):
        self.folder, self.roots, self.cache = folder, roots, cache
        self._listings: dict[RemotePath, Listed] = {}
        self._lock = threading.Lock()
        self._stacks: collections.OrderedDict[str, Future[bytes]] = collections.OrderedDict()
        self._coming: _Coming | None = None

    def path_of(self, file: str) -> RemotePath:
        """A file's place; ValueError outside the roots."""
        path = place_of(split_page(file)[0])
        if not isinstance(path, RemotePath) or not any(map(path.inside, self.roots)):
            raise ValueError(f"{file[:120]!r} is outside of {self.roots[0]}; refused")
        return path

    def listed(self, folder: RemotePath, tries: int = FIRST_TRIES) -> Listed:
        """A folder's listing, asked for once."""
        with self._lock:
            if folder not in self._listings:
                self._listings[folder] = folder.listing(tries=tries)
            return self._listings[folder]

    def read(self, file: str, limit: int) -> bytes:
        if self._coming:
            return self._coming.take(file)
        return self.fetch(file, limit)

    def read_with_status(self, file: str, limit: int) -> tuple[bytes, Status]:
        return self.read(file, limit), self.status(file)

    def fetch(self, file: str, limit: int) -> bytes:
        """The file's bytes from the cache or the bucket. What the cache has must have the size that is listed."""
        name, page = split_page(file)
        if page:
            return read_page(io.BytesIO(self.stack(name)), page, limit)
        path = self.path_of(file)
        size, _ = self.status(file)
        if size < 0:
            raise FileNotFoundError(2, "no such object", file)
        if size > limit:
            raise ValueError(f"{size} bytes, more than {limit} for an image of this size")
        place = cached(self.cache, path) if self.cache else None
        if place:
            with contextlib.suppress(OSError):
                if os.stat(place).st_size == size:
                    return place.read_bytes()
        try:
            data = path.read_bytes(size, TRIES)
        except PermissionError as error:
            if "storage class" in str(error):
                raise ValueError(error.strerror or str(error)) from error  # archived: this object's own fault
            raise ConnectionError(f"{file} may not be read: {error.strerror}; are the credentials still good?") from error
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes, where {size} were listed")
        if self.cache and place:
            keep(self.cache, place, data)
        return data

    def stack(self, file: str) -> bytes:
        """A file of several pages, fetched once while they are read."""
        with self._lock:
            coming = self._stacks.get(file)
            mine = coming is None or (coming.done() and coming.exception() is not None)
            if mine:
                coming = self._stacks[file] = Future()
                while len(self._stacks) > STACKS:
                    self._stacks.popitem(last=False)
        assert coming is not None
        if mine:
            try:
                coming.set_result(self.fetch(file, STACK_BYTES))
            except BaseException as error:  # noqa: BLE001 - raised below, and where others wait for it
                coming.set_exception(error)
        return coming.result()

    def status(self, file: str) -> Status:
        path = self.path_of(file)
        return self.listed(path.parent).files.get(path.name, ABSENT)

    def relative(self, file: str) -> str:
        inside = f"{self.folder}/"
        return file.removeprefix(inside) if file.startswith(inside) else file.partition("://")[2]

    @contextlib.contextmanager
    def ahead(self, files: Iterable[str], limit: int) -> Iterator[None]:
        """While this is open, `files` are fetched ahead of `read`, `AHEAD_BYTES` of them and `THREADS` at once."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as threads:
            before, self._coming = self._coming, _Coming(self, files, limit, threads)
            try:
                with told_of_interruptions():
                    yield
            finally:
                self._coming = before
                threads.shutdown(wait=True, cancel_futures=True)


class _Coming:
    """Files under way, and those fetched and not yet taken: never more than `AHEAD_BYTES` of them, or one."""

    def __init__(self, files: RemoteFiles, order: Iterable[str], limit: int, threads: ThreadPoolExecutor):
        self.files, self.limit, self.threads = files, limit, threads
        self.order = collections.deque(order)
        self.under_way: dict[str, Future[bytes]] = {}
        self.taken: set[str] = set()
        self.held = 0  # bytes
        self.lock = threading.Lock()
        with self.lock:
            self._go_on()

    def _go_on(self) -> None:
        """Start what fits. The lock is held."""
        while self.order:
            file = self.order[0]
            if file in self.taken or file in self.under_way:
                self.order.popleft()
                continue
            size = self._size(file)
            if self.under_way and self.held + size > AHEAD_BYTES:
                return
            self.order.popleft()
            self.under_way[file] = self.threads.submit(self.files.fetch, file, self.limit)
            self.held += size

    def _size(self, file: str) -> int:
        """The bytes that a file will hold here."""
        try:
            return min(max(self.files.status(file)[0], 0), self.limit)
        except (ValueError, OSError):
            return 0  # `fetch` fails on it the same way, where somebody asks for it

    def take(self, file: str) -> bytes:
        with self.lock:
            coming = self.under_way.pop(file, None)
            self.taken.add(file)
        if coming is None:
            return self.files.fetch(file, self.limit)
        try:
            return coming.result()
        finally:
            with self.lock:
                self.held -= self._size(file)
                self._go_on()


def cached(cache: Path, path: RemotePath) -> Path:
    """Where a cache keeps an object: `<cache>/<bucket>/<key>`; ValueError for a key that could lead elsewhere."""
    parts = [path.bucket if path.scheme == "s3" else f"{path.scheme}+{path.bucket}", *path.key.split("/")]
    if bad := [p for p in parts if p in (".", "..") or not PART.fullmatch(p)]:
        raise ValueError(f"{path}: {bad[0][:60]!r} cannot be a file's name in {cache}; refused")
    return cache.joinpath(*parts)


def keep(cache: Path, place: Path, data: bytes) -> None:
    """Write a file into the cache in one step; ConnectionError, which ends a run, where it cannot be.

    ValueError where a link leads its folder out of the cache.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.parent.resolve().is_relative_to(cache.resolve()):
        raise ValueError(f"{place.parent} leads out of the cache {cache}; remove it")
    part = place.with_name(f".{place.name[:200]}.{os.getpid()}-{threading.get_ident()}")
    try:
        part.unlink(missing_ok=True)
        write_new(part, data)
        move_into_place(part, place)
    except OSError as error:  # the cache's fault, and not the image's
        part.unlink(missing_ok=True)
        raise ConnectionError(
            f"{cache} cannot keep {place.name}: {error.strerror}; give another --cache, or none"
        ) from error
