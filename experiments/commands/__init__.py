"""Commands that are not studies of one paper."""
