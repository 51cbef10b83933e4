"""Bundles: how far graphs are from their networks, and milliseconds for an image, on one thread.

    python tools/bench/clinic.py parity [FILE.json]     every model, three sizes, batches 1, 2, 7
    python tools/bench/clinic.py time [FILE.json]       eager, ONNX Runtime, OpenVINO, int8
    python tools/bench/clinic.py cost --out docs/results/clinic.json [--epochs 20] [--web DIST]
        accuracy, bytes and milliseconds of a teacher and its students, by every way to ask them

Times of `time` are of the processor, not of the clock, so that a busy machine changes them little;
those of `cost` are of the clock, for a quiet machine. The ways take their turn. `cost` trains the
students on made-up images (some minutes), and asks a page in Chromium where one is installed; DIST
is the folder dist of onnxruntime-web, default: by npm.
"""

import argparse, importlib.metadata, json, os, statistics, sys, tempfile, time
from functools import partial
from pathlib import Path

import torch

from kdmedlearn import distill
from kdmedlearn.clinic.export import example_pixels, export, Facts, facts_of, graph_of, parity
from kdmedlearn.clinic.export import Whole
from kdmedlearn.clinic.page import write_page
from kdmedlearn.clinic.quantise import AsNetwork, best_way, calibration_pixels, in_int8, try_ways
from kdmedlearn.clinic.run import start
from kdmedlearn.core.teacher import norm_of
from kdmedlearn.data.phantom import MEAN, phantom_dls, STD
from kdmedlearn.evaluation.classes import predictions, scores
from kdmedlearn.evaluation.cost import file_bytes, in_turn, n_params
from kdmedlearn.experiments.report import write_json
from kdmedlearn.models.registry import create_mask_model, create_model, is_mask_model
from kdmedlearn.train.teachers import phantom_teacher

SIZES = {
    "guided_student": (64, 128, 224),
    "small_student": (64, 128, 224),
    "small_teacher": (64, 128, 224),
    "hdkd_student_small": (64, 96, 128),
    "hdkd_teacher_small": (64, 96, 128),
    "hdkd_student": (224,),
    "hdkd_teacher": (224,),
    "small_unet": (64, 128, 256),
    "large_unet": (64, 128, 256),
    "polyp_pvt_b0": (96, 224, 352),
}
TIMED = {"guided_student": 64, "pvt_v2_b0": 224, "small_unet": 128}


def whole_of(name: str, size: int) -> Whole:
    "A network with random weights, whose answers differ from image to image, and made-up facts."
    torch.manual_seed(0)
    masks = is_mask_model(name)
    model = create_mask_model(name) if masks else create_model(name, 8, img_size=size)
    for p in model.parameters():
        if p.ndim == 1:
            torch.nn.init.uniform_(p, 0.5, 1.5)
    classes, task = ("ab", "binary masks") if masks else ("abcdefgh", "classes")
    return Whole(model, Facts(classes, size, norm=(MEAN, STD), task=task))


