"""The laws that every attack and every training method obeys, to run on your own.

advjax.testing.check_method(method)
"""

from advjax.testing.method import check_method

__all__ = ['check_method']
