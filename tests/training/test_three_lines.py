"""The lines of README that watch a training: three, not more, in a loop and in two trainers."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from pyspectra.training import History

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# Lines of the loop itself, which are there without a watch as well.
OWN = ("import torch", "model", "optimizer", "for ", "    optimizer", "    loss", "trainer")

X = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(48) % 3


def block(which: str) -> str:
    section = README.read_text().split("## Watch training\n")[1].split("\n## ")[0]
    (found,) = [code for code in BLOCK.findall(section) if which in code]
    return found


def added(code: str) -> list[str]:
    return [line for line in code.splitlines() if line and not line.startswith(OWN)]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


class Classifier(nn.Module):
    """What the trainers train; with `softmax` it makes a fault."""

    def __init__(self, softmax=False):
        super().__init__()
        self.net = nn.Linear(8, 3)
        self.softmax = softmax

    def forward(self, x, labels=None):
        from transformers.modeling_outputs import SequenceClassifierOutput

        out = self.net(x).softmax(1) if self.softmax else self.net(x)
        return SequenceClassifierOutput(loss=F.cross_entropy(out, labels), logits=out)


def test_a_plain_loop():
    code = block("watch.step(loss)")
    assert len(added(code)) == 3
    exec(compile(code, "README.md", "exec"), {})
    assert [row["step"] for row in History.load("run.jsonl").steps] == [1, 2, 3, 4]


def test_a_plain_loop_with_a_fault():
    from pyspectra.training.run_report import TrainingWarning

    code = block("watch.step(loss)").replace("    optimizer.zero_grad()\n", "")
    with pytest.warns(TrainingWarning, match="stale_gradient"):
        exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("softmax", [False, True])
def test_hugging_face(softmax, recwarn):
    transformers = pytest.importorskip("transformers")
    code = block("callbacks.hf")
    assert len(code.replace("\n\n", "\n").splitlines()) <= 3
    args = transformers.TrainingArguments(
        "out", per_device_train_batch_size=16, num_train_epochs=2, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    names = {"Trainer": transformers.Trainer, "model": Classifier(softmax), "args": args,
             "rows": rows}  # fmt: skip
    exec(compile(code, "README.md", "exec"), names)
    names["trainer"].train()
    assert [row["epoch"] for row in History.load("run.jsonl").epochs] == [1, 2]
    assert any("loss_input" in str(w.message) for w in recwarn) == softmax


@pytest.mark.parametrize("softmax", [False, True])
def test_lightning(softmax, recwarn):
    lightning = pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    code = block("callbacks.lightning")
    assert len(code.replace("\n\n", "\n").splitlines()) <= 3

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(8, 3)

        def training_step(self, batch, _):
            out = self.net(batch[0])
            return F.cross_entropy(out.softmax(1) if softmax else out, batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Quiet:
        """Lightning, with the settings that keep a test quiet and short."""

        @staticmethod
        def Trainer(**options):
            return lightning.Trainer(
                **options, max_epochs=2, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            )  # fmt: skip

    names = {"lightning": Quiet}
    exec(compile(code, "README.md", "exec"), names)
    data = torch.utils.data.TensorDataset(X, Y)
    names["trainer"].fit(Module(), torch.utils.data.DataLoader(data, batch_size=16))
    assert [row["epoch"] for row in History.load("run.jsonl").epochs] == [1, 2]
    assert any("loss_input" in str(w.message) for w in recwarn) == softmax
