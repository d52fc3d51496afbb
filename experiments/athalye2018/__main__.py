"""Entry point of ``python -m experiments.athalye2018``."""

from experiments import study
from experiments.athalye2018 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
