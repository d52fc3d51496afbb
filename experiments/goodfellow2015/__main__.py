"""Entry point of ``python -m experiments.goodfellow2015``."""

from experiments import study
from experiments.goodfellow2015 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
