"""Entry point of ``python -m experiments.ilyas2019``."""

from experiments import study
from experiments.ilyas2019 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
