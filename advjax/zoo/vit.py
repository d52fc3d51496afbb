"""Vision transformers, with split layer normalisation.

They consist of matrix products, so unlike the convolutional networks they support
forward-mode differentiation.
"""

import functools
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from advjax import models
from advjax.types import Array
from advjax.zoo.options import Common, Options
from advjax.zoo.published import with_published
from advjax.zoo.split_norm import check_branches, checked_branch

_INIT = nnx.initializers.truncated_normal(0.02)


def gelu(x: Array) -> Array:
    """The exact GELU, by the error function and not its usual approximation."""
    return nnx.gelu(x, approximate=False)


class SplitLayerNorm(nnx.Module):
    r"""Layer normalisation with a scale and a bias for each branch.

    .. math:: y = \gamma_b (x - E[x]) / \sqrt{Var[x] + \epsilon} + \beta_b

    The counterpart of ``SplitBatchNorm`` without batch statistics: the mean and
    variance are those of each token, so only gamma and beta are split. AdvProp defines
    this for BatchNorm only. Rebuffi et al. also train vision transformers with dual
    normalisation layers, and find that separate parameters suffice, without separate
    statistics.

    Args:
      features: size of the last axis of the input.
      branches: how many, at least 1.
      epsilon: added to the variance.
      dtype: of the result; mean and variance are computed in float32.
      rngs: as in every nnx module.

    Raises:
      ValueError: if ``branches`` is not a positive integer.

    Reference: Xie et al. 2020, arXiv 1911.09665, section 4.2; Rebuffi et al. 2023,
    arXiv 2210.04886, for vision transformers.
    """

    def __init__(
        self,
        features: int,
        branches: int = 2,
        *,
        epsilon: float = 1e-6,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        check_branches(branches)
        self.branches = nnx.List(
            nnx.LayerNorm(
                features,
                epsilon=epsilon,
                dtype=dtype,
                use_fast_variance=False,
                rngs=rngs,
            )
            for _ in range(branches)
        )

    def __call__(self, x: Array, branch: int = 0) -> Array:
        """Normalises through one branch, a static number."""
        return self.branches[checked_branch(branch, len(self.branches))](x)


class _Block(nnx.Module):
    def __init__(self, width, heads, branches, activation, dropout, dtype, rngs):
        self.heads, self.activation = heads, activation
        linear = functools.partial(
            nnx.Linear, kernel_init=_INIT, dtype=dtype, rngs=rngs
        )
        norm = functools.partial(
            SplitLayerNorm, width, branches, dtype=dtype, rngs=rngs
        )
        self.norm1, self.norm2 = norm(), norm()
        self.qkv, self.proj = linear(width, 3 * width), linear(width, width)
        self.fc1, self.fc2 = linear(width, 4 * width), linear(4 * width, width)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x, branch):
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x, branch))
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        # The softmax is float32, whatever the dtype.
        y = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        x = x + self.dropout(self.proj(y.reshape(batch, tokens, width)))
        y = self.dropout(self.activation(self.fc1(self.norm2(x, branch))))
        return x + self.dropout(self.fc2(y))


