"""Data sets by name: downloaded, compared with their manifest, and put in their place."""

import hashlib
import io
import json
import re
import zipfile

import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.data import Episodes, fetch, read_episodes, shipped_path
from policy_accel.errors import UserError

ACTION = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
ENDS = np.array([5_000, 20_000])


@pytest.fixture
def archive(tmp_path):
    """A download as the original one: a store inside folders of the zip."""
    store = tmp_path / "made.zarr"
    write_zarr(store, Episodes({"action": ACTION}, ENDS))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for file in sorted(store.rglob("*")):
            if file.is_file():
                target.writestr(f"toy/toy_replay.zarr/{file.relative_to(store)}", file.read_bytes())
    return buffer.getvalue()


@pytest.fixture
def get(site, archive, tmp_path):
    """Fetch the toy data set with a manifest of which some fields are changed."""
    site.content = archive

    def get(progress=lambda done, total: None, **changes):
        manifest = {
            "address": site.address,
            "file": "toy.zip",
            "bytes": None,
            "sha256": None,
            "contents": {
                "data/action": hashlib.sha256(ACTION.tobytes()).hexdigest(),
                "meta/episode_ends": hashlib.sha256(ENDS.tobytes()).hexdigest(),
            },
        }
        folder = tmp_path / "manifest"
        folder.mkdir(exist_ok=True)
        (folder / "toy.json").write_text(json.dumps(manifest | changes))
        return fetch("toy", tmp_path / "to", manifest_dir=folder, progress=progress)

    return get


def files(tmp_path):
    return sorted(file.name for file in (tmp_path / "to").iterdir())


def test_download_then_nothing_to_do(get, site, archive, tmp_path):
    seen = []
    result = get(progress=lambda done, total: seen.append((done, total)))
    assert result.path == tmp_path / "to/toy.zip"
    assert result.downloaded
    assert "was downloaded and agrees with every digest" in result.message
    assert seen[-1] == (len(archive), len(archive))
    assert files(tmp_path) == ["toy.zip"]
    np.testing.assert_array_equal(read_episodes(result.path).arrays["action"], ACTION)
    site.requests.clear()
    again = get()
    assert not again.downloaded
    assert "is there already and intact; nothing was downloaded" in again.message
    assert site.requests == []


def test_resumes(get, site, archive, tmp_path):
    half = len(archive) // 2
    site.cuts = [half, 0, 0, 0, 0]
    with pytest.raises(UserError, match=rf"broke 5 times, last after {half} bytes"):
        get()
    assert files(tmp_path) == ["toy.zip.part"]
    site.requests.clear()
    assert get().path.read_bytes() == archive
    assert [request["Range"] for request in site.requests] == [f"bytes={half}-"]
    assert files(tmp_path) == ["toy.zip"]


def test_archive_digests(get, archive):
    assert get(sha256=hashlib.sha256(archive).hexdigest(), bytes=len(archive), contents={}).downloaded


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "0" * 64}, "it has SHA-256 [0-9a-f]{64} instead of 0{64}"),
        ({"md5": "0" * 32}, "it has MD5 [0-9a-f]{32} instead of 0{32}"),
        ({"bytes": 7}, "it has [0-9]+ bytes instead of 7"),
        ({"contents": {"data/action": "0" * 64}}, "it holds another data/action: SHA-256 .* instead of 0{64}"),
        ({"contents": {"data/state": "0" * 64}}, "it cannot be read .*data/state is missing"),
    ],
)
def test_wrong_digest(get, site, archive, tmp_path, changes, words):
    with pytest.raises(UserError) as error:
        get(**changes)
    message = str(error.value)
    assert message.startswith(f"{site.address}: the download does not match toy.json: ")
    assert re.search(words, message)
    assert f"it is kept as {tmp_path}/to/toy.zip.wrong: delete it and give the command again" in message
    assert files(tmp_path) == ["toy.zip.wrong"]
    assert (tmp_path / "to/toy.zip.wrong").read_bytes() == archive


def test_error_page_instead_of_the_archive(get, site, tmp_path):
    site.content = b"<html>sign in</html>"
    with pytest.raises(UserError, match=r"toy\.json: it cannot be read .*begins with b'<htm'.*kept as .*wrong"):
        get()
    assert files(tmp_path) == ["toy.zip.wrong"]


