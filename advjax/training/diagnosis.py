"""Recognising the two ways adversarial training is known to fail.

Both are invisible in the training loss and fatal to the result, so the loop looks
for them after every epoch on held-out images. Pure functions of the history: what
is diagnosed does not depend on when a run was interrupted.
"""

from collections.abc import Mapping, Sequence

DROP = 0.2
"""Loss of robust accuracy since its best that is catastrophic (Wong et al. 2020)."""

CONSTANT = 0.999
"""Share of one class among the answers that counts as a constant classifier."""

PATIENCE = 2
"""Epochs in a row that a constant answer is tolerated: learning may begin late."""


def catastrophic_overfitting(
    history: Sequence[Mapping[str, float]], drop: float = DROP
) -> str | None:
    """Robust held-out accuracy has fallen while the training loss still goes down.

    The network has learned to defeat the attack it trains with, not the adversary.

    Args:
      history: rows with 'epoch', 'train_loss' and 'held_out_robust'.
      drop: loss of robust accuracy since its best that counts. A network that never
        comes far above it, such as a small one on CIFAR-10, needs less.

    Returns:
      A sentence, or None.

    Reference: Wong, Rice and Kolter 2020, arXiv 2001.03994, section 5.2.
    """
    if len(history) < 2:
        return None
    best = max(history[:-1], key=lambda row: row['held_out_robust'])
    last = history[-1]
    fallen = best['held_out_robust'] - last['held_out_robust'] > drop
    if not (fallen and last['train_loss'] < best['train_loss']):
        return None
    return (
        f'catastrophic overfitting at epoch {last["epoch"]}: robust held-out accuracy '
        f'fell from {best["held_out_robust"]:.1%} (epoch {best["epoch"]}) to '
        f'{last["held_out_robust"]:.1%} while the training loss fell from '
        f'{best["train_loss"]:.3f} to {last["train_loss"]:.3f}'
    )


def collapse(history: Sequence[Mapping[str, float]]) -> str | None:
    """The network has answered one class for everything, for some epochs now.

    Args:
      history: rows with 'epoch' and 'held_out_top_class', the share of the class
        answered most often on clean held-out images.

    Returns:
      A sentence, or None.
    """
    recent = history[-PATIENCE:]
    if len(recent) < PATIENCE:
        return None
    if not all(row['held_out_top_class'] >= CONSTANT for row in recent):
        return None
    return (
        f'collapse to a constant class at epoch {recent[-1]["epoch"]}: for {PATIENCE} '
        f'epochs one class was the answer to '
        f'{recent[-1]["held_out_top_class"]:.1%} of the held-out images'
    )


def diagnose(history: Sequence[Mapping[str, float]], adversarial: bool) -> str | None:
    """What is wrong with a run, in words, or None.

    Args:
      history: one row per epoch of this attempt.
      adversarial: whether the method trains against an attack. Otherwise robust
        accuracy may fall as it likes; only a collapse is a failure.
    """
    found = collapse(history)
    return found or (catastrophic_overfitting(history) if adversarial else None)
