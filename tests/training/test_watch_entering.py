"""What enters the model and the loss in a loop, and what the first evaluation shows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pyspectra.training import Watch
from pyspectra.training.rules import Thresholds


def codes(watch):
    return [x.code for x in watch.report() if x.severity != "info"]


def trained(model, x, y, loss=F.mse_loss, *, epochs=2, rate=1e-3, shuffle=True, told=True,
            x_val=None, **options):  # fmt: skip
    """Train as docs/watching.md does; return the watch."""
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], rate, **options
    )
    watch = Watch(model, optimizer, on="collect")
    for _ in range(epochs):
        order = torch.randperm(len(x)) if shuffle else torch.arange(len(x))
        for rows in order.split(20):
            optimizer.zero_grad()
            out = model(x[rows])
            value = loss(out, y[rows])
            value.backward()
            optimizer.step()
            watch.step(
                value, **({"inputs": x[rows], "targets": y[rows], "outputs": out} if told else {})
            )
        with watch.evaluating():
            out = model(x if x_val is None else x_val)
            watch.eval_batch(loss(out, y), outputs=out, targets=y)
        watch.end_epoch()
    return watch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def letters(n=100, span=6, size=9):
    rows = torch.randint(size, (n, span + 1))
    return rows[:, :-1], rows[:, 1:], nn.Sequential(nn.Embedding(size, 8), nn.Linear(8, size))


@pytest.mark.parametrize("flat", [False, True])
def test_scores_of_a_sequence_have_their_classes_last(flat):
    x, y, model = letters()

    def loss(out, y):
        return F.cross_entropy(out.flatten(0, -2), y.flatten())

    watch = trained(model, x, y, loss)
    assert codes(watch) == []
    steps = [row for row in watch.history.to_records(level="steps") if "accuracy" in row]
    assert 0 < steps[0]["accuracy"] < 0.5


def test_padding_counts_neither_as_right_nor_as_wrong():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch = Watch(model, optimizer, on="collect")
    out = model(torch.randn(4, 4))
    y = out.argmax(1)
    y[:2] = -100
    loss = F.cross_entropy(out, y)
    loss.backward()
    optimizer.step()
    watch.step(loss, outputs=out, targets=y)
    assert watch.history.to_records(level="steps")[0]["accuracy"] == 1.0


class Sampling(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x + torch.randn_like(x))


def test_a_model_that_samples_on_purpose_may_do_so_in_evaluations():
    x = torch.randn(100, 4)
    assert codes(trained(Sampling(), x, x)) == []


class RowsForTimes(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(4, 8), nn.Linear(8, 4)

    def forward(self, x):  # (N, T, F) given to a GRU that takes (T, N, F)
        return self.head(self.cell(x)[0])


def test_batch_first_forgotten_mixes_rows():
    x = torch.randn(100, 5, 4)
    assert codes(trained(RowsForTimes(), x, x)) == ["batch_mixing"]


def test_softmax_over_the_batch_is_read_from_the_graph():
    x, y = torch.randn(100, 4), torch.arange(100) % 3
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(0))
    assert codes(trained(model, x, y, F.nll_loss, told=False))[0] == "loss_input"


@pytest.mark.parametrize("maximize", [False, True])
def test_sign_of_the_loss(maximize):
    x = torch.randn(100, 4)

    def negative(out, y):
        return -F.mse_loss(out, y)

    wrong = trained(nn.Linear(4, 4), x, x, F.mse_loss if maximize else negative, maximize=maximize)
    assert codes(wrong)[0] == "loss_sign"
    right = trained(nn.Linear(4, 4), x, x, negative if maximize else F.mse_loss, maximize=maximize)
    assert "loss_sign" not in codes(right)


def test_a_loss_of_another_network_may_be_negated():
    """As a generator minimises the negative of what its judge minimises."""
    judge, x = nn.Linear(4, 1), torch.randn(100, 4)

    def fooled(out, y):
        return -F.binary_cross_entropy_with_logits(judge(out), torch.zeros(len(out), 1))

    assert "loss_sign" not in codes(trained(nn.Linear(4, 4), x, x, fooled))


def test_targets_beyond_the_last_activation():
    x = torch.randn(100, 4)
    for last, target in ((nn.Sigmoid(), 5 * x), (nn.Tanh(), 5 * x), (nn.ReLU(), x)):
        assert codes(trained(nn.Sequential(nn.Linear(4, 4), last), x, target))[0] == "output_range"
    squashed = trained(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), x, x.sigmoid())
    assert codes(squashed) == []


def test_classes_in_order():
    x, y = torch.randn(400, 4), torch.arange(400) // 40
    model = nn.Linear(4, 10)
    assert codes(trained(model, x, y, F.cross_entropy, shuffle=False))[0] == "not_shuffled"
    assert "not_shuffled" not in codes(trained(model, x, y, F.cross_entropy))


def test_raw_pixels_and_columns():
    pixels, columns = (
        255 * torch.rand(100, 1, 6, 6),
        torch.randn(100, 3) * torch.tensor([1.0, 1e-2, 2e3]),
    )
    target = torch.randn(100, 2)
    conv = nn.Sequential(nn.Conv2d(1, 2, 6), nn.Flatten())
    assert "input_range" in codes(trained(conv, pixels, target, epochs=4))
    assert "input_range" in codes(trained(nn.Linear(3, 2), columns, target, epochs=4))
    for scaled in (nn.BatchNorm2d(1), nn.Identity()):
        x = pixels if isinstance(scaled, nn.BatchNorm2d) else pixels / 255
        model = nn.Sequential(scaled, nn.Conv2d(1, 2, 6), nn.Flatten())
        assert "input_range" not in codes(trained(model, x, target, epochs=4))
    large = nn.Sequential(nn.Conv2d(3, 2, 64), nn.Flatten())
    photographs = 255 * torch.rand(100, 3, 64, 64)
    assert "input_range" in codes(trained(large, photographs, target, epochs=4))
    rare = (torch.rand(100, 300) < 0.01).float()
    assert "input_range" not in codes(trained(nn.Linear(300, 2), rare, target, epochs=4))


def test_evaluation_on_inputs_of_another_scale():
    x = torch.randn(100, 1, 6, 6)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.Unflatten(1, (1, 6, 6)))
    assert "input_shift" in codes(trained(model, x, x, x_val=100 * x + 70))
    assert codes(trained(model, x, x, x_val=x + 0.3)) == []


class InAList(nn.Module):
    def __init__(self, frozen=False):
        super().__init__()
        self.layers, self.head = [nn.Linear(4, 4)], nn.Linear(4, 4)
        self.layers[0].requires_grad_(not frozen)

    def forward(self, x):
        return self.head(self.layers[0](x))


def test_layers_in_a_plain_list():
    x = torch.randn(100, 4)
    [found] = [x for x in trained(InAList(), x, x).report() if x.severity != "info"]
    assert found.code == "parameter_not_optimized"
    assert "layers.0.weight" in found.message
    assert "ModuleList" in found.advice[0]
    assert codes(trained(InAList(frozen=True), x, x)) == []


def test_a_rate_that_is_zero_from_the_first_step():
    x = torch.randn(400, 4)
    watch = trained(nn.Linear(4, 4), x, x, rate=0.0, epochs=4)
    assert codes(watch)[0] == "update_ratio"
    assert "learning rate was zero" in next(iter(watch.report())).message


def test_almost_all_frozen_is_a_warning_where_nothing_is_learned():
    x, y = torch.randn(200, 30), torch.randint(3, (200,))
    model = nn.Sequential(nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 3))
    for name, p in model.named_parameters():
        p.requires_grad_(name == "2.bias")
    assert codes(trained(model, x, y, F.cross_entropy, epochs=8)) == ["almost_all_frozen"]


def test_a_first_loss_far_above_chance():
    x, y = torch.randn(100, 30), torch.randint(3, (100,))
    model = nn.Linear(30, 3)
    nn.init.normal_(model.weight, std=4.0)
    assert codes(trained(model, x, y, F.cross_entropy))[0] == "initial_loss"


def test_what_is_handed_on_need_not_be_what_the_loss_is_taken_of():
    x, y = torch.randn(100, 4), torch.randint(2, (100, 1)).float()

    def handed(model, loss, change, y=y):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watch = Watch(model, optimizer, on="collect")
        for rows in torch.arange(100).split(20):
            optimizer.zero_grad()
            out = model(x[rows])
            value = loss(out, y[rows])
            value.backward()
            optimizer.step()
            watch.step(value, outputs=change(out), targets=y[rows])
        return codes(watch)

    def bce(out, y):
        return F.binary_cross_entropy(out.sigmoid(), y)

    def likelihood(out, y):
        return F.gaussian_nll_loss(out[:, :1], y, out[:, 1:].exp())

    def squeezed(out, y):
        return F.mse_loss(out[:, 0], y)

    assert handed(nn.Linear(4, 1), bce, lambda out: out) == []
    assert handed(nn.Linear(4, 2), likelihood, lambda out: out) == []
    assert handed(nn.Linear(4, 1), squeezed, lambda out: out, y[:, 0]) == []
    assert (
        handed(
            nn.Linear(4, 1), lambda out, y: F.mse_loss(out.squeeze(), y), lambda out: out, y[:, 0]
        )
        == []
    )
    classes = y[:, 0].long()
    assert handed(nn.Linear(4, 2), F.cross_entropy, lambda out: out.softmax(1), classes) == []
    wide = handed(nn.Linear(4, 2), lambda out, y: ((out - y) ** 2).mean(), lambda out: out)
    assert wide == ["loss_broadcast"]


def test_labels_of_one_class():
    x, y = torch.randn(200, 4), torch.zeros(200, dtype=torch.long)
    assert codes(trained(nn.Linear(4, 3), x, y, F.cross_entropy)) == ["constant_targets"]


@pytest.mark.parametrize(
    ("momentum", "wrong"), [(1e-4, True), (0.99, True), (0.1, False), (0.01, False)]
)
def test_momentum_of_batch_norm(momentum, wrong):
    x = torch.randn(600, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, 4))
    found = codes(trained(model, x, x, epochs=4))
    assert ("running_statistics" in found) == wrong


def test_no_two_families_of_thresholds_share_a_name():
    """One of two thresholds of the same name would silently be the other."""
    names = [n for family in Thresholds.__mro__ for n in vars(family).get("__annotations__", ())]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Tanh(), nn.ReLU()])
def test_scores_that_an_activation_cuts(last):
    x, y = torch.randn(100, 4), torch.arange(100) % 3
    assert codes(trained(nn.Sequential(nn.Linear(4, 3), last), x, y, F.cross_entropy)) == [
        "loss_input"
    ]


class Fixed(nn.Module):
    """A layer over one fixed graph of a hundred nodes."""

    def __init__(self):
        super().__init__()
        self.layer, self.links = nn.Linear(4, 4), torch.rand(100, 100) / 100

    def forward(self, x):
        return self.layer(self.links @ x)


def test_a_model_that_takes_all_rows_or_none():
    x, model = torch.randn(100, 4), Fixed()
    watch = Watch(model, torch.optim.SGD(model.parameters(), 0.1), on="collect")
    with watch.evaluating():
        watch.eval_batch(F.mse_loss(model(x), x))
    assert codes(watch) == []
