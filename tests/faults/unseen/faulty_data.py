"""Programs with one mistake each in networks, evaluations or data."""

import torch
from torch import nn
from torch.nn import functional as F

from .data import blobs, discs, fashion, housing, waves, windows
from .faulty import fault
from .loops import adam, batches, fit, letter_loss, sgd
from .networks import Letters, Recurrent, cnn, mlp
from .trainers import hugging_face, lightning_run, parities, tiny_bert


@fault("dead_units", "zero_gradient")
def relus_that_died(eye):
    model = mlp(196, 128, 64, 10, flat=True)
    nn.init.constant_(model[1].bias, -8.0)
    fit(eye, model, fashion())


@fault("vanishing_gradient", "saturated_units", "not_learning")
def deep_sigmoids(eye):
    fit(
        eye,
        mlp(196, *[32] * 8, 10, act=nn.Sigmoid, flat=True),
        fashion(2500),
        make=sgd(0.01),
        epochs=6,
    )


@fault("saturated_units", "initial_loss", "init_scale")
def weights_drawn_with_deviation_one(eye):
    model = mlp(196, 128, 128, 10, act=nn.Tanh, flat=True)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    fit(eye, model, fashion(), make=sgd(1e-3))


@fault("symmetric_init", "zero_gradient")
def weights_all_zero(eye):
    model = mlp(10, 32, 32, 4)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    fit(eye, model, blobs())


@fault("underfitting", "dropout", "not_learning", "suspicious_validation")
def dropout_of_95_percent(eye):
    fit(eye, mlp(196, 64, 64, 10, flat=True, dropout=0.95), fashion(), epochs=8)


@fault("batch_vs_dataset", "batchnorm")
def batch_norm_of_two_samples(eye):
    fit(eye, cnn(), fashion(800), batch=2, epochs=2)


@fault("running_statistics", "train_mode_at_eval", "batchnorm", "eval_differs")
def batch_norm_that_forgets_nothing(eye):
    fit(eye, cnn(norm=lambda c: nn.BatchNorm2d(c, momentum=1e-5)), fashion(raw=True), epochs=5)


@fault("train_mode_at_eval")
def no_eval_call(eye):
    fit(eye, mlp(196, 128, 10, flat=True, dropout=0.5), fashion(), evaluate="no eval")


@fault("eval_mode_at_train")
def never_back_to_training_mode(eye):
    fit(eye, cnn(), fashion(), evaluate="never back")


@fault("input_shift", "input_range")
def validation_not_normalised(eye):
    (x, y), _ = fashion()
    fit(eye, cnn(), ((x, y), fashion(raw=True)[1]))


@fault("label_shift", "labels_carry_no_information", "suspicious_validation")
def validation_classes_in_another_order(eye):
    (x, y), (xv, yv) = fashion()
    fit(eye, cnn(), ((x, y), (xv, (yv * 3 + 1) % 10)), epochs=6)


@fault("overfitting")
def far_too_large_for_the_rows(eye):
    (x, y), val = housing(150)
    fit(
        eye,
        mlp(8, 256, 256, 1),
        ((x, y + torch.randn_like(y)), val),
        F.mse_loss,
        adam(3e-3),
        epochs=60,
        batch=15,
    )


@fault("labels_carry_no_information", "not_learning")
def labels_shuffled_apart(eye):
    (x, y), val = fashion(1000)
    fit(eye, mlp(196, 256, 10, flat=True), ((x, y[torch.randperm(len(y))]), val), epochs=15)


@fault("labels_carry_no_information", "not_learning")
def prices_of_other_houses(eye):
    (x, y), (xv, yv) = housing()
    fit(eye, mlp(8, 64, 1), ((x, y.roll(1, 0)), (xv, yv.roll(1, 0))), F.mse_loss, epochs=10)


@fault("not_shuffled", "label_order", "single_class_batches", "class_imbalance", "oscillation")
def sorted_by_class(eye):
    (x, y), val = fashion()
    order = y.argsort(stable=True)
    fit(
        eye,
        mlp(196, 64, 10, flat=True),
        ((x[order], y[order]), val),
        shuffle=False,
        make=sgd(0.02),
        epochs=6,
    )


@fault("input_range")
def pixels_up_to_255(eye):
    fit(eye, cnn(norm=lambda c: nn.Identity()), fashion(raw=True), make=sgd(0.01))


