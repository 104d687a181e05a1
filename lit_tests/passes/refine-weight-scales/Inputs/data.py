"""Three channels: the first is next to nothing, whatever its weight."""

import numpy as np


def dataset():
    for step in range(1, 9):
        x = np.full((1, 3, 1, 1), step / 2, np.float32)
        x[0, 0] = 1e-3 * (-1) ** step
        x[0, 2] += (-1) ** (step // 2)
        yield {"x": x}
