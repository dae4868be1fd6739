"""Tests of app.netem."""
