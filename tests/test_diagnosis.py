"""The detectors fire on the failures seen in real runs and on nothing else."""

from advjax.training import catastrophic_overfitting, collapse, diagnose


def history(robust, loss, top=None):
    top = top or [0.12] * len(robust)
    return [
        {'epoch': i + 1, 'held_out_robust': r, 'train_loss': q, 'held_out_top_class': t}
        for i, (r, q, t) in enumerate(zip(robust, loss, top, strict=True))
    ]


def test_catastrophic_overfitting_is_a_fall_while_the_loss_falls():
    rows = history([0.5, 0.7, 0.75, 0.1], [1.0, 0.6, 0.4, 0.05])
    words = str(catastrophic_overfitting(rows))
    assert 'epoch 4' in words
    assert '75.0%' in words
    assert '10.0%' in words
    assert '0.400' in words
    assert all(catastrophic_overfitting(rows[:n]) is None for n in (0, 1, 2, 3))


def test_noise_is_not_overfitting():
    assert (
        catastrophic_overfitting(history([0.7, 0.6, 0.72, 0.6], [4, 3, 2, 1])) is None
    )


def test_a_fall_of_everything_is_another_failure():
    assert catastrophic_overfitting(history([0.7, 0.2], [0.5, 2.3])) is None


def test_collapse_is_one_class_for_two_epochs():
    assert collapse(history([0.1] * 2, [2.3] * 2, [1.0, 1.0]))
    assert collapse(history([0.1], [2.3], [1.0])) is None
    assert collapse(history([0.1, 0.5], [2.3, 1.5], [1.0, 0.2])) is None
    assert collapse(history([0.6, 0.1, 0.1], [1, 2.3, 2.3], [0.2, 1.0, 1.0]))


def test_robust_accuracy_may_fall_in_standard_training():
    rows = history([0.5, 0.0], [1.0, 0.1])
    assert diagnose(rows, adversarial=False) is None
    assert diagnose(rows, adversarial=True) is not None
    constant = history([0.1] * 2, [2.3] * 2, [1.0, 1.0])
    assert diagnose(constant, adversarial=False) is not None
