"""Downloads that go on where they stopped, against a server on this machine; archives that cannot
write outside."""

import hashlib
import stat
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from kdmedlearn.data import download as module
from kdmedlearn.data.download import download, unpack, verify

BODY = np.random.default_rng(0).bytes(400_000)
SHA = hashlib.sha256(BODY).hexdigest()


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # as chunks need

    def do_GET(self):
        s = self.server
        s.asked.append((self.headers["Range"], self.headers["If-Range"]))
        if s.codes:
            self.send_error(s.codes.pop(0))
            return
        asked = (
            self.headers["Range"]
            if s.ranges and self.headers["If-Range"] in (None, s.tag)
            else None
        )
        start = int(asked[6:-1]) if asked else 0
        if start >= len(s.body):
            self.send_error(416)
            return
        rest = s.body[start:]
        self.send_response(206 if asked else 200)
        if s.tag:
            self.send_header(s.tag_name, s.tag)
        if s.length:
            self.send_header("Content-Length", str(len(rest)))
        if s.kind:
            self.send_header("Content-Type", s.kind)
        if s.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        if asked:
            self.send_header(
                "Content-Range", f"bytes {start + s.off}-{len(s.body) - 1}/{len(s.body)}"
            )
        self.send_header("Connection", "close")
        self.end_headers()
        if s.chunked:
            rest = (
                b"".join(
                    b"%x\r\n%s\r\n" % (len(c), c)
                    for c in (rest[i : i + 65536] for i in range(0, len(rest), 65536))
                )
                + b"0\r\n\r\n"
            )
        self.wfile.write(rest[: s.cuts.pop(0)] if s.cuts else rest)

    def log_message(self, *a):
        pass


