"""Write the golden file of flax, ``python make_flax.py`` with flax 0.12 and jax."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import serialization

FOLDER = Path(__file__).parent


class Model(nn.Module):
    @nn.compact
    def __call__(self, tokens: jax.Array, image: jax.Array) -> jax.Array:
        x = nn.Embed(9, 8, name="embed")(tokens)
        x = nn.MultiHeadDotProductAttention(2, qkv_features=6, name="attention")(x)
        x = nn.Conv(7, (3,), name="conv")(x)
        x = nn.RNN(nn.OptimizedLSTMCell(5), name="rnn")(x)
        y = nn.Conv(4, (3, 3), feature_group_count=1, name="image")(image)
        y = nn.BatchNorm(use_running_average=True)(y).mean((1, 2))
        y = nn.Dense(5, param_dtype=jnp.bfloat16)(nn.LayerNorm()(y))
        return nn.Dense(3)(x[:, -1] + y)


def main() -> None:
    given = (jnp.zeros((1, 4), int), jnp.zeros((1, 6, 6, 2)))
    variables = Model().init(jax.random.key(0), *given)
    momentum = jax.tree.map(jnp.ones_like, variables["params"])
    saved = {**variables, "opt_state": {"0": {"mu": momentum}}, "step": 3}
    (FOLDER / "small.msgpack").write_bytes(serialization.msgpack_serialize(saved))


if __name__ == "__main__":
    main()
