"""Entry point of ``python -m experiments.rice2020``."""

from experiments import study
from experiments.rice2020 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
