"""How the files of this folder were made; run with version 0.1.0 of the package."""

import json, torch
from pathlib import Path
from kdmedlearn import *
from kdmedlearn.data.phantom import phantom_dls, CLASSES
from kdmedlearn.models.small import SmallCNN, create_model
from kdmedlearn.methods.fusion import AttentionFusion
from kdmedlearn.fusing import collect, fit_fusion, save_fusion
from kdmedlearn.teachers import save_model, phantom_teacher
from kdmedlearn.tuning import tune
from kdmedlearn.methods.feature import Feature
from fastai.metrics import accuracy

out = Path(__file__).parent
torch.manual_seed(0)
dls = phantom_dls(n_train=32, n_valid=16, size=32, bs=8, device="cpu")
x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
values = {}
net = lambda: SmallCNN(8, 3, widths=(4, 4, 4, 4))
t = phantom_teacher()
# a student in a file
from kdmedlearn.models.small import small_student

s = small_student(3)
save_model(
    s,
    out / "student.safetensors",
    "small_student",
    ["a", "b", "c"],
    norm=([0.5] * 3, [0.25] * 3),
    half=True,
)
s2 = __import__("kdmedlearn.teachers", fromlist=["x"]).load_model(out / "student.safetensors")
with torch.no_grad():
    values["student"] = s2(x).tolist()
# a fitted fusion
a, b = SmallCNN(8, 3, widths=(4, 4, 4, 4)), SmallCNN(8, 3, widths=(6, 4, 4, 6))
seen = collect(
    [Teacher(a, name="a"), Teacher(b, name="b")] if "Teacher" in globals() else [a, b], dls.valid
)
f = fit_fusion(AttentionFusion(d=8, heads=2), seen, epochs=2, stop=0)
save_fusion(f, out / "fusion.safetensors")
ans = [torch.linspace(-1, 1, 16).reshape(2, 8), torch.linspace(1, -1, 16).reshape(2, 8)]
maps = [
    torch.linspace(-1, 1, 2 * 4 * 4).reshape(2, 4, 2, 2),
    torch.linspace(-1, 1, 2 * 6 * 4).reshape(2, 6, 2, 2),
]
with torch.no_grad():
    values["fusion"] = f(ans, maps).out.tolist()
# a Learner with adapters: saved with its optimizer, exported
torch.manual_seed(1)
learn = distill(dls, net(), t, Response(T=3) + Feature(), metrics=accuracy, path=out)
with learn.no_bar(), learn.no_logging():
    learn.fit(1, 1e-3)
learn.save("learner")
(out / "models" / "learner.pth").rename(out / "learner.pth")
(out / "models").rmdir()
learn.export("learner.pkl")
learn.model.eval()
with torch.no_grad():
    values["learner"] = learn.model(x).tolist()
# runs and a study
runs = tune(dls, net, t, Response(), trials=1, epochs=1, folder=out / "search", metrics=accuracy)
values["runs"] = [r["code"] for r in runs.all()]
(out / "values.json").write_text(json.dumps(values) + "\n")
