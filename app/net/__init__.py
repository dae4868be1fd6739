"""Between the bytes on a socket and the call: RTP and RTCP, SDP, signalling, UDP."""
