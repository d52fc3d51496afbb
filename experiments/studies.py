"""The studies there are."""

import importlib

from experiments.study import Study

NAMES = (
    'szegedy2014',
    'goodfellow2015',
    'papernot2016',
    'tanay2016',
    'madry2018',
    'athalye2018',
    'ilyas2019',
    'tsipras2019',
    'charles2019',
    'xie2020',
    'wong2020',
    'andriushchenko2020',
    'rice2020',
    'geometry',
)
"""Their modules, in the order of their papers."""


def load(name: str) -> Study:
    """Returns a study by the name of its module.

    Raises:
      ValueError: if there is none of that name.
    """
    if name not in NAMES:
        raise ValueError(f'study must be one of {", ".join(NAMES)}, got {name!r}')
    return importlib.import_module(f'experiments.{name}').STUDY
