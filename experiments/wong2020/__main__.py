"""Entry point of ``python -m experiments.wong2020``."""

from experiments import study
from experiments.wong2020 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