class _Vit(nnx.Module):
    def __init__(
        self, shape, num_classes, patch, width, depth, heads, dropout, common, rngs
    ):
        branches, activation, dtype, *_ = common
        self.patch, self.common = patch, common
        height, wide, channels = shape
        self.shape = shape
        tokens = (height // patch) * (wide // patch) + 1
        self.patches = nnx.LinearGeneral(
            (patch, patch, channels),
            width,
            axis=(-3, -2, -1),
            kernel_init=_INIT,
            dtype=dtype,
            rngs=rngs,
        )
        self.token = nnx.Param(1e-6 * jax.random.normal(rngs.params(), (1, 1, width)))
        self.positions = nnx.Param(_INIT(rngs.params(), (1, tokens, width)))
        self.blocks = nnx.List(
            _Block(width, heads, branches, activation, dropout, dtype, rngs)
            for _ in range(depth)
        )
        self.norm = SplitLayerNorm(width, branches, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.out = nnx.Linear(width, num_classes, kernel_init=_INIT, rngs=rngs)

    def features(self, x, branch=0):
        if x.shape[1:] != self.shape:
            raise ValueError(
                f'images must be of the shape {self.shape} that the positions were '
                f'made for, got {x.shape[1:]}'
            )
        x = self.common.normalised(x)
        batch, height, width, channels = x.shape
        patch = self.patch
        x = x.reshape(
            batch, height // patch, patch, width // patch, patch, channels
        ).swapaxes(2, 3)
        x = self.patches(x).reshape(batch, -1, self.positions.shape[-1])
        first = jnp.broadcast_to(self.token[...], (batch, 1, x.shape[-1]))
        x = jnp.concatenate([first.astype(x.dtype), x], axis=1)
        x = self.dropout(x + self.positions[...].astype(x.dtype))
        for block in self.blocks:
            x = block(x, branch)
        return self.norm(x[:, 0], branch).astype(jnp.float32)

    def __call__(self, x, branch=0):
        return self.out(self.features(x, branch))


_NAMES = {
    'patches': 'patch_embed.proj',
    'out': 'head',
    'proj': 'attn.proj',
    'qkv': 'attn.qkv',
    'fc1': 'mlp.fc1',
    'fc2': 'mlp.fc2',
    'token': 'cls_token',
    'positions': 'pos_embed',
    'kernel': 'weight',
    'scale': 'weight',
}


def _naming(path: Sequence[Any]) -> str:
    """Names of timm's VisionTransformer; the number of a branch is left out."""
    parts = list(path)
    if 'branches' in parts:
        at = parts.index('branches')
        del parts[at : at + 2]
    return '.'.join(str(_NAMES.get(part, part)) for part in parts)


@functools.cache
def vit_small(
    shape: tuple[int, ...] = (32, 32, 3),
    num_classes: int = 10,
    *,
    patch: int = 4,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    dropout: float = 0.0,
    **options: Unpack[Options],
) -> models.Model:
    r"""ViT-S, a vision transformer, with patches for small images.

    .. math::
        z_0 = [c; E p_1; \ldots; E p_N] + P, \quad
        z' = z + \mathrm{MSA}(\mathrm{LN}(z)), \quad
        z \leftarrow z' + \mathrm{MLP}(\mathrm{LN}(z'))

    with learned positions P; the logits are linear in LN of the first token c at the
    end. The MLP is four times as wide. ViT-S/16 for ImageNet, of 22,050,664
    parameters, is ``vit_small((224, 224, 3), 1000, patch=16)``; patches of 4 make 64
    tokens of a 32x32 image. With dropout 0 the network is the same in train and eval
    mode.

    Args:
      shape: (H, W, C) of one image; the sides are multiples of ``patch``.
      num_classes: K.
      patch: side of a patch.
      width: size of a token.
      depth: number of blocks.
      heads: of each attention, a divisor of the width.
      dropout: rate, in [0, 1), after the positions, each activation and each
        projection; the attention itself has none.
      **options: branches (of ``SplitLayerNorm``, which says how they differ from
        AdvProp's), activation (the exact GELU by default), dtype (the softmax stays
        float32), mean and std; see ``zoo.Common``.

    Reference: Dosovitskiy et al. 2021, arXiv 2010.11929; the small one is of Touvron et
    al. 2021, arXiv 2012.12877. Weights have the names of timm.
    """
    options.setdefault('activation', gelu)
    common = Common(**options)
    common.check(shape, num_classes)
    sizes = {'patch': patch, 'width': width, 'depth': depth, 'heads': heads}
    for name, value in sizes.items():
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f'{name} must be an integer >= 1, got {value!r}')
    if shape[0] % patch or shape[1] % patch:
        raise ValueError(f'patch must divide both sides of {shape}, got {patch}')
    if width % heads:
        raise ValueError(f'heads must divide the width {width}, got {heads}')
    if not 0 <= dropout < 1:
        raise ValueError(f'dropout must lie in [0, 1), got {dropout}')
    constructor = functools.partial(
        _Vit, shape, num_classes, patch, width, depth, heads, dropout, common
    )
    model = models.from_nnx(constructor)
    return with_published(model, [_naming], common.mean, common.std)
