"""Entry point of ``python -m experiments.charles2019``."""

from experiments import study
from experiments.charles2019 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
