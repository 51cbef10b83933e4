"""Bundles: how far graphs are from their networks, and milliseconds for an image, on one thread.

    python tools/bench/clinic.py parity [FILE.json]     every model, three sizes, batches 1, 2, 7
    python tools/bench/clinic.py time [FILE.json]       eager, ONNX Runtime, OpenVINO, int8

Times are of the processor, not of the clock, so that a busy machine changes them little; the ways
take their turn.
"""

import json, statistics, sys, time
from pathlib import Path

import torch

from kdmedlearn.clinic.export import example_pixels, Facts, graph_of, parity, Whole
from kdmedlearn.clinic.quantise import in_int8
from kdmedlearn.clinic.run import start
from kdmedlearn.data.phantom import MEAN, STD
from kdmedlearn.evaluation.cost import in_turn
from kdmedlearn.models.registry import create_mask_model, create_model, is_mask_model

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


if __name__ == "__main__":
    what = {"parity": measured_parity, "time": measured_times}[sys.argv[1]]()
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")
