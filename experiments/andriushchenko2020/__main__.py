"""Entry point of ``python -m experiments.andriushchenko2020``."""

from experiments import study
from experiments.andriushchenko2020 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
