"""Tests of jitterbuffer."""
