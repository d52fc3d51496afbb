"""Entry point of ``python -m experiments.madry2018``."""

from experiments import study
from experiments.madry2018 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
