"""The clinic's page in Chromium: answers as in Python, no other host, also without a network."""

import base64
import io
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kdmedlearn.cli import app
from kdmedlearn.clinic.bundle import Bundle, seal
from kdmedlearn.clinic.export import export, Facts
from kdmedlearn.clinic.page import checked_web, fetch_web, packed, WEB_FILES, write_page
from kdmedlearn.clinic.predict import why_not
from kdmedlearn.clinic.run import Predictor
from kdmedlearn.data.phantom import MEAN, phantom, STD
from kdmedlearn.models.registry import create_mask_model, create_model
from lab import ARGS, CHROMIUM, NO_CHROMIUM

pytestmark = pytest.mark.browser


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    "The files of onnxruntime-web: from KDMEDLEARN_ORT_WEB, or fetched by npm."
    if at := os.environ.get("KDMEDLEARN_ORT_WEB"):
        checked_web(at)
        return at
    try:
        found = fetch_web()
    except Exception as e:
        pytest.skip(f"onnxruntime-web cannot be fetched: {type(e).__name__}")
    folder = tmp_path_factory.mktemp("web")
    for name in WEB_FILES:
        (folder / name).write_bytes(found[name])
    return folder


@pytest.fixture(scope="module")
def browser(lab):
    return lab.browser  # a second Playwright in one process is refused


def served(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


def lively(model):
    torch.manual_seed(0)
    for p in model.parameters():
        if p.ndim == 1:
            torch.nn.init.uniform_(p, 0.5, 1.5)
    return model.eval()


CASES = {
    "guided_student": Facts(["<img src=x onerror=alert(1)>", "b", "c"], 64, norm=(MEAN, STD)),
    "small_unet": Facts(["background", "polyp"], 64, norm=(MEAN, STD), task="binary masks"),
}


DROP = """([data, name]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const dragged = new DataTransfer();
    dragged.items.add(new File([bytes], name));
    const how = { dataTransfer: dragged, bubbles: true, cancelable: true };
    const drop = document.getElementById("drop");
    drop.dispatchEvent(new DragEvent("dragover", how));
    window.answer = null;
    return [drop.className, drop.dispatchEvent(new DragEvent("drop", how)), drop.className];
}"""


def dropped(page, file):
    "What dropping a file on the page does with the event; the answer comes later."
    data = base64.b64encode(Path(file).read_bytes()).decode()
    assert page.evaluate(DROP, [data, Path(file).name]) == ["over", False, ""]


def chosen(page, file):
    page.evaluate("window.answer = null")
    page.set_input_files("#file", [])
    page.set_input_files("#file", str(file))


def answered(page):
    while not page.evaluate("window.answer"):  # its policy forbids `wait_for_function`
        page.wait_for_timeout(20)
    return page.evaluate("window.answer")


def opened(browser, address, size=390):
    "A page whose self-test is done; what it asks for, and what goes wrong."
    page = browser.new_page(viewport=dict(width=size, height=800), color_scheme="dark")
    asked, troubles = [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: troubles.append(str(e)))
    page.on("dialog", lambda d: troubles.append(d.message))
    page.goto(address)
    page.wait_for_selector("#test.good, #test.bad", timeout=60_000)
    return page, asked, troubles


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory):
    "A copy of a bundle in a folder; each is exported once."
    home = tmp_path_factory.mktemp("bundles")

    def copied(name, folder):
        facts = CASES[name]
        if not (home / name).exists():
            model = create_mask_model(name) if facts.masks else create_model(name, 3)
            export(lively(model), home / name, facts)
        return shutil.copytree(home / name, folder / "bundle")

    return copied


