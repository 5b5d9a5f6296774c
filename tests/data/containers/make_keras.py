"""Write the golden files of Keras: ``KERAS_BACKEND=torch python make_keras.py`` with Keras 3."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

FOLDER = Path(__file__).parent


def images() -> keras.Model:
    into = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, name="stem", padding="same")(into)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.Conv2DTranspose(4, 2)(x)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(x)
    head = keras.Sequential([layers.Dense(6, activation="relu"), layers.Dense(3)], name="head")
    return keras.Model(into, head(x), name="images")


def words() -> keras.Model:
    into = keras.Input((7,))
    x = layers.Embedding(9, 8)(into)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4))(x)
    x = layers.Reshape((-1, 8))(x)
    x = layers.Conv1D(6, 2)(x)
    x = layers.LSTM(5, return_sequences=True)(x)
    return keras.Model(into, layers.GRU(4)(x), name="words")


def main() -> None:
    keras.utils.set_random_seed(0)
    model = images()
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    model.fit(np.ones((2, 8, 8, 3)), np.ones((2, 3)), verbose=0)
    model.save(FOLDER / "images.keras")
    model.save(FOLDER / "images.h5")
    model = words()
    model.save(FOLDER / "words.keras")
    model.save_weights(FOLDER / "words.weights.h5")


if __name__ == "__main__":
    main()
