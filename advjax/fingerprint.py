"""What tells whether two values are the same, as a short text."""

import re
import zlib
from typing import Any

import jax
import numpy as np


def of_arrays(tree: Any) -> str:
    """Structure and bytes of a pytree; the addresses of functions do not count."""
    leaves, structure = jax.tree.flatten(tree)
    text = re.sub(r'0x[0-9a-f]+', '', str(structure))
    total = zlib.crc32(text.encode())
    for leaf in leaves:
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return f'{total:08x}'