@pytest.mark.parametrize("single", [False, True], ids=["folder", "file"])
@pytest.mark.parametrize("name", CASES)
def test_the_page_answers_as_python_does(name, single, web, browser, bundle_of, tmp_path):
    bundle = bundle_of(name, tmp_path)
    (x,), _ = phantom(1, 150, seed=4)
    Image.fromarray(x[:, :101]).save(tmp_path / "image.png")
    made = write_page(bundle, tmp_path / ("page.html" if single else "page"), web, single)
    server, address = (None, made.as_uri()) if single else served(made)
    page, asked, troubles = opened(browser, address)
    assert page.locator("#test.good").count(), page.inner_text("#test")
    if server:
        server.shutdown()  # from here on there is no network
    (known,) = Predictor(bundle)([tmp_path / "image.png"])
    for bring in (chosen, chosen, dropped):
        bring(page, tmp_path / "image.png")
        got = answered(page)
        assert np.abs(np.array(got["values"]) - known.values).max() < 1e-4
    print(f"{name}: {got['ms']:.0f} ms")
    (tmp_path / "note.txt").write_text("no image")
    dropped(page, tmp_path / "note.txt")
    while "could not be read" not in page.inner_text("#said"):
        page.wait_for_timeout(20)
    assert page.inner_text("#answer") == "" and page.url == address
    assert all(u.startswith((address, "blob:")) for u in asked) and not troubles
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.activeElement") is not None
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") != ""
    if single:  # the card is in the file, too
        with page.expect_popup() as card:
            page.click("#card")
        assert "Not a medical device" in card.value.inner_text("body")
        card.value.close()
    page.close()


def said_of(page, file):
    "What the page says of a file that it refuses."
    page.evaluate("document.getElementById('said').textContent = ''")
    chosen(page, file)
    while not (said := page.inner_text("#said")):
        page.wait_for_timeout(20)
    return said


def test_what_python_refuses_the_page_refuses(web, browser, bundle_of, tmp_path):
    "More than 8 bits, films, and 8 bits where the student was trained on more."
    bundle = bundle_of("guided_student", tmp_path)
    xs = phantom(2, 80, seed=4)[0]
    first, second = map(Image.fromarray, xs)
    first.save(tmp_path / "image.png")
    for name in ("film.gif", "film.png", "film.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
    first.save(tmp_path / "one.gif")
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 99
    Image.fromarray(deep).save(tmp_path / "deep.png")
    made = write_page(bundle, tmp_path / "page.html", web, True)
    page, _, troubles = opened(browser, made.as_uri())
    for name in ("film.gif", "film.png", "film.webp", "deep.png"):
        with pytest.raises(ValueError) as e:
            Predictor(bundle, test=False).open(tmp_path / name)
        words = why_not(e.value).replace(", values 0 to 6237", "")
        assert said_of(page, tmp_path / name) == f"This could not be read: {words}"
    for name in ("image.png", "one.gif"):
        chosen(page, tmp_path / name)
        assert answered(page)
    page.close()
    m = Bundle(bundle).manifest
    seal(bundle, m | {"window": [0, 4095]}, m["files"])
    made = write_page(bundle, tmp_path / "deep.html", web, True)
    page, _, more = opened(browser, made.as_uri())
    with pytest.raises(ValueError) as e:
        Predictor(bundle, test=False).open(tmp_path / "image.png")
    assert said_of(page, tmp_path / "image.png").endswith(why_not(e.value))
    assert "a browser shows 8 of them" in said_of(page, tmp_path / "deep.png")
    assert page.locator("#camera").is_disabled()
    page.click("#samples button")  # an image of the bundle is known
    assert answered(page) and not troubles + more
    page.close()


@pytest.fixture(scope="module")
def camera(lab):
    "A browser with a camera that shows made-up images, and asks nobody."
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    found = lab.playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS + fake)
    yield found
    found.close()


