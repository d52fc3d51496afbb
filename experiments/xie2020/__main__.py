"""Entry point of ``python -m experiments.xie2020``."""

from experiments import study
from experiments.xie2020 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
