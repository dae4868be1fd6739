"""Tests through a real sound server; they need PulseAudio and PortAudio (see .ci/install-test-tools)."""
