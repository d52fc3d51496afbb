"""Entry point of ``python -m experiments.szegedy2014``."""

from experiments import study
from experiments.szegedy2014 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
