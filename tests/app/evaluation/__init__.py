"""Tests of `app.evaluation`."""