@fault("input_range")
def columns_as_they_are(eye):
    fit(eye, mlp(8, 64, 1), housing(raw=True), F.mse_loss, sgd(1e-8))


@fault("accuracy_paradox", "class_imbalance")
def one_positive_in_fifty(eye):
    (x, y), (xv, yv) = blobs(2500, classes=2, spread=4.0)
    keep, keep_v = (y == 0) | (torch.rand(len(y)) < 0.03), (yv == 0) | (torch.rand(len(yv)) < 0.1)
    fit(eye, mlp(10, 16, 2), ((x[keep], y[keep]), (xv[keep_v], yv[keep_v])), epochs=6)


@fault("duplicated_batches")
def every_worker_draws_the_same(eye):
    (x, y), val = fashion(320)
    fit(
        eye,
        mlp(196, 64, 10, flat=True),
        ((x.repeat_interleave(4, 0), y.repeat_interleave(4, 0)), val),
        shuffle=False,
        epochs=6,
    )


@fault("leakage")
def validation_rows_in_training(eye):
    (x, y), (xv, yv) = fashion(1000)
    fit(
        eye,
        mlp(196, 128, 10, flat=True),
        ((torch.cat((x, xv)), torch.cat((y, yv))), (xv, yv)),
        epochs=6,
    )


@fault("batch_mixing", "labels_carry_no_information", "not_learning")
def view_in_place_of_transpose(eye):
    class Wrong(Recurrent):
        def forward(self, x):
            hidden, _ = self.cell(x.view(x.shape[1], x.shape[0], -1))
            return self.head(hidden[-1])

    fit(eye, Wrong(1, 24, 1, batch_first=False), waves(), F.mse_loss, adam(5e-3))


@fault("batch_mixing", "labels_carry_no_information", "not_learning")
def batch_first_forgotten(eye):
    train, val, size = windows(n=600)
    fit(
        eye,
        Recurrent(size, 48, size, letters=True, batch_first=False),
        (train, val),
        letter_loss,
        adam(3e-3),
        epochs=3,
    )


@fault(
    "labels_carry_no_information",
    "suspicious_validation",
    "leakage",
    "initial_loss",
    "trivial_task",
)
def letters_not_shifted(eye):
    (x, _), (xv, _), size = windows(n=500)
    fit(eye, Letters(size), ((x, x), (xv, xv)), letter_loss, adam(3e-3), epochs=3)


@fault("no_gradient", "not_learning", "loss_input")
def judge_sees_detached_fakes_only(eye):
    maker, judge = mlp(4, 64, 2), mlp(2, 64, 1)
    first, second = (
        torch.optim.Adam(maker.parameters(), 1e-3),
        torch.optim.Adam(judge.parameters(), 1e-3),
    )
    watch = eye(nn.ModuleDict({"maker": maker, "judge": judge}), [first, second])
    real = torch.randn(1500, 2) + 2
    for rows, _ in batches(real.repeat(4, 1), real.repeat(4, 1), 50):
        fake = maker(torch.randn(50, 4)).detach()
        good, bad = judge(rows), judge(fake)
        second.zero_grad()
        lost = F.softplus(-good).mean() + F.softplus(bad).mean()
        lost.backward()
        second.step()
        first.zero_grad()
        loss = F.softplus(-judge(fake)).mean()
        loss.backward()
        first.step()
        watch.step(loss)
    watch.end_epoch()


@fault("class_imbalance", "constant_targets", "trivial_task", "label_format")
def every_label_the_same(eye):
    (x, _), (xv, _) = discs()
    flat = mlp(576, 64, 2, flat=True)
    fit(
        eye,
        flat,
        ((x, torch.zeros(len(x), dtype=torch.long)), (xv, torch.zeros(len(xv), dtype=torch.long))),
        epochs=6,
    )


@fault("update_ratio", "divergence", "not_learning", "dead_units", "saturated_units")
def trainer_with_a_rate_of_a_half(eye):
    eye.adopt(hugging_face(rate=0.5, epochs=4))


@fault("parameter_not_optimized", "almost_all_frozen", "no_gradient")
def trainer_with_a_frozen_model(eye):
    model = tiny_bert()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "classifier.bias")
    eye.adopt(hugging_face(model=model, rows=parities(500) + parities(100)))


@fault("loss_input")
def lightning_with_softmax(eye):
    eye.adopt(lightning_run(loss=lambda out, y: F.cross_entropy(out.softmax(1), y)))
