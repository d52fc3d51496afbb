"""Entry point of ``python -m experiments.papernot2016``."""

from experiments import study
from experiments.papernot2016 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
