"""Geometry: how near decision boundaries are, at what angle, and how linear losses are.

    how = geometry.linearisation(logits_fn, linf(0.1), key, x, y)
    plane = geometry.hyperplane(weights, bias)
    geometry.strength(plane, mean_of_first, mean_of_second)      # 1 / cos(angle)

What passes a network is JAX, pure and un-jitted, one value per example; what is closed
form is float64 NumPy on the host. Angles are in degrees, distances in the units of the
input (pixels), L2 unless said otherwise.
"""

from advjax.geometry import landscape, separators
from advjax.geometry.boundary import distance_along, first_crossing, normal
from advjax.geometry.hyperplanes import (
    Hyperplane,
    angle,
    deviation_angle,
    halfway,
    hyperplane,
    mirror_image,
    nearest_centroid,
    signed_distance,
    strength,
    taxonomy,
    tilt,
)
from advjax.geometry.landscape import Slice, cut, gradient_plane
from advjax.geometry.linearity import (
    Linearisation,
    cosine,
    gradient_alignment,
    linearisation,
    tangent_error,
)
from advjax.geometry.separators import (
    HullGap,
    flip_bound,
    flip_distance,
    hull_gap,
    margin_of,
)

__all__ = [
    'HullGap',
    'Hyperplane',
    'Linearisation',
    'Slice',
    'angle',
    'cosine',
    'cut',
    'deviation_angle',
    'distance_along',
    'first_crossing',
    'flip_bound',
    'flip_distance',
    'gradient_alignment',
    'gradient_plane',
    'halfway',
    'hull_gap',
    'hyperplane',
    'landscape',
    'linearisation',
    'margin_of',
    'mirror_image',
    'nearest_centroid',
    'normal',
    'separators',
    'signed_distance',
    'strength',
    'tangent_error',
    'taxonomy',
    'tilt',
]
