"""A law that does not hold."""


class LawBrokenError(AssertionError):
    """Names the law, what was seen, and the smallest input that breaks it."""

    def __init__(self, law: str, seen: object, smallest: str):
        self.law = law
        super().__init__(
            f'broken: {law}\n{str(seen).strip()}\n'
            f'The smallest input that breaks it:\n{smallest}'
        )
