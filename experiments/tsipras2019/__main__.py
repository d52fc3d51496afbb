"""Entry point of ``python -m experiments.tsipras2019``."""

from experiments import study
from experiments.tsipras2019 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
