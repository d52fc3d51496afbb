"""The laws of attacks and of training methods, to be run on yours.

    from advjax import testing

    testing.check_attack(my_attack, linf(0.1))
    testing.check_method(my_method)

Each raises an AssertionError that says what the law is and shows the smallest input on
which it is broken. The library's own tests run the same functions on every entry of its
catalogues. They need chex and are not imported with the library.
"""

from advjax.testing.attack import LAWS, check_attack
from advjax.testing.broken import LawBrokenError
from advjax.testing.method import check_method
from advjax.testing.trial import Subject

__all__ = ['LAWS', 'LawBrokenError', 'Subject', 'check_attack', 'check_method']
