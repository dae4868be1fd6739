"""Tests of codec_ext."""
