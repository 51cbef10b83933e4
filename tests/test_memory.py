"""What a step needs beside the student's own training: the teachers' weights and one batch of the
maps that are read; and nothing more after a thousand steps."""

import gc

import pytest
import torch
from fastai.learner import Learner

from helpers import data, Hint, net
from kdmedlearn.train.finite import FiniteLoss
from kdmedlearn import distill
from kdmedlearn.core.method import METHODS
from kdmedlearn.core.step import DistillStep
from kdmedlearn.evaluation.cost import Alive, peak_bytes
from kdmedlearn.experiments.bench import Case, known_methods, mid_epoch, plain_step, Ready


def tapped_bytes(step, x):
    "Of logits and maps of student and teachers, one batch."
    plan = step.plan()
    outs = [step.run_student((x,), plan.student), *step.ask((x,), plan.teachers)]
    tensors = [t for o in outs for t in (o.out, *o.features.values())]
    flat = [t for o in tensors for t in (o if isinstance(o, (tuple, list)) else [o])]
    return sum(t.nbytes for t in flat)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted({*known_methods()} & {*METHODS.built_in()}))
def test_a_step_holds_no_more_than_one_batch_of_tapped_maps(method):
    "A few of them, since comparing makes some of their size; never the teachers' inner maps."
    ready = Ready(Case.of(method, size=64, bs=8))
    step, x, y = ready.step(), ready.x, ready.y
    alone = plain_step(ready.task, ready.student())
    taught = plain_step(lambda m: m(x, y).loss, step)
    alone(), taught()  # the optimizers have their averages from here on
    least = max(peak_bytes(alone), peak_bytes(ready.hear))
    trained_too = 4 * sum(p.nbytes for p in step.adapters())
    assert peak_bytes(taught) <= least + 5 * tapped_bytes(step, x) + trained_too


def test_a_teacher_with_gradients_would_be_noticed():
    ready = Ready(Case.of("response", size=64, bs=8))
    with_graph = lambda: [t.model(ready.x) for t in ready.teachers][0].sum().backward()
    assert peak_bytes(with_graph) > 2 * peak_bytes(ready.hear)


def tensors():
    "How many tensors Python holds."
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def growth(take, steps, watched):
    """Tensors that Python holds more after `steps` steps, and bytes of tensors after `watched`
    more, whoever holds them."""
    take(), take()
    n = tensors()
    for _ in range(steps):
        take()
    n = tensors() - n
    with Alive() as alive:
        take()
        start = alive.now
        for _ in range(watched):
            take()
        return n, alive.now - start


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_steps():
    step = DistillStep(net(), net(6), [Hint([("norm", "norm")]), "response"])
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    step.setup(x, y)
    assert growth(plain_step(lambda m: m(x, y).loss, step), 950, 50) == (0, 0)


@pytest.mark.slow
def test_what_is_kept_of_a_step_is_counted():
    kept, w = [], torch.ones(8, requires_grad=True)
    assert growth(lambda: kept.append(w.detach() + 1), 5, 5) == (5, 5 * 32)
    graph = [w]  # the last tensor alone is held; the graph holds the others

    def lengthen():
        graph[0] = graph[0].sin()

    assert growth(lengthen, 5, 5)[1] == 5 * 32


@pytest.mark.slow
def test_in_a_learner_only_what_fastai_records_grows():
    loss = torch.nn.CrossEntropyLoss()
    guard = FiniteLoss(every=1000)  # its copy of the weights is made once, and replaced
    taught = distill(data(), net(), net(6), "response", loss_func=loss, cbs=guard)
    alone = Learner(data(), net(), loss)
    ours, plain = growth(mid_epoch(taught), 100, 50), growth(mid_epoch(alone), 100, 50)
    assert ours[0] == plain[0]
    assert ours[1] - plain[1] < 50  # less than a byte a step: the two terms of the last batch
