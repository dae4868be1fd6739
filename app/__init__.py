"""The program: command line, RTP endpoint, audio devices and files, impairments, statistics."""
