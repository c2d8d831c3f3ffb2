"""One file over a connection that breaks, to a disk that may be full."""

import errno
import os
import random
import shutil
import socket

import pytest

from policy_accel.data.download import download
from policy_accel.errors import UserError

CONTENT = random.Random(0).randbytes(1_000_000)


@pytest.fixture
def part(tmp_path):
    return tmp_path / "some.zip.part"


def test_whole(site, part):
    site.content = CONTENT
    seen = []
    download(site.address, part, progress=lambda done, total: seen.append((done, total)))
    assert part.read_bytes() == CONTENT
    assert seen[-1] == (1_000_000, 1_000_000)
    assert sorted(seen) == seen
    assert len(seen) > 1
    assert len(site.requests) == 1
    assert os.listdir(part.parent) == [part.name]


@pytest.mark.parametrize("seed", range(5))
def test_goes_on_after_cut_connections(site, part, seed):
    site.content = CONTENT
    site.cuts = sorted(random.Random(seed).sample(range(1, 300_000), 3))
    cuts = list(site.cuts)
    seen = []
    download(site.address, part, progress=lambda done, total: seen.append((done, total)))
    assert part.read_bytes() == CONTENT
    begins = [request.get("Range") for request in site.requests]
    assert begins == ["bytes=0-", f"bytes={cuts[0]}-", f"bytes={sum(cuts[:2])}-", f"bytes={sum(cuts)}-"]
    assert all(total == 1_000_000 for _, total in seen)


def test_goes_on_in_another_call(site, part):
    site.content = CONTENT
    site.cuts = [123_457, 0, 0, 0, 0]
    with pytest.raises(UserError) as error:
        download(site.address, part)
    assert f"{site.address}: the connection broke 5 times, last after 123457 bytes" in str(error.value)
    assert "give the same command again to go on" in str(error.value)
    assert part.read_bytes() == CONTENT[:123_457]
    site.requests.clear()
    download(site.address, part)
    assert part.read_bytes() == CONTENT
    assert [request["Range"] for request in site.requests] == ["bytes=123457-"]


def test_server_without_ranges(site, part):
    site.content, site.ranges, site.cuts = CONTENT, False, [400_000]
    download(site.address, part)
    assert part.read_bytes() == CONTENT
    assert len(site.requests) == 2


def test_part_that_is_complete_already(site, part):
    site.content = CONTENT
    part.write_bytes(CONTENT)
    download(site.address, part)
    assert part.read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_part_that_is_longer_than_the_file_starts_again(site, part):
    site.content = CONTENT
    part.write_bytes(CONTENT + b"more")
    download(site.address, part)
    assert part.read_bytes() == CONTENT


def test_not_found(site, part):
    site.status = 404
    with pytest.raises(UserError, match=rf"{site.address}: the server answered HTTP 404 Not Found; check the address"):
        download(site.address, part)
    assert len(site.requests) == 1
    assert os.listdir(part.parent) == []


def test_busy_server_is_asked_again(site, part):
    site.status = 503
    with pytest.raises(UserError, match=r"broke 5 times, last after 0 bytes \(HTTP 503 Service Unavailable\)"):
        download(site.address, part)
    assert len(site.requests) == 5


def test_refused_connection(part, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/some.zip"
        with pytest.raises(UserError, match=rf"{address}: cannot be reached \(.*refused.*\); check the network"):
            download(address, part)


def test_unknown_host(part, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")

    def unknown(*arguments, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match=r"http://example\.invalid/x: cannot be reached \(.*Name or service not known"):
        download("http://example.invalid/x", part)


def test_no_room_for_the_whole_file(site, part, monkeypatch):
    site.content = CONTENT
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 999, 999))
    with pytest.raises(UserError, match=rf"{part}: the disk is full: 1000000 bytes are missing and 999 are free"):
        download(site.address, part)
    assert not part.exists()


def test_disk_that_fills_up(site, part, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    site.content = CONTENT
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"{part}: the disk is full, cannot write it; free some space"):
        download(site.address, part)


def test_folder_that_cannot_be_made(site, tmp_path):
    site.content = CONTENT
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/some\.part: cannot write it, a file stands where a folder"):
        download(site.address, tmp_path / "file/some.part")
