"""Tokens of two channels, which a normalization makes +1 and -1."""

import numpy as np


def dataset():
    for step in range(1, 9):
        x = np.zeros((1, 4, 2), np.float32)
        x[0, :, 0] = [step, -step, 2 * step, -1]
        yield {"x": x}
