"""The clinic's page in Chromium: answers as in Python, no other host, also without a network."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdmedlearn.clinic.export import export, Facts
from kdmedlearn.clinic.page import checked_web, fetch_web, WEB_FILES, write_page
from kdmedlearn.clinic.run import Predictor
from kdmedlearn.data.phantom import MEAN, phantom, STD
from kdmedlearn.models.registry import create_mask_model, create_model
from lab import CHROMIUM, NO_CHROMIUM

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


@pytest.mark.parametrize("name", CASES)
def test_the_page_answers_as_python_does(name, web, browser, tmp_path):
    facts = CASES[name]
    model = create_mask_model(name) if facts.masks else create_model(name, 3)
    bundle = export(lively(model), tmp_path / "bundle", facts)
    (x,), _ = phantom(1, 150, seed=4)
    Image.fromarray(x[:, :101]).save(tmp_path / "image.png")
    server, address = served(write_page(bundle, tmp_path / "page", web))
    page = browser.new_page(viewport=dict(width=390, height=800), color_scheme="dark")
    asked, troubles = [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: troubles.append(str(e)))
    page.on("dialog", lambda d: troubles.append(d.message))
    page.goto(address)
    page.wait_for_selector("#test.good, #test.bad", timeout=60_000)
    assert page.locator("#test.good").count(), page.inner_text("#test")
    server.shutdown()  # from here on there is no network
    for _ in range(3):
        page.evaluate("window.answer = null")
        page.set_input_files("#file", [])
        page.set_input_files("#file", str(tmp_path / "image.png"))
        while not page.evaluate("window.answer"):  # its policy forbids `wait_for_function`
            page.wait_for_timeout(20)
    got = page.evaluate("window.answer")
    (known,) = Predictor(bundle)([tmp_path / "image.png"])
    assert np.abs(np.array(got["values"]) - known.values).max() < 1e-4
    print(f"{name}: {got['ms']:.0f} ms")
    assert all(u.startswith((address, "blob:")) for u in asked) and not troubles
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.activeElement") is not None
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") != ""
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
