"""A Learner in the middle of an epoch, so that benchmarks can time single training steps with all
that fastai does around them."""


def ready(learn, lr=1e-4):
    """`learn` in the middle of an epoch, without bars: `learn.one_batch(0, (x, y))` is then a
    training step with all of fastai's events."""
    learn.remove_cb(learn.progress)
    learn.fit(0, lr)
    learn.n_epoch = 1
    learn("before_fit")
    learn("before_epoch")
    learn("before_train")
    learn.dl, learn.n_iter = learn.dls.train, 1
    return learn
