"""The plot of spectra over a run."""

from __future__ import annotations

import pytest

from pyspectra.errors import ArgumentValueError
from pyspectra.training import History, plot_spectra

pytest.importorskip("matplotlib")


def history(n_layers=3, steps=(0, 50, 100)):
    made = History()
    for step in steps:
        made.log_spectra(
            step,
            [
                {"name": f"$l{k}", "N": 64, "M": 64, "alpha": 4.0 - step / 100, "alpha_low": 3.0,
                 "alpha_high": 5.0, "n_tail": 30, "n_evals": 64, "stable_rank": 9.0 + k,
                 "spectral_norm": 2.0, "random_p_value": 0.0, "trap_strength": None}
                for k in range(n_layers)
            ],
        )  # fmt: skip
    return made


def test_a_curve_a_layer():
    axes = plot_spectra(history())
    assert [ax.get_ylabel() for ax in axes] == ["alpha", "stable rank", "spectral norm"]
    line = axes[0].get_lines()[1]
    assert line.get_label() == r"\$l1"
    assert list(line.get_xdata()) == [0, 50, 100]
    assert list(line.get_ydata()) == [4.0, 3.5, 3.0]
    assert axes[0].get_legend() is not None
    axes[0].figure.savefig("/dev/null", format="png")


def test_many_layers_have_colours_and_a_title_instead_of_a_legend():
    axes = plot_spectra(history(20))
    assert len(axes[0].get_lines()) == 20
    assert axes[0].get_legend() is None
    assert axes[0].get_title(loc="left") == "20 layers, from $l0 (dark) to $l19 (light)".replace(
        "$", r"\$"
    )


def test_some_layers_on_given_axes_and_a_p_value_of_zero():
    from matplotlib.figure import Figure

    given = Figure().subplots()
    ax = plot_spectra(history(), "random_p_value", layers=["$l2"], ax=given)
    assert ax is given
    assert min(ax.get_lines()[0].get_ydata()) > 0


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"quantities": "alfa"}, "quantities"),
        ({"layers": ["none"]}, "layers"),
        ({"ax": [None]}, "ax"),
    ],
)
def test_arguments(options, argument):
    with pytest.raises(ArgumentValueError, match=f"'{argument}'"):
        plot_spectra(history(), **options)
    with pytest.raises(ArgumentValueError, match="spectra_every"):
        plot_spectra(History())
