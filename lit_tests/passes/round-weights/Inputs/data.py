"""Three channels, of which the last two are nearly equal: what one loses the other makes up for."""

import numpy as np


def dataset():
    for step in range(1, 9):
        x = np.full((1, 3, 1, 1), step / 2, np.float32)
        x[0, 0] = (-1) ** step
        x[0, 2] += 0.01 * (-1) ** (step // 2)
        yield {"x": x}
