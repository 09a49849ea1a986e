"""Files of this machine: what is read, what is refused, and what they are called."""

import os
from pathlib import Path

import pytest

from jumpgpu.storage import local
from jumpgpu.storage.local import Local, read_whole


@pytest.fixture
def files(tmp_path: Path) -> Local:
    (tmp_path / "plate" / "Images").mkdir(parents=True)
    (tmp_path / "plate" / "Images" / "a.tiff").write_bytes(b"pixels")
    (tmp_path / "outside.tiff").write_bytes(b"secret")
    return Local(tmp_path / "plate", (tmp_path.resolve() / "plate",))


def name(files: Local, text: str) -> str:
    return str(files.folder / "Images" / text)


@pytest.fixture(params=["asked about the open file", "its name is resolved"])
def way(request, monkeypatch):
    """With the system's word for where an open file is, and without."""
    if request.param == "its name is resolved":
        read = os.readlink

        def absent(path, **more):
            if str(path).startswith("/proc/"):
                raise FileNotFoundError(path)
            return read(path, **more)

        monkeypatch.setattr(os, "readlink", absent)


@pytest.mark.usefixtures("way")
def test_a_file_and_its_status(files):
    data, status = files.read_with_status(name(files, "a.tiff"), 6)
    assert data == b"pixels"
    assert status == files.status(name(files, "a.tiff"))
    with pytest.raises(ValueError, match="6 bytes, more than 5 for an image of this size"):
        files.read(name(files, "a.tiff"), 5)


@pytest.mark.usefixtures("way")
def test_a_link_within_the_roots_is_followed_and_one_out_of_them_is_not(files):
    Path(name(files, "b.tiff")).symlink_to("a.tiff")
    assert files.read(name(files, "b.tiff"), 10) == b"pixels"
    for target in ("../../outside.tiff", "../../absent.tiff"):
        Path(name(files, "c.tiff")).unlink(missing_ok=True)
        Path(name(files, "c.tiff")).symlink_to(target)
        with pytest.raises(ValueError, match="a symlink leads outside the images root"):
            files.read(name(files, "c.tiff"), 10)
    Path(files.folder / "linked").symlink_to(files.folder.parent)  # a folder that leads out
    with pytest.raises(ValueError, match="a symlink leads outside the images root"):
        files.read(str(files.folder / "linked" / "outside.tiff"), 10)
    (files.folder.parent / "plate2").mkdir()  # begins as the root does
    (files.folder.parent / "plate2" / "a.tiff").write_bytes(b"other")
    with pytest.raises(ValueError, match="a symlink leads outside the images root"):
        files.read(str(files.folder.parent / "plate2" / "a.tiff"), 10)


@pytest.mark.usefixtures("way")
def test_what_is_no_file_is_refused_and_nothing_stays_open(files):
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    os.mkfifo(name(files, "pipe"))
    with pytest.raises(ValueError, match="pipe: not a regular file"):
        files.read(name(files, "pipe"), 10)
    with pytest.raises(IsADirectoryError):
        files.read(str(files.folder / "Images"), 10)
    with pytest.raises(FileNotFoundError):
        files.read(name(files, "absent.tiff"), 10)
    assert files.status(name(files, "absent.tiff")) == local.ABSENT
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


def test_a_file_that_comes_in_pieces_or_ends_early_is_read_to_its_end(files, monkeypatch):
    descriptor, read = os.open(name(files, "a.tiff"), os.O_RDONLY), os.read
    try:
        monkeypatch.setattr(os, "read", lambda d, n: read(d, min(n, 4)))
        assert read_whole(descriptor, 6) == b"pixels"
        os.lseek(descriptor, 0, 0)
        assert read_whole(descriptor, 99) == b"pixels"
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "file", ["Images/a.tiff", "Images/../a.tiff", "Images//a.tiff", "./Images/a.tiff", "../other/a.tiff", ".hidden/a.tiff"]
)
def test_a_name_from_the_plates_folder_on_is_what_os_path_says(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("/images/plate", "images/plate", "."):
        path = f"{folder}/{file}"
        assert Local(Path(folder), ()).relative(path) == os.path.relpath(path, folder)
