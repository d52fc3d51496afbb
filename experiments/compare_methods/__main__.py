"""Entry point of ``python -m experiments.compare_methods``."""

from experiments import study
from experiments.compare_methods import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
