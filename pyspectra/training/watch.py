"""A voice in the training loop: it looks, says what is silently wrong, and changes nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pyspectra._support.arguments import (
    check_choice,
    check_count,
    check_number,
)
from pyspectra.report.findings import Finding
from pyspectra.training.collect.evaluation import EvaluationCollector
from pyspectra.training.collect.forward import first_tensor, unwrapped
from pyspectra.training.collect.recorder import SpectraRecorder
from pyspectra.training.collect.run import Plan, RunCollector
from pyspectra.training.collect.spectra import SpectraCollector, SpectraPlan
from pyspectra.training.diagnosis import curves_of
from pyspectra.training.history import History
from pyspectra.training.listening import Listener, listener_of
from pyspectra.training.memory import Memory
from pyspectra.training.processes import Record, processes
from pyspectra.training.rules import Thresholds, known_codes
from pyspectra.training.rules import facts as f
from pyspectra.training.run_report import RunReport
from pyspectra.training.shared_records import SharedRecords
from pyspectra.training.watch_arguments import (
    LOSSES,
    accuracy,
    check_model,
    checked_optimizers,
    history_of,
    spectra_plan,
)


class Watch:
    """Watch a training loop: record it, and name what is silently wrong.

    Hooks look at gradients, steps and activations, and every `every` steps rules judge the numbers.
    Weights come out the same, to the last bit, with and without it.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer or sequence of them
    loss : str, optional
        ``"cross_entropy"``, ``"nll"``, ``"bce"``, ``"bce_logits"``, ``"mse"``, ... Taken from the
        graph of the loss if None.
    history : History or path, optional
        Where losses, metrics, spectra and findings are recorded. In memory if None.
    every : int
        Steps between two looks at all parameters. Each step costs nothing but its scalars.
    steps_per_epoch, planned_steps : int, optional
        Known sizes make some rules sharper; no statistical rule speaks in the first
        ``max(10, planned_steps / 100)`` steps.
    ignore : collection of str
        Codes of findings that are not looked for.
    ignore_params : collection of str
        Names of parameters that are trainable and in no group on purpose.
    sparse : collection of str
        Parts of names of parameters that not every batch uses (experts, embeddings).
    allow : collection of str
        ``"mc_dropout"``: modules may be in training mode in evaluations.
    thresholds : Thresholds, optional
    on : {"warn", "raise", "collect"} or Listener
        What a finding does besides being recorded: a warning, an exception for errors, nothing; or
        whatever a `pyspectra.training.listening.Listener` does (`search.OptunaFindings`).
    patience : int
        Clean checks after which a finding may be made again.
    pretrained : bool
        The model was trained before: a first loss below chance is expected.
    spectra_every : int, optional
        Steps between two measurements of the spectra of all layers: alpha with its interval, stable
        rank, spectral norm, the test for structure and correlation traps, into the history
        (`plot_spectra` draws them). The first is made at once.
    spectra_budget : float, optional
        Share of the time that spectra may take, 0.02 say: layers are then measured in turn, one
        round after the other, or every `spectra_every` steps if both are given.
    target : float, optional
        Training loss that is wanted: curves that are flat above it are reported as underfitting.
    process_group : torch.distributed.ProcessGroup, optional
        The processes that train together, each with a watch of its own: losses, metrics and
        evaluations are means over the samples of all of them, and the first one writes. They wait
        for one another every `every` steps, in `evaluating` and in `end_epoch`, which all of them
        have to call. Without a group no process asks another, and only the first one writes.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.training import Watch
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator object at ...>
    >>> model = torch.nn.Linear(4, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> watch = Watch(model, optimizer, on="collect")
    >>> for _ in range(3):  # zero_grad() is forgotten
    ...     loss = model(torch.randn(8, 4)).pow(2).mean()
    ...     loss.backward()
    ...     optimizer.step()
    ...     found = watch.step(loss)
    >>> [finding.code for finding in watch.report()]
    ['stale_gradient']
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: Any,
        *,
        loss: str | None = None,
        history: History | str | Path | None = None,
        every: int = 50,
        steps_per_epoch: int | None = None,
        planned_steps: int | None = None,
        ignore: Collection[str] = (),
        ignore_params: Collection[str] = (),
        sparse: Collection[str] = (),
        allow: Collection[str] = (),
        thresholds: Thresholds | None = None,
        on: str | Listener = "warn",
        patience: int = 3,
        pretrained: bool = False,
        spectra_every: int | None = None,
        spectra_budget: float | None = None,
        target: float | None = None,
        process_group: Any = None,
    ) -> None:
        check_model(model)
        optimizers = checked_optimizers(optimizer)
        self._processes = processes("Watch", process_group)
        self._listener = listener_of(on, self._processes.is_first)
        for code in ignore:
            check_choice("Watch", "ignore", code, known_codes())
        kind = None if loss is None else check_choice("Watch", "loss", loss, LOSSES)
        plan = Plan(
            every=check_count("Watch", "every", every),
            steps_per_epoch=steps_per_epoch,
            warmup=max(10, (planned_steps or 0) // 100),
            pretrained=pretrained,
            ignore_params=tuple(ignore_params),
            sparse=tuple(sparse),
        )
        self.model = model
        self.history = history_of(history, steps_per_epoch, self._processes)
        self._records = SharedRecords(self.history, self._processes)
        self._steps_per_epoch, self._allow = steps_per_epoch, tuple(allow)
        # Steps and epochs of a resumed run go on from where its history stands.
        self._first_step, epoch = self.history.position
        self._target = None if target is None else check_number("Watch", "target", target)
        # Where the length of an epoch is not known, records of batches stand at its middle.
        self._epoch = int(epoch) if steps_per_epoch else math.ceil(epoch)
        self._memory = Memory(thresholds or Thresholds(), tuple(ignore), patience, self._first_step)
        self._run = RunCollector(model, optimizers, kind, plan, self._processes)
        self._evaluations = EvaluationCollector(model, self._run.forward)
        self._spectra = self._recorder(spectra_plan(spectra_every, spectra_budget), plan.warmup)

    def _recorder(self, plan: SpectraPlan, warmup: int) -> SpectraRecorder | None:
        if not plan.wanted:
            return None
        own = self._processes
        agree = own.agree if own.sums else None
        collector = SpectraCollector(
            unwrapped(self.model), plan, measures=own.is_first, agree=agree
        )
        recorder = SpectraRecorder(collector, self.history, warmup)
        recorder.first(self._step)
        return recorder

    @property
    def _step(self) -> int:
        """Steps of the run so far, those before a resumption among them."""
        return self._first_step + self._run.step

    # --- the loop -------------------------------------------------------------------------------

    def step(
        self,
        loss: Any = None,
        *,
        inputs: Any = None,
        targets: Any = None,
        outputs: Any = None,
        n: int | None = None,
        **metrics: Any,
    ) -> list[Finding]:
        """Take note that a batch is done; call it after ``optimizer.step()``.

        Parameters
        ----------
        loss : Tensor or float, optional
            Loss of the batch. By default what the model returned as ``.loss``.
        inputs, targets, outputs : Tensor, optional
            What entered the model and the loss; more rules apply with them.
        n : int, optional
            Samples of the batch, for means over epochs. By default the first dimension of the
            inputs.
        **metrics
            Other metrics of the batch, recorded in the history.

        Returns
        -------
        list of Finding
            The findings that are new.

        Raises
        ------
        RunError
            If an error was found, and `on` is ``"raise"``.
        """
        run = self._run
        of_model, count = run.forward.taken_loss()
        given = of_model if loss is None else loss
        loss = run.forward.loss if loss is None else loss
        targets = run.forward.labels if targets is None else targets
        seen = first_tensor(run.forward.output if outputs is None else outputs)
        run.batch(loss, inputs, targets, seen, outputs is not None)
        self._record(given, targets, first_tensor(outputs), n or count, metrics)
        spectra = [] if self._spectra is None else self._spectra.facts(self._step)
        found = self._judge([*run.take(), *spectra])
        if run.step % run.plan.every == 0:
            found += self._sync()
        return found

    def _record(
        self,
        loss: Any,
        targets: Any,
        outputs: Tensor | None,
        n: int | None,
        metrics: dict[str, Any],
    ) -> None:
        values: dict[str, Any] = {} if loss is None else {"loss": loss}
        for name, value in metrics.items():
            values[name] = self._detached(name, value)
        if "accuracy" not in values:
            values |= accuracy(self._run.kind, outputs, targets)
        if isinstance(loss, Tensor):
            values["loss"] = loss.detach() if loss.dim() == 0 else loss.detach().mean()
        values |= {n: v for n, v in self._run.dynamics().items() if n not in values}
        count = n or self._run.forward.n_samples
        epoch = None
        if self._steps_per_epoch is None:
            epoch = self._epoch + 0.5  # within the epoch; its length is not known
        self._records.add(Record(self._step, epoch, count, values))

    def _detached(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor) and value.grad_fn is not None:
            self._run.pending.append(f.Retained(self._run.step, name, tuple(value.shape)))
            return value.detach()
        return value

    # --- evaluation -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate in this block: in eval mode, without gradients; all modes come back after it.

        In the first one a batch is passed twice more, to see whether the model does the same.
        """
        with self._evaluations.evaluating():
            yield
        if "mc_dropout" not in self._allow:
            self._run.pending += self._evaluations.facts(self._run.step)
        values, n = self._evaluations.taken(self._processes)
        if values:
            step = self._step
            self._records.log(
                step=step, epoch=self._epoch + 1, split="val", n=n, **cast(Any, values)
            )
            self._listener.evaluated(step, {f"val_{name}": x for name, x in values.items()})

    def eval_batch(
        self, loss: Any = None, *, outputs: Any = None, targets: Any = None, n: int | None = None,
        **metrics: Any,
    ) -> None:  # fmt: skip
        """Take the results of one batch of an evaluation, within `evaluating`.

        Parameters
        ----------
        loss : Tensor or float, optional
        outputs, targets : Tensor, optional
            For a classifier they give accuracy, balanced accuracy and the recall of each class.
        n : int, optional
            Samples of the batch.
        **metrics
            Other metrics of the batch: means over its samples.
        """
        count = n or self._run.forward.n_samples or 1
        self._evaluations.add(loss, first_tensor(outputs), targets, count, self._run.kind, metrics)

    def record(self, **values: Any) -> list[Finding]:
        """Record an evaluation that a trainer made by itself, and judge the curves.

        Parameters
        ----------
        **values
            As for `History.log`: ``step``, ``epoch`` and metrics, such as ``val_loss=0.3``.

        Returns
        -------
        list of Finding
            The findings that are new.
        """
        self._records.log(**values)
        found = self._judge([self._curves()])
        self._listener.evaluated(values.get("step") or self._step, values)
        return found

    def end_epoch(self, **metrics: Any) -> list[Finding]:
        """Take note that an epoch is done: judge curves and units, and write the history.

        Parameters
        ----------
        **metrics
            Metrics of the epoch: ``val_loss=0.3``, for loops that evaluate by themselves.

        Returns
        -------
        list of Finding
            The findings that are new.
        """
        self._epoch += 1
        found = self._sync()
        values = {name: self._detached(name, value) for name, value in metrics.items()}
        if values:
            self._records.log(step=self._step, epoch=self._epoch, **values)
        t = self._memory.thresholds
        facts = self._run.end_epoch(t.dead_samples, t.dead_batches)
        if "mc_dropout" not in self._allow:
            facts += self._evaluations.unasked(self._run.step)
        classes = self._evaluations.classes(self._run.step)
        if classes is not None:
            facts.append(classes)
        curves = self._curves()
        facts += [curves, *self._run.labels(curves)]
        found += self._judge(facts)
        self.history.flush()
        if values:
            self._listener.evaluated(self._step, values)
        return found

    # --- findings -------------------------------------------------------------------------------

    def _sync(self) -> list[Finding]:
        """Put together what all processes know; report errors that only others found."""
        return self._tell(self._memory.adopt(self._records.sync()))

    def _judge(self, facts: list[object]) -> list[Finding]:
        return self._tell(self._memory.judge(facts, self._epoch))

    def _tell(self, new: list[Finding]) -> list[Finding]:
        for finding in new:
            self._records.finding(finding)
        if new:
            self._listener.found(new)
        return new

    def report(self) -> RunReport:
        """Return what was found so far, causes first."""
        self._judge(self._run.take())
        at_end = self._memory.afterwards([self._curves(ended=True)], self._epoch)
        return RunReport((*self._memory.found, *at_end), self._step, self._epoch, self.history)

    def _curves(self, *, ended: bool = False) -> f.Curves:
        return curves_of(
            self.history, baseline=self._run.baseline, target=self._target, ended=ended,
            objective=self._run.objective,
        )  # fmt: skip

    def last_slope(self) -> float | None:
        """Return the gradient times the update of the last step; None if it was not looked at.

        Negative where the step went downhill.
        """
        return self._run.last_slope()

    def close(self) -> None:
        """Remove all hooks, and write the history."""
        self._run.close()
        self._records.close()
