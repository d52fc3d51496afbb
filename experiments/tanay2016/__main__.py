"""Entry point of ``python -m experiments.tanay2016``."""

from experiments import study
from experiments.tanay2016 import STUDY

if __name__ == '__main__':
    study.cli(STUDY)
