"""Teachers, the students distilled from them, and a network of other images."""

from typing import Any

from advjax import data, training, zoo
from advjax.types import LogitsFn
from experiments.frame.datasets import Sets
from experiments.frame.work import Work


class Nets:
    """The networks of the study, each trained once."""

    def __init__(self, config: Any, work: Work):
        self.config, self.work = config, work
        whole = work.sets(config.dataset)
        half = min(config.train_images, len(whole.train.labels) // 2)
        rest, own = data.split_held_out(whole.train, half, seed=1)
        other = rest
        if len(rest.labels) > half:
            other = data.split_held_out(rest, half, seed=2)[1]
        self.sets, self.other_sets = (whole._replace(train=t) for t in (own, other))
        self.model = zoo.fast_mnist(whole.shape, whole.classes)
        self._made: dict[str, LogitsFn] = {}

    def _fit(self, name: str, method: training.Method, sets: Sets) -> LogitsFn:
        if name not in self._made:
            self._made[name] = self.work.fit(
                name,
                method,
                self.model,
                sets,
                epochs=self.config.epochs,
                batch_size=self.config.batch_size,
                learning_rate=self.config.learning_rate,
            ).logits_fn
        return self._made[name]

    def teacher(self, temperature: float) -> LogitsFn:
        """Trained on the labels at a temperature; at 1 an ordinary network."""
        method = training.at_temperature(temperature)
        return self._fit(f'teacher-{temperature:g}', method, self.sets)

    def student(self, temperature: float) -> LogitsFn:
        """The distilled network."""
        method = training.distillation(self.teacher(temperature), temperature)
        return self._fit(f'student-{temperature:g}', method, self.sets)

    def other(self) -> LogitsFn:
        """An ordinary network that has seen none of these training images."""
        return self._fit('other', training.at_temperature(1.0), self.other_sets)