@pytest.mark.parametrize("single", [False, True], ids=["folder", "file"])
def test_the_camera_is_answered_image_by_image(single, web, camera, bundle_of, tmp_path):
    bundle = bundle_of("guided_student", tmp_path)
    made = write_page(bundle, tmp_path / ("page.html" if single else "page"), web, single)
    server, address = (None, made.as_uri()) if single else served(made)
    page, asked, troubles = opened(camera, address)
    page.click("#camera")
    for _ in range(3):  # the fake one moves
        page.evaluate("window.answer = null")
        answered(page)
    assert page.inner_text("#camera") == "Stop"
    page.click("#camera")
    page.wait_for_timeout(300)
    assert page.inner_text("#camera") == "Camera"
    seen = page.evaluate("[window.answer, document.getElementById('view').toDataURL()]")
    page.wait_for_timeout(200)
    assert page.evaluate("document.getElementById('view').toDataURL()") == seen[1]  # it has stopped
    image = Image.open(io.BytesIO(base64.b64decode(seen[1].split(",")[1]))).convert("RGB")
    (known,) = Predictor(bundle)([np.asarray(image)])
    assert min(image.size) > 100 and np.asarray(image).std() > 10
    assert np.abs(np.array(seen[0]["values"]) - known.values).max() < 1e-4
    page.click("#camera")
    page.evaluate("window.answer = null")
    answered(page)
    image.crop((0, 0, 60, 80)).save(tmp_path / "image.png")  # a file takes the camera's place
    dropped(page, tmp_path / "image.png")
    page.wait_for_timeout(500)
    assert page.inner_text("#camera") == "Camera"
    assert page.evaluate("document.getElementById('view').width") == 60
    assert all(u.startswith((address, "blob:")) for u in asked) and not troubles
    page.close()
    if server:
        server.shutdown()


def test_without_a_camera_the_page_says_so(web, browser, bundle_of, tmp_path):
    words = ["page", str(bundle_of("guided_student", tmp_path)), "--single", "--web", str(web)]
    assert CliRunner().invoke(app, words).exit_code == 0
    made = tmp_path / "bundle-page.html"
    assert made.stat().st_size < 6_000_000
    page, _, troubles = opened(browser, made.as_uri())
    page.click("#camera")
    while "No camera" not in page.inner_text("#said"):
        page.wait_for_timeout(20)
    assert page.inner_text("#camera") == "Camera" and not troubles
    page.close()


def test_a_changed_network_in_one_file_is_not_run(web, browser, bundle_of, tmp_path):
    made = write_page(bundle_of("small_unet", tmp_path), tmp_path / "page.html", web, True)
    text = made.read_text()
    graph = (tmp_path / "bundle" / "model.onnx").read_bytes()
    changed = bytearray(graph)
    changed[len(graph) // 2] ^= 1
    assert packed(graph) in text
    made.write_text(text.replace(packed(graph), packed(bytes(changed))))
    page, _, _ = opened(browser, made.as_uri())
    assert "not the file that was written" in page.inner_text("#test.bad")
    assert page.locator("#file").is_disabled()
    made.write_text(text.replace("const COLOURS", "alert(1); const COLOURS"))
    page.goto(made.as_uri())  # its program is not the one that its policy names
    page.wait_for_timeout(500)
    assert "Loading" in page.inner_text("#test")
    page.close()


def test_the_folder_as_a_file_tells_the_way_out(web, browser, bundle_of, tmp_path):
    made = write_page(bundle_of("small_unet", tmp_path), tmp_path / "page", web)
    page = browser.new_page()
    page.goto((made / "index.html").as_uri())
    page.wait_for_timeout(500)
    assert "Serve it: python -m http.server" in page.inner_text("#test")
    page.close()


def test_a_changed_network_is_not_run_by_the_page(web, browser, tmp_path):
    facts = CASES["small_unet"]
    bundle = export(lively(create_mask_model("small_unet")), tmp_path / "bundle", facts)
    made = write_page(bundle, tmp_path / "page", web)
    data = bytearray((made / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (made / "model.onnx").write_bytes(data)
    server, address = served(made)
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#test.bad", timeout=60_000)
    assert "not the file that was written" in page.inner_text("#test")
    assert page.locator("#file").is_disabled()
    page.close()
    server.shutdown()