def measured_parity() -> dict:
    found = {}
    for name, sizes in SIZES.items():
        for size in sizes:
            whole = whole_of(name, size)
            graph = graph_of(whole)
            found[f"{name} {size}"] = parity(whole, graph) | {"kB": len(graph) // 1000}
            print(name, size, found[f"{name} {size}"], flush=True)
    return found


def cpu_seconds(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ways_of(name: str, size: int) -> dict:  # name -> a function without arguments
    whole = whole_of(name, size)
    graph, pixels = graph_of(whole), example_pixels(1, whole.facts)
    many = [example_pixels(8, whole.facts, seed=1)]
    x = torch.from_numpy(pixels)
    ways = {"eager": lambda: whole(x)}
    engines = {"onnxruntime": graph, "onnxruntime int8": in_int8(graph, many), "openvino": graph}
    for k, g in engines.items():
        try:
            run = start(g, k.split()[0], threads=1)
        except ImportError:
            continue
        ways[k] = lambda run=run: run(pixels)
    return ways


def measured_times(rounds: int = 40) -> dict:
    torch.set_num_threads(1)
    found = {}
    for name, size in TIMED.items():
        with torch.no_grad():
            times = in_turn(ways_of(name, size), rounds, 5, cpu_seconds)
        found[f"{name} {size}"] = {k: 1000 * statistics.median(v) for k, v in times.items()}
        print(
            name, size, {k: f"{v:.2f} ms" for k, v in found[f"{name} {size}"].items()}, flush=True
        )
    return found


# --- cost: teacher and students, by every way to ask them
STUDENTS = ("small_student", "guided_student")


def networks(dls, epochs: int) -> dict:  # name -> Learner
    "The teacher, and its students, distilled."
    teacher, found = phantom_teacher(), {}
    found["teacher"] = distill(dls, phantom_teacher(), teacher)
    for name in STUDENTS:
        torch.manual_seed(0)
        learn = distill(dls, create_model(name, len(dls.vocab)), teacher, "response")
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, 3e-3)
        found[name] = learn
        print("trained", name, flush=True)
    return found


def timed_in_browser(bundle, web, rounds: int) -> list:  # of milliseconds
    "What a page says that it needed for an image; nothing where there is no browser."
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from lab import ARGS, CHROMIUM
    from playwright.sync_api import sync_playwright

    if not CHROMIUM:
        return []
    page_file = write_page(bundle, Path(bundle).parent / "page.html", web, single=True)
    with sync_playwright() as p, p.chromium.launch(executable_path=CHROMIUM, args=ARGS) as browser:
        page, found = browser.new_page(), []
        page.goto(page_file.as_uri())
        page.wait_for_selector("#test.good", timeout=60_000)
        for _ in range(rounds + 5):
            page.evaluate("window.answer = null")
            page.set_input_files("#file", [])
            page.set_input_files("#file", str(Path(bundle) / "selftest" / "1.png"))
            while not page.evaluate("window.answer"):
                page.wait_for_timeout(5)
            found.append(page.evaluate("window.answer.ms"))
    return found[5:]


def graphs_of(learn, dls) -> dict:  # way -> (engine, graph)
    whole = Whole(learn.model, facts_of(learn))
    graph = graph_of(whole)
    table, small = try_ways(graph, dls, "classes", calibration_pixels(dls))
    int8 = small[best_way(table, 1)]
    return whole, {
        "ONNX Runtime": ("onnxruntime", graph),
        "ONNX Runtime, int8": ("onnxruntime", int8),
        "OpenVINO": ("openvino", graph),
    }


def accuracy_of(network, dls, test) -> float:
    if not isinstance(network, torch.nn.Module):
        network = AsNetwork(network, norm_of(dls), "classes")
    return scores(*predictions(network, test))["accuracy"]


def cost_of(name: str, learn, dls, test, rounds: int, web) -> list:  # of rows
    whole, graphs = graphs_of(learn, dls)
    pixels = example_pixels(1, whole.facts)
    x, ways = torch.from_numpy(pixels), {}
    compiled = torch.compile(whole)
    ways |= {"PyTorch": lambda: whole(x), "torch.compile": lambda: compiled(x)}
    full = accuracy_of(learn.model, dls, test)
    weights = file_bytes(learn.model)
    about = {k: (full, weights) for k in ways}
    for way, (engine, graph) in graphs.items():
        try:
            run = start(graph, engine, threads=1)
        except ImportError:
            continue
        ways[way] = partial(run, pixels)
        about[way] = accuracy_of(run, dls, test), len(graph)
    with torch.no_grad():
        times = in_turn(ways, rounds, 10)
    times = {k: [1000 * v for v in each] for k, each in times.items()}
    with tempfile.TemporaryDirectory() as d:
        bundle = export(learn, Path(d) / "bundle", calibrate=False)
        if in_page := timed_in_browser(bundle, web, rounds):
            # the page has the graph's answers, to 1e-4, as its tests say
            times["browser"], about["browser"] = in_page, about["ONNX Runtime"]
    return [row_of(name, learn, k, times[k], *about[k]) for k in times]


def row_of(name, learn, way, ms: list, accuracy: float, size: int) -> dict:
    low, mid, high = statistics.quantiles(ms, n=4)
    return {
        "network": name,
        "parameters": n_params(learn.model),
        "way": way,
        "accuracy": accuracy,
        "kB": size / 1000,
        "ms": mid,
        "quarters": [low, high],
    }


def measured_cost(words: list):
    p = argparse.ArgumentParser(prog="clinic.py cost")
    p.add_argument("--out", required=True)
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--images", type=int, default=2000, help="to train on")
    p.add_argument("--rounds", type=int, default=100)
    p.add_argument("--web", help="folder dist of onnxruntime-web")
    a = p.parse_args(words)
    torch.set_num_threads(1)
    dls = phantom_dls(n_train=a.images, n_valid=400, size=64, device="cpu", bs=32)
    test = phantom_dls(n_train=8, n_valid=1000, size=64, seed=999, device="cpu").valid
    rows = []
    for name, learn in networks(dls, a.epochs).items():
        rows += cost_of(name, learn, dls, test, a.rounds, a.web)
        print(json.dumps(rows[-1]), flush=True)
    asked = [f"--{k} {v}" for k, v in vars(a).items() if k not in ("out", "web")]
    of = lambda package: importlib.metadata.version(package)
    found = {
        "command": f"python tools/bench/clinic.py cost {' '.join(asked)}",
        "threads": 1,
        "size": 64,
        "test images": len(test.dataset),
        "rounds": a.rounds,
        "versions": {k: of(k) for k in ("torch", "onnxruntime")},
        "load_average": [round(v, 2) for v in os.getloadavg()],
        "cores": os.cpu_count(),
        "rows": rows,
    }
    write_json(a.out, found)


if __name__ == "__main__":
    if sys.argv[1] == "cost":
        sys.exit(measured_cost(sys.argv[2:]))
    what = {"parity": measured_parity, "time": measured_times}[sys.argv[1]]()
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")
