"""Entry point of ``python -m experiments.geometry``."""

from experiments import study
from experiments.geometry import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