@pytest.fixture
def shop(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    s = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    s.body, s.tag, s.tag_name, s.ranges, s.length, s.cuts, s.codes, s.asked, s.off = (
        BODY,
        '"v1"',
        "ETag",
        True,
        True,
        [],
        [],
        [],
        0,
    )
    s.kind, s.chunked = "application/zip", False
    s.url = f"http://127.0.0.1:{s.server_port}/set.zip"
    threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()


def fetch(shop, to, sha256=SHA, **kw):
    return download(shop.url, to, sha256, **dict(wait=0.001, bar=False) | kw)


def left(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def test_download(shop, tmp_path, capsys):
    f = fetch(shop, tmp_path)
    assert (
        f == tmp_path / "set.zip"
        and f.read_bytes() == BODY
        and left(tmp_path) == ["set.zip"]
        and capsys.readouterr().out == ""
    )
    assert (
        fetch(
            shop,
            tmp_path / "new" / "a.zip",
            None,
            md5=hashlib.md5(BODY).hexdigest(),
            size=len(BODY),
            bar=True,
        ).read_bytes()
        == BODY
    )
    capsys.readouterr()
    fetch(shop, tmp_path / "b.zip", None)
    assert f"400000 bytes, sha256 {SHA}" in capsys.readouterr().out


def test_interrupted_in_one_call(shop, tmp_path):
    shop.cuts = [
        100_000,
        50_000,
        0,
        0,
        200_000,
        0,
        0,
    ]  # a byte more sets the number of attempts back
    assert fetch(shop, tmp_path, tries=4).read_bytes() == BODY
    assert [a for a, _ in shop.asked] == [
        None,
        "bytes=100000-",
        *["bytes=150000-"] * 3,
        *["bytes=350000-"] * 3,
    ]
    assert {b for a, b in shop.asked if a} == {'"v1"'} and left(tmp_path) == ["set.zip"]


def test_interrupted_and_called_again(shop, tmp_path):
    shop.cuts = [100_000]
    with pytest.raises(
        ConnectionError,
        match=(
            "the connection broke after 100000 of 400000 bytes; what has arrived is kept in"
            " set.zip.part: call again"
        ),
    ):
        fetch(shop, tmp_path, tries=1)
    assert left(tmp_path) == ["set.zip.part", "set.zip.part.json"]
    assert fetch(shop, tmp_path).read_bytes() == BODY and shop.asked[-1] == (
        "bytes=100000-",
        '"v1"',
    )


@pytest.mark.parametrize(
    "change", [dict(tag='"v2"'), dict(tag='"v2"', body=BODY[:90_000]), dict(ranges=False)]
)
def test_resumed_after_a_changed_file_or_without_ranges(shop, tmp_path, change):
    shop.cuts = [100_000]
    with pytest.raises(ConnectionError):
        fetch(shop, tmp_path, tries=1)
    for k, v in {"body": bytes(reversed(BODY)), **change}.items():
        setattr(shop, k, v)
    assert fetch(shop, tmp_path, hashlib.sha256(shop.body).hexdigest()).read_bytes() == shop.body


def test_no_tag_no_resume(shop, tmp_path):
    shop.cuts, shop.tag = [100_000], ""
    with pytest.raises(ConnectionError):
        fetch(shop, tmp_path, tries=1)
    assert fetch(shop, tmp_path).read_bytes() == BODY and shop.asked[-1] == (None, None)


@pytest.mark.parametrize(
    "tag, name", [("Mon, 01 Jan 2024 00:00:00 GMT", "Last-Modified"), ('W/"x"', "ETag")]
)
def test_a_date_is_a_tag_and_a_weak_tag_is_none(shop, tmp_path, tag, name):
    shop.cuts, shop.tag, shop.tag_name = [100_000], tag, name
    with pytest.raises(ConnectionError):
        fetch(shop, tmp_path, tries=1)
    fetch(shop, tmp_path)
    assert shop.asked[-1] == (("bytes=100000-", tag) if name == "Last-Modified" else (None, None))


def test_a_server_that_sends_another_part(shop, tmp_path):
    shop.cuts, shop.off = [100_000], 7
    assert fetch(shop, tmp_path).read_bytes() == BODY and [a for a, _ in shop.asked] == [
        None,
        "bytes=100000-",
        None,
    ]


def test_more_than_the_server_has(shop, tmp_path):
    shop.cuts = [100_000]
    with pytest.raises(ConnectionError):
        fetch(shop, tmp_path, tries=1)
    shop.body = BODY[:60_000]  # shorter, under the same tag: 416
    assert fetch(shop, tmp_path, hashlib.sha256(shop.body).hexdigest()).read_bytes() == shop.body


def test_a_part_that_is_complete_needs_no_request(shop, tmp_path, monkeypatch):
    def killed(*a):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(module, "verify", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(shop, tmp_path)
    assert left(tmp_path) == ["set.zip.part", "set.zip.part.json"]
    assert fetch(shop, tmp_path).read_bytes() == BODY and len(shop.asked) == 1


def test_another_address_does_not_go_on(shop, tmp_path):
    shop.cuts = [100_000]
    with pytest.raises(ConnectionError):
        fetch(shop, tmp_path, tries=1)
    assert (
        download(shop.url + "?copy", tmp_path / "set.zip", SHA, bar=False).read_bytes() == BODY
        and shop.asked[-1][0] is None
    )


@pytest.mark.parametrize(
    "kw, says",
    [
        (dict(sha256="0" * 64), f"set.zip has sha256 {SHA}, expected 000"),
        (dict(md5="0" * 32), "set.zip has md5"),
    ],
)
def test_a_wrong_checksum_leaves_nothing(shop, tmp_path, kw, says):
    with pytest.raises(ValueError, match=says):
        fetch(shop, tmp_path, **kw)
    assert left(tmp_path) == []


def test_a_wrong_size_is_seen_before_the_download(shop, tmp_path):
    with pytest.raises(ValueError, match="has 400000 bytes, expected 5; has the set changed"):
        fetch(shop, tmp_path, size=5)
    assert not (tmp_path / "set.zip").exists() and not (tmp_path / "set.zip.part").exists()
    shop.length = False  # where the server does not say: afterwards
    with pytest.raises(ValueError, match="set.zip has 400000 bytes, expected 5: damaged"):
        fetch(shop, tmp_path, size=5)
    assert left(tmp_path) == []
    assert fetch(shop, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "application/xhtml+xml"])
def test_a_web_page_in_the_place_of_an_archive_is_refused(shop, tmp_path, kind):
    shop.body, shop.kind = b"<html>please log in</html>", kind
    for sha in (None, SHA):
        with pytest.raises(
            ValueError,
            match="is answered with a web page .*does the host ask for a login, or for terms",
        ):
            fetch(shop, tmp_path, sha)
    assert left(tmp_path) == [] and len(shop.asked) == 2  # not tried again
    assert fetch(shop, tmp_path / "page.html", None).read_bytes() == shop.body  # asked for as such
    assert (
        download(
            shop.url.replace("set.zip", "terms.HTM?a=1"), tmp_path / "b", bar=False
        ).read_bytes()
        == shop.body
    )


def test_a_web_page_leaves_what_has_arrived(shop, tmp_path):
    shop.cuts = [100_000]
    with pytest.raises(ConnectionError):
        fetch(shop, tmp_path, tries=1)
    shop.kind, shop.ranges = "text/html", False
    with pytest.raises(ValueError, match="web page"):
        fetch(shop, tmp_path)
    shop.kind, shop.ranges = "application/zip", True
    assert fetch(shop, tmp_path).read_bytes() == BODY and shop.asked[-1][0] == "bytes=100000-"


def test_neither_length_nor_checksum_is_warned_about(shop, tmp_path, recwarn):
    shop.length, shop.cuts = False, [1000]
    with pytest.warns(
        UserWarning,
        match="a.zip: the server named no length and no checksum was given, so it may be cut short",
    ):
        fetch(shop, tmp_path / "a.zip", None)
    assert (tmp_path / "a.zip").stat().st_size == 1000
    shop.cuts = [1000]
    with pytest.raises(ValueError, match="has 1000 bytes, expected 400000"):
        fetch(shop, tmp_path / "b.zip", None, size=len(BODY))
    recwarn.clear()
    fetch(shop, tmp_path / "c.zip")
    fetch(shop, tmp_path / "d.zip", None, size=len(BODY))
    fetch(shop, tmp_path / "e.zip", None, md5=hashlib.md5(BODY).hexdigest())
    shop.length = True
    fetch(shop, tmp_path / "f.zip", None)
    assert not recwarn.list


# a broken connection is seen without a length, too
def test_chunks_have_an_end(shop, tmp_path, recwarn):
    shop.length, shop.chunked, shop.cuts = False, True, [100_000]
    with pytest.raises(ConnectionError, match="call again"):
        fetch(shop, tmp_path, None, tries=1)
    assert not (tmp_path / "set.zip").exists()
    assert fetch(shop, tmp_path, None).read_bytes() == BODY and not recwarn.list


def test_a_file_that_is_there(shop, tmp_path):
    f = tmp_path / "set.zip"
    f.write_text("mine")
    with pytest.raises(
        ValueError, match="is there, but it is another file.*remove it and call again"
    ):
        fetch(shop, f)
    assert f.read_text() == "mine" and not shop.asked
    assert fetch(shop, f, None) == f and not shop.asked  # nothing known to compare with


@pytest.mark.parametrize(
    "code, says",
    [
        (404, "HTTP 404 .*has the set moved"),
        (403, "HTTP 403 .*terms to accept"),
        (401, "asks for a login"),
        (410, "look at the page"),
    ],
)
def test_errors_that_stay_are_not_tried_again(shop, tmp_path, code, says):
    shop.codes = [code] * 9
    with pytest.raises(ConnectionError, match=says):
        fetch(shop, tmp_path)
    assert len(shop.asked) == 1 and left(tmp_path) == []


def test_errors_that_pass_are_tried_again(shop, tmp_path):
    shop.codes = [503, 500, 429]
    assert fetch(shop, tmp_path, tries=4).read_bytes() == BODY
    shop.codes = [503] * 9
    with pytest.raises(ConnectionError, match="HTTP 503 .*try again later"):
        fetch(shop, tmp_path / "b", tries=2)


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConnectionError, match="is this machine online"):
        download("http://127.0.0.1:9/x.zip", tmp_path, tries=2, wait=0.001, bar=False)


def test_certificates_and_disks(shop, tmp_path, monkeypatch):
    import ssl
    from urllib.error import URLError

    e = ssl.SSLCertVerificationError("bad")
    e.verify_message = "certificate has expired"
    tried = []

    def bad(*a, **kw):
        tried.append(1)
        raise URLError(e)

    with monkeypatch.context() as m:
        m.setattr(module.urllib.request, "urlopen", bad)
        with pytest.raises(
            ConnectionError,
            match="certificate of .* cannot be verified .certificate has expired.; update .*unpack",
        ):
            fetch(shop, tmp_path)
    assert len(tried) == 1
    with monkeypatch.context() as m:
        m.setattr(module.shutil, "disk_usage", lambda p: type("D", (), {"free": 1000})())
        with pytest.raises(OSError, match="GB left, 0.0004 are needed; make room"):
            fetch(shop, tmp_path)
    with monkeypatch.context() as m:

        def full(*a):
            raise OSError(28, "No space left on device")

        m.setattr(module, "_attempt", full)
        with pytest.raises(OSError, match="is full; make room and call again"):
            fetch(shop, tmp_path)
    with monkeypatch.context() as m:

        def denied(*a):
            raise PermissionError(13, "Permission denied")

        m.setattr(module, "_attempt", denied)
        with pytest.raises(PermissionError, match="cannot write in .*choose a folder of your own"):
            fetch(shop, tmp_path)


@pytest.mark.parametrize(
    "url, to, kw, says",
    [
        ("file:///etc/hosts", "x", {}, "begins with https"),
        ("set.zip", "x", {}, "begins with https"),
        ("http://127.0.0.1/", ".", {}, "names no file"),
        ("http://127.0.0.1/a", "x", dict(tries=0), "tries=0"),
    ],
)
def test_addresses_and_options(url, to, kw, says):
    with pytest.raises(ValueError, match=says):
        download(url, to, **kw)


# archives


def zipped(path, *members):
    with zipfile.ZipFile(path, "w") as z:
        for m in members:
            z.writestr(m, "text" * 100)
    return path


def test_unpack(tmp_path):
    a = zipped(tmp_path / "a.zip", "set/x/1.txt", "set/2.txt", "__MACOSX/set/._1.txt")
    assert unpack(a, tmp_path / "to") == tmp_path / "to" / "set"
    assert sorted(
        p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*")
    ) == ["set", "set/2.txt", "set/x", "set/x/1.txt"]
    with pytest.raises(FileExistsError, match="has set already"):
        unpack(a, tmp_path / "to")
    assert (
        unpack(zipped(tmp_path / "b.zip", "1.txt", "2.txt"), tmp_path / "to") == tmp_path / "to"
        and (tmp_path / "to" / "2.txt").exists()
    )


@pytest.mark.parametrize(
    "name",
    [
        "../out.txt",
        "set/../../out.txt",
        "/out.txt",
        "..\\out.txt",
        "C:\\out.txt",
        "C:out.txt",
        "./../x",
    ],
)
def test_what_leads_outside_is_refused_before_anything_is_written(tmp_path, name):
    a = zipped(tmp_path / "a.zip", "set/1.txt", name)
    with pytest.raises(ValueError, match="do not trust this archive"):
        unpack(a, tmp_path / "deep" / "to")
    assert left(tmp_path) == ["a.zip"]


def test_odd_names_that_stay_inside_are_unpacked(tmp_path):
    a = zipped(
        tmp_path / "a.zip", "./", "./set/1.txt", "set/10:30.txt", "./set/./x/2.txt", "set/..3"
    )
    assert unpack(a, tmp_path / "to") == tmp_path / "to" / "set"
    assert sorted(p.name for p in (tmp_path / "to").rglob("*") if p.is_file()) == [
        "..3",
        "1.txt",
        "10:30.txt",
        "2.txt",
    ]
    with pytest.raises(FileExistsError, match="has set already"):
        unpack(a, tmp_path / "to")


def test_links_web_pages_and_damage_are_refused(tmp_path):
    link = zipfile.ZipInfo("set/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ValueError, match="holds a link, 'set/link'"):
        unpack(zipped(tmp_path / "l.zip", "set/1.txt", link), tmp_path / "to")
    (tmp_path / "page.zip").write_text("<html>please log in</html>")
    with pytest.raises(ValueError, match="no complete zip file.*a web page"):
        unpack(tmp_path / "page.zip", tmp_path / "to")
    with pytest.raises(FileNotFoundError, match="no archive"):
        unpack(tmp_path / "none.zip", tmp_path / "to")
    assert not (tmp_path / "to").exists()
    bad = bytearray(zipped(tmp_path / "d.zip", "set/1.txt").read_bytes())
    bad[60] ^= 255
    (tmp_path / "d.zip").write_bytes(bad)
    with pytest.raises(ValueError, match="is damaged"):
        unpack(tmp_path / "d.zip", tmp_path / "to")
    assert left(tmp_path / "to") == []


def test_verify(tmp_path):
    f = tmp_path / "a.zip"
    f.write_bytes(BODY)
    verify(f)
    verify(f, SHA.upper(), hashlib.md5(BODY).hexdigest(), len(BODY))
    for kw, says in (
        (dict(size=5), "has 400000 bytes, expected 5"),
        (dict(md5="0"), "has md5 .*, expected 0"),
        (dict(sha256=SHA[:-1]), "has sha256"),
    ):
        with pytest.raises(ValueError, match=says):
            verify(f, **kw)


def test_plain_python():
    code = (
        "import sys, kdmedlearn.data.download; assert not {'torch', 'fastai', 'pandas'} &"
        " set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
