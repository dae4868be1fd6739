"""Tests through a real sound server: PulseAudio and PortAudio, see .ci/install-test-tools."""
