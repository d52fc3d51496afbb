"""A law that does not hold."""


class LawBrokenError(AssertionError):
    """Names the law, what was seen, and the smallest input that breaks it."""

    def __init__(self, law: str, meaning: str, seen: object, smallest: str):
        self.law = law
        super().__init__(
            f'{law} is broken: {meaning}\n{str(seen).strip()}\n'
            f'The smallest input that breaks it:\n{smallest}'
        )
