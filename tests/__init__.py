"""Tests of advjax."""
