"""The averages of a run of Hugging Face's Trainer: evaluated, kept, saved and resumed."""

from __future__ import annotations

import functools
import sys
import warnings
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from pyspectra._support.arguments import check_path, shown
from pyspectra.errors import ArgumentValueError, FormatError, MissingPathError
from pyspectra.optim import EMA
from pyspectra.optim._fused.averages import load_file
from pyspectra.optim._fused.sharded import is_sharded
from pyspectra.training.callbacks import _hf_files, _source


class EMACallback(TrainerCallback):
    """Save averaged weights with whatever a Trainer saves, and resume them.

    Parameters
    ----------
    ema : EMA, optional
        Averages beside any optimizer; it is attached when training begins. None where the
        optimizer averages by itself (``ChildAdamW(..., ema_decay=...)``); its averages are in
        ``optimizer.pt``.
    resume_from : str or path, optional
        With `ema`: checkpoint folder to resume the averages from. Default: the one that the Trainer
        resumes from.

    Raises
    ------
    TypeError, ValueError
        If `ema` is no `EMA`, or `resume_from` is no path or comes without `ema`.
    FileNotFoundError
        If there is no folder `resume_from`.

    Notes
    -----
    Wherever the Trainer writes a model (a checkpoint, ``save_model``, what goes to the hub), there
    is a folder ``ema`` beside it: a model folder with the averaged weights in the type of the
    model, complete or not there, for ``from_pretrained``. With ``save_strategy="no"`` the output
    folder gets it when training ends. The weights in training stay where the Trainer puts them.
    With `ema` the folder also has ``ema_state.pt``, the float32 averages and their count.

    With `swap_around_evaluation` the averages are evaluated, so that the best checkpoint is the one
    of the best average: ``load_best_model_at_end`` then leaves this average in the model. Weights
    that are loaded after training are evaluated as they are. ``docs/trainers.md`` lists what each
    trainer evaluates and saves.

    A Trainer hands itself to no callback: this one finds it when it is made with the callback, or
    begins to train, and puts its own functions around ``save_model``, ``evaluation_loop`` and those
    that load a checkpoint.

    Examples
    --------
    >>> kwargs = optimizer_cls_and_kwargs(model, args, ema_decay=0.999)  # doctest: +SKIP
    >>> trainer = Trainer(
    ...     model, args, optimizer_cls_and_kwargs=kwargs, callbacks=[EMACallback()]
    ... )  # doctest: +SKIP
    """

    def __init__(self, ema: EMA | None = None, *, resume_from: str | Path | None = None) -> None:
        _source.check_ema("EMACallback", ema)
        if resume_from is not None:
            resume_from = check_path("EMACallback", "resume_from", resume_from)
            if ema is None:
                raise ArgumentValueError(
                    "EMACallback",
                    "resume_from",
                    "come with 'ema'",
                    shown(str(resume_from)),
                    "an optimizer that averages by itself resumes with its own state",
                )
            if not resume_from.is_dir():
                got = shown(str(resume_from))
                raise MissingPathError("EMACallback", "resume_from", "be a folder", got)
        self._ema = ema
        self._resume_from = resume_from
        self._swap = False
        self._left = _source.Left()
        self._loaded: Path | None = None  # the checkpoint that the Trainer has loaded last
        self._best: Path | None = None  # the averages of the checkpoint whose weights are loaded
        self._written: Path | None = None  # the checkpoint that has its averages

    # --- around the Trainer -----------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the Trainer that has been made with this callback."""
        self._connect(_trainer_of(self))

    def _connect(self, trainer: Any) -> None:
        if trainer is None or getattr(trainer.save_model, "func", None) == self._around_save:
            return
        for name, around in (
            ("save_model", self._around_save),
            ("evaluation_loop", self._around_evaluation),
            ("_load_best_model", self._around_best),
            ("_load_from_checkpoint", self._around_load),
        ):
            original = getattr(trainer, name)
            own = functools.partial(around, trainer, original)
            setattr(trainer, name, functools.wraps(original)(own))

    def swap_around_evaluation(self, trainer: Any) -> None:
        """Let ``trainer.evaluate()`` and ``predict()`` use the averaged weights from now on.

        They do so within training too; the weights come back after an exception as well. Before the
        first training of an optimizer that averages by itself there is nothing to swap. Where
        ``load_best_model_at_end`` is set, the model then has the average of the best checkpoint.

        Parameters
        ----------
        trainer : transformers.Trainer
            The one that has this callback.
        """
        self._connect(trainer)
        self._swap = True

    def _keepers(self, optimizer: Any) -> list[_source.Keeper]:
        return _source.keepers(self._ema, [optimizer])

    def _around_evaluation(self, trainer: Any, loop: Any, *args: Any, **kwargs: Any) -> Any:
        model = trainer.model
        untrained = self._ema is None and trainer.optimizer is None
        if not self._swap or untrained or self._left.replaced(model):
            return loop(*args, **kwargs)
        with self._left.unchanged(model), _source.swap(self._keepers(trainer.optimizer)):
            return loop(*args, **kwargs)

    def _around_load(
        self, _trainer: Any, load: Any, resume_from_checkpoint: Any, *args: Any, **kwargs: Any
    ) -> Any:
        self._loaded, self._best = Path(resume_from_checkpoint), None
        return load(resume_from_checkpoint, *args, **kwargs)

    def _around_best(self, trainer: Any, load: Any) -> None:
        self._left.note(trainer.model)
        load()
        best = Path(trainer.state.best_model_checkpoint)
        folder = best / _hf_files.FOLDER
        if not self._left.replaced(trainer.model) or not folder.is_dir():
            return
        self._best = folder
        if not self._swap:
            return
        missing = _hf_files.load_into(trainer.model, folder)
        if missing:
            warnings.warn(
                f"EMACallback: the model has the weights in training of {best}, not their average: "
                f"{folder} has other names of parameters, {missing[0]!r} is not among them.",
                stacklevel=2,
            )

    def _around_save(
        self, trainer: Any, save: Any, output_dir: Any = None, _internal_call: bool = False
    ) -> None:
        args, state = trainer.args, trainer.state
        save(output_dir, _internal_call=_internal_call)
        untrained = self._ema is None and trainer.optimizer is None
        if not args.should_save or untrained:
            return
        folder = Path(output_dir or args.output_dir)
        self._write(folder, trainer.model, trainer.optimizer)
        if folder.name == f"checkpoint-{state.global_step}":
            self._written = folder
            if args.push_to_hub:  # the Trainer uploads the output folder next
                _hf_files.copy(folder / _hf_files.FOLDER, Path(args.output_dir))

    def _write(self, folder: Path, model: Any, optimizer: Any) -> None:
        """Write the averages that belong to the weights of the model."""
        if not self._left.replaced(model):
            weights = _source.averaged(self._keepers(optimizer), model)
            state = None if self._ema is None else self._ema.state_dict()
            _hf_files.write(folder, model, weights, state)
        elif self._best is not None:
            _hf_files.copy(self._best, folder)
        else:
            warnings.warn(
                f"EMACallback: {folder} gets no averages: the weights of the model are not those "
                "that training has left.",
                stacklevel=3,
            )

    # --- events -----------------------------------------------------------------------------------

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Attach the averages to the optimizer; resume them where training resumes.

        Raises
        ------
        ValueError
            If nothing keeps an average, or parameters are sharded over processes.
        FormatError
            If training resumes and the checkpoint has no averages, or broken ones.
        """
        self._connect(_trainer_of(self))
        found = self._keepers(optimizer)
        if any(is_sharded(p) for group in optimizer.param_groups for p in group["params"]):
            raise ValueError(
                "EMACallback: parameters must be whole in each process, got DTensors. Hint: use "
                "ChildAdamW(ema_decay=...) alone; a sharded optimizer state has the averages."
            )
        replaced, resumed = self._left.replaced(model), state.global_step > 0
        self._left.forget()
        self._best = self._written = None
        if self._ema is not None:
            _source.attach(self._ema, [optimizer])
        if resumed and self._ema is not None:
            self._ema.load_state_dict(load_file(self._state_file(state)))
        elif replaced and not (resumed and _hf_files.has_optimizer(self._loaded)):
            for keeper in found:  # other weights: their average begins with them
                keeper._restart()

    def _state_file(self, state: Any) -> Path:
        folder = self._resume_from or self._loaded
        if folder is None:
            raise FormatError(
                f"EMACallback: training resumes at step {state.global_step}, and it is not known "
                "from where. Hint: Trainer(callbacks=[...]) in the place of add_callback(), or "
                "EMACallback(ema, resume_from=folder of the checkpoint)."
            )
        file = folder / _hf_files.FOLDER / _hf_files.STATE
        if not file.is_file():
            raise FormatError(
                f"EMACallback: training resumes at step {state.global_step}, and {file} is "
                "not there. Hint: resume_from=folder of the checkpoint."
            )
        return file

    def on_save(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Write the averaged weights into the checkpoint, unless they are there."""
        checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if state.is_world_process_zero and self._written != checkpoint:
            self._write(checkpoint, model, optimizer)

    def on_train_end(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Write the averages of a run that saves nothing else."""
        if not self._left.noted:
            self._left.note(model)
        if args.save_strategy == "no" and state.is_world_process_zero:
            self._write(Path(args.output_dir), model, optimizer)


def _trainer_of(callback: TrainerCallback) -> Any:
    """Return the Trainer that is calling `callback`: it is no argument of an event."""
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer) and callback in found.callback_handler.callbacks:
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None
