"""Search of hyper-parameters over declarative configuration.

Configurations are dataclasses that files of TOML, YAML or JSON fill in (`read_config`); the same
files say what is searched (`read_space`). `grid`, `random` and `refine` say what is tried next,
`Trials` remembers what came of it, and `OptunaFindings` lets Optuna end trials by what `Watch`
finds. Nothing of it needs torch.
"""

from pyspectra.training.search.config import from_mapping, read_config, to_dict
from pyspectra.training.search.findings import OptunaFindings, suggest
from pyspectra.training.search.space import Choice, Range, Space, read_space
from pyspectra.training.search.strategies import grid, narrowed, random, refine
from pyspectra.training.search.trials import Trial, Trials

__all__ = [
    "Choice",
    "OptunaFindings",
    "Range",
    "Space",
    "Trial",
    "Trials",
    "from_mapping",
    "grid",
    "narrowed",
    "random",
    "read_config",
    "read_space",
    "refine",
    "suggest",
    "to_dict",
]
