"""How fast attacks and training are."""
