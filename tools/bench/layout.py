"""What the order of a grey image in memory does to a training step of the package's networks.

    python tools/bench/layout.py

The same step, forward, backward and optimizer, in turn in one run: with the images as they come,
plane by plane, and with the strides of `channels_last_images`. Ratios under 1 are what it saves.
"""

import warnings

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", category=FutureWarning)
from kdmedlearn.evaluation.cost import in_turn, ratio
from kdmedlearn.models import guided, hdkd, small, unet
from kdmedlearn.models.registry import create_mask_model, create_model, is_mask_model
from timing import arguments

NAMES = ("small_student", "small_teacher", "guided_student", "small_unet", "hdkd_student_small")
a = arguments(__doc__, bs=32, size=64, repeats=15)
ways = {"channels last": small.channels_last_images, "as they come": lambda x: x}


def step(m, x, y, way):
    "A training step of `m` with its images in the order of `way`."
    opt = torch.optim.AdamW(m.parameters())

    def go():
        for module in (guided, hdkd, small, unet):
            module.channels_last_images = way
        out = m(x)
        loss = F.cross_entropy(out, y) if out.ndim == 2 else out.square().mean()
        loss.backward()
        opt.step()
        opt.zero_grad()

    return go


x, y = torch.rand(a.bs, 1, a.size, a.size), torch.randint(4, (a.bs,))
for name in NAMES:
    if is_mask_model(name):
        m = create_mask_model(name, 1, in_chans=1)
    else:
        m = create_model(name, 4, in_chans=1, img_size=a.size if "hdkd" in name else None)
    times = in_turn({k: step(m, x, y, way) for k, way in ways.items()}, a.repeats)
    print(f"{name:20} {ratio(times, *ways)[0]:.2f}", flush=True)