def test_other_file_of_that_name_is_left_alone(get, site, tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "to/toy.zip").write_text("precious")
    with pytest.raises(UserError, match=r"to/toy\.zip: is there already but cannot be read .*move it away"):
        get()
    assert (tmp_path / "to/toy.zip").read_text() == "precious"
    assert site.requests == []


def test_set_that_is_not_found(get, site):
    site.status = 404
    with pytest.raises(UserError, match=rf"{site.address}: the server answered HTTP 404"):
        get()


def test_destination_that_is_a_file(get, tmp_path):
    (tmp_path / "to").touch()
    with pytest.raises(UserError, match=r"to/toy\.zip\.part: cannot write it, a file stands where a folder is needed"):
        get()


@pytest.fixture
def get_two(site, archive, tmp_path):
    """Fetch a set of two files, which the site serves alike."""
    site.content = archive

    def get_two(progress=lambda done, total: None, second=None):
        files = [
            {
                "address": site.address,
                "file": name,
                "bytes": len(archive),
                "sha256": hashlib.sha256(archive).hexdigest(),
                "md5": hashlib.md5(archive).hexdigest(),
            }
            for name in ("one.gz", "two.gz")
        ]
        files[1] |= second or {}
        manifest = {"kind": "images", "folder": "pair", "files": files}
        (tmp_path / "pair.json").write_text(json.dumps(manifest))
        return fetch("pair", tmp_path / "to", manifest_dir=tmp_path, progress=progress)

    return get_two


def test_several_files_go_into_their_folder(get_two, site, archive, tmp_path):
    seen = []
    result = get_two(progress=lambda done, total: seen.append((done, total)))
    assert result.path == tmp_path / "to/pair"
    assert result.downloaded
    assert result.images
    assert sorted(file.name for file in result.path.iterdir()) == ["one.gz", "two.gz"]
    assert all(file.read_bytes() == archive for file in result.path.iterdir())
    assert seen == sorted(seen)
    assert seen[-1] == (2 * len(archive), 2 * len(archive))
    site.requests.clear()
    (result.path / "two.gz").unlink()
    assert get_two().downloaded
    assert len(site.requests) == 1
    again = get_two()
    assert not again.downloaded
    assert "pair is there already and intact; nothing was downloaded" in again.message


def test_second_of_several_files_resumes(get_two, site, archive, tmp_path):
    half = len(archive) // 2
    site.cuts = [len(archive), half, 0, 0, 0, 0]
    with pytest.raises(UserError, match=rf"broke 5 times, last after {half} bytes"):
        get_two()
    site.requests.clear()
    assert (get_two().path / "two.gz").read_bytes() == archive
    assert [request["Range"] for request in site.requests] == [f"bytes={half}-"]


@pytest.mark.parametrize(("kind", "title"), [("sha256", "SHA-256"), ("md5", "MD5")])
def test_wrong_second_file(get_two, tmp_path, kind, title):
    with pytest.raises(
        UserError, match=rf"does not match pair\.json: it has {title} .* instead of 123; .*two\.gz\.wrong"
    ):
        get_two(second={kind: "123"})
    assert sorted(file.name for file in (tmp_path / "to/pair").iterdir()) == ["one.gz", "two.gz.wrong"]


@pytest.mark.parametrize("name", ["ffhq64", "afhqv2_64", "celeba64", "imagenet64", "imagenet256_latents"])
def test_sets_that_must_be_got_by_hand(tmp_path, name):
    with pytest.raises(UserError) as error:
        fetch(name, tmp_path)
    message = str(error.value)
    assert message.startswith(f"'{name}' cannot be downloaded by a program (licence: ")
    assert "task.data" in message
    assert not list(tmp_path.iterdir())


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="there is no data set 'pushT' to fetch; did you mean 'pusht'"):
        fetch("pushT", tmp_path)


def test_real_data_passes_for_the_download(site, shared_data, tmp_path):
    manifest = json.loads(shipped_path("manifest", "pusht.json").read_text())
    (tmp_path / "pusht.json").write_text(json.dumps(manifest | {"address": site.address}))
    site.content = (shared_data / "pusht_v7_u8.zarr.zip").read_bytes()
    site.cuts = [1_234_567]
    result = fetch("pusht", tmp_path / "to", manifest_dir=tmp_path)
    assert len(read_episodes(result.path, ["action"])) == 206
    assert len(site.requests) == 2
