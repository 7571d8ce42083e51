"""The similarity transform that moves landmarks onto a template: turned, scaled, shifted, and never mirrored."""

import numpy as np
from numpy.typing import NDArray

# Both eyes, the tip of the nose, both corners of the mouth, left in the picture first: where faces of 112 x 112 pixels
# that ArcFace and its kin are trained on have them (x, y).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
SIDE = 112


def similarity(points: NDArray[np.float64], template: NDArray[np.float64] = TEMPLATE) -> NDArray[np.float64]:
    """The (2, 3) matrix that takes `points`, (n, 2), onto `template` with the least squared error.

    Umeyama (1991). In the plane a similarity is one complex factor and one shift, z' = a z + b, and the least squares
    of a line through complex points give it: a = sum(conj(z) w) / sum(|z|^2) over the centred points. ValueError for
    points that are not finite or all in one place.
    """
    z, w = points @ [1, 1j], template @ [1, 1j]
    centred = z - z.mean()
    spread = float(np.vdot(centred, centred).real)
    if not (np.isfinite(spread) and spread > 0):
        raise ValueError(f"landmarks {points.tolist()}: expected {len(template)} finite points, not all in one place")
    a = np.vdot(centred, w - w.mean()) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
