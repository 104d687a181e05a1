"""Images of one channel, or of two equal ones, that reach from -1 to 2."""

import numpy as np


def dataset():
    for step in (-0.5, 1):
        plane = np.full((1, 1, 2, 2), 2 * step, np.float32)
        yield {"x": plane}
