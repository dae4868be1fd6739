from __future__ import annotations

import struct
from random import Random

import pytest
from aiortc.rtp import (
    RtcpByePacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
    RtpPacket,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from app.net.red import Copy, RedEncoder
from app.net.reports import make_cname
from app.net.rtcp import ByeReceived, ReportReceived, parse_compound
from app.net.rtp import MAX_DATAGRAM, RtpReceived
from app.net.session import DropReason, RtpSession
from app.net.xr import ExtendedReport
from codec import FRAME_SECONDS, FRAME_TICKS

NTP_AT_ZERO = 3_900_000_000 << 32
US, PEER = 0x11111111, 0x22222222


def ntp(now: float, offset: float = 0.0) -> int:
    return NTP_AT_ZERO + round((now + offset) * 2**32)


def session(
    ssrc: int = US, peer: int | None = PEER, seed: int = 1, host: str = "h" * 16
) -> RtpSession:
    rng = Random(seed)
    return RtpSession(
        now=0.0, rng=rng, cname=make_cname(rng, host), payload_type=111, ssrc=ssrc, peer_ssrc=peer
    )


def media(
    sequence: int = 0, *, ssrc: int = PEER, payload_type: int = 111, payload: bytes = b"opus"
) -> bytes:
    return RtpPacket(
        payload_type=payload_type,
        sequence_number=sequence,
        timestamp=sequence * FRAME_TICKS,
        ssrc=ssrc,
        payload=payload,
    ).serialize()


def arrivals(receiver: RtpSession, *datagrams: bytes) -> list[int]:
    """Sequence numbers of what is delivered."""
    return [
        event.sequence
        for datagram in datagrams
        for event in receiver.receive(datagram, 1.0, ntp(1.0))
        if isinstance(event, RtpReceived)
    ]


def talk(sender: RtpSession, receiver: RtpSession, frames: range, delay: float = 0.0) -> None:
    for i in frames:
        sent = i * FRAME_SECONDS
        packet = sender.packetise(b"opus", i * FRAME_TICKS, sent)
        receiver.receive(packet, sent + delay, ntp(sent + delay))


def only_report(receiver: RtpSession, data: bytes, arrival: float) -> ReportReceived:
    (event,) = receiver.receive(data, arrival, ntp(arrival))
    assert isinstance(event, ReportReceived)
    return event


def test_a_packet_arrives_as_it_was_sent() -> None:
    sender, receiver = session(), session(PEER, US)

    (event,) = receiver.receive(
        sender.packetise(b"payload", 960, captured_at=3.0, marker=True), 3.5, ntp(3.5)
    )

    assert isinstance(event, RtpReceived)
    assert (event.payload, event.marker, event.ssrc, event.arrival) == (b"payload", True, US, 3.5)
    assert (event.timestamp - sender.rtp_origin) % 2**32 == 960
    assert receiver.last_heard == 3.5


def test_an_announced_source_is_heard_from_its_first_packet() -> None:
    assert arrivals(session(peer=PEER), media(5), media(6)) == [5, 6]


def test_an_unannounced_source_is_delivered_in_full_once_two_packets_follow_each_other() -> None:
    receiver = session(peer=None)

    assert arrivals(receiver, media(5)) == []
    assert receiver.peer_ssrc is None
    assert arrivals(receiver, media(6), media(8)) == [5, 6, 8]
    assert receiver.peer_ssrc == PEER
    assert receiver.stats()["inbound-rtp"]["packetsReceived"] == 3
    assert receiver.stats()["inbound-rtp"]["packetsLost"] == 1


def test_probation_does_not_join_packets_of_two_sources() -> None:
    receiver = session(peer=None)

    assert arrivals(receiver, media(5, ssrc=7), media(6, ssrc=8), media(9, ssrc=8)) == []
    assert receiver.dropped == {DropReason.PROBATION: 2}


def test_a_third_party_is_not_heard() -> None:
    for receiver in (session(peer=PEER), session(peer=None)):
        arrivals(receiver, media(1), media(2))

        assert arrivals(receiver, media(3, ssrc=99), media(4, ssrc=99), media(3)) == [3]
        assert receiver.dropped == {DropReason.WRONG_SSRC: 2}


def test_a_source_leaves_with_bye_and_another_may_follow_if_none_was_announced() -> None:
    receiver = session(peer=None)
    arrivals(receiver, media(1), media(2))
    bye = bytes(RtcpRrPacket(PEER)) + bytes(RtcpByePacket([PEER]))

    assert receiver.receive(bye, 2.0, ntp(2.0))[1:] == [ByeReceived(PEER, 2.0)]
    assert arrivals(receiver, media(3), media(4)) == []
    assert arrivals(receiver, media(70, ssrc=99), media(71, ssrc=99)) == [70, 71]


def test_after_the_bye_of_an_announced_source_nobody_is_heard() -> None:
    receiver = session(peer=PEER)
    bye = bytes(RtcpRrPacket(PEER)) + bytes(RtcpByePacket([PEER]))
    receiver.receive(bye, 2.0, ntp(2.0))

    assert arrivals(receiver, media(1), media(2), media(3, ssrc=9), media(4, ssrc=9)) == []


def test_a_bye_for_somebody_else_is_no_bye() -> None:
    receiver = session()
    bye = bytes(RtcpRrPacket(PEER)) + bytes(RtcpByePacket([99]))

    assert not any(isinstance(e, ByeReceived) for e in receiver.receive(bye, 2.0, ntp(2.0)))
    assert arrivals(receiver, media(1)) == [1]


def test_our_own_packets_coming_back_are_dropped() -> None:
    us = session()
    report = us.make_report(1.0, ntp(1.0))

    assert us.receive(us.packetise(b"x", 0, 0.0), 1.0, ntp(1.0)) == []
    assert us.receive(report, 1.1, ntp(1.1)) == []
    assert us.dropped == {DropReason.LOOP: 2}
    assert us.last_heard is None


def test_a_chosen_ssrc_differs_from_the_announced_one() -> None:
    taken = Random(5).getrandbits(32)
    us = RtpSession(now=0.0, rng=Random(5), cname="c", payload_type=111, peer_ssrc=taken)

    assert us.ssrc != taken


def test_other_payload_types_and_empty_packets_count_as_received_but_are_not_delivered() -> None:
    receiver = session()

    assert arrivals(receiver, media(1), media(2, payload_type=13), media(3, payload=b"")) == [1]
    assert receiver.dropped == {DropReason.WRONG_PAYLOAD_TYPE: 1, DropReason.EMPTY: 1}
    assert receiver.stats()["inbound-rtp"]["packetsReceived"] == 3
    assert receiver.stats()["inbound-rtp"]["packetsLost"] == 0


def test_padding_contributors_and_extensions_are_taken_off() -> None:
    header = struct.pack("!BBHLL", 0xB2, 111, 1, 2, PEER)
    contributors = struct.pack("!LL", 3, 4)
    extension = struct.pack("!HHL", 0xABAC, 1, 5)
    padding = b"\0\0\0\4"

    (event,) = session().receive(
        header + contributors + extension + b"payload" + padding, 1.0, ntp(1.0)
    )

    assert isinstance(event, RtpReceived)
    assert event.payload == b"payload"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        media()[:11],
        b"\x00" + media()[1:],  # STUN, version 0
        b"\x16\xfe\xfd" + bytes(20),  # DTLS
        b"\xa0" + media(payload=b"\x09")[1:],  # more padding than packet
        b"\x8f" + media()[1:],  # fifteen contributors that are not there
        b"\x90" + media(payload=b"\xbe\xde\0\x09")[1:],  # extension longer than the packet
        b"\x90" + media(payload=b"\xbe\xde\0\x01\x1f\0\0\0")[1:],  # element longer than extension
    ],
)
def test_what_is_not_rtp_is_dropped_as_malformed(data: bytes) -> None:
    receiver = session()

    assert receiver.receive(data, 1.0, ntp(1.0)) == []
    assert receiver.dropped == {DropReason.MALFORMED: 1}


def test_what_no_network_carries_is_not_even_parsed() -> None:
    receiver = session()

    assert arrivals(receiver, media(payload=bytes(MAX_DATAGRAM))) == []
    assert receiver.dropped == {DropReason.TOO_LARGE: 1}


def test_a_jump_of_the_sequence_costs_one_packet() -> None:
    receiver = session()

    assert arrivals(receiver, media(1), media(30_000), media(30_001), media(30_002)) == [
        1,
        30_001,
        30_002,
    ]
    assert receiver.dropped == {DropReason.OUT_OF_RUN: 1}


def test_who_has_not_sent_reports_as_a_receiver_and_who_has_as_a_sender() -> None:
    us, peer = session(), session(PEER, US)
    talk(peer, us, range(10))

    ours = parse_compound(us.make_report(0.3, ntp(0.3)))[0]
    theirs = parse_compound(peer.make_report(0.3, ntp(0.3)))[0]

    assert [type(piece) for piece in ours] == [RtcpRrPacket, RtcpSdesPacket, ExtendedReport]
    assert [type(piece) for piece in theirs] == [RtcpSrPacket, RtcpSdesPacket]
    assert isinstance(theirs[0], RtcpSrPacket)
    assert theirs[0].sender_info.packet_count == 10
    assert theirs[0].sender_info.octet_count == 40
    assert theirs[0].sender_info.ntp_timestamp == ntp(0.3)
    assert (theirs[0].sender_info.rtp_timestamp - peer.rtp_origin) % 2**32 == 14_400


def test_a_sender_that_falls_silent_becomes_a_receiver_after_two_reports() -> None:
    us = session()
    us.packetise(b"x", 0, 0.0)

    kinds = [type(parse_compound(us.make_report(t, ntp(t)))[0][0]) for t in (1.0, 2.0, 3.0)]

    assert kinds == [RtcpSrPacket, RtcpSrPacket, RtcpRrPacket]


def test_loss_and_jitter_reach_the_sender() -> None:
    us, peer = session(), session(PEER, US)
    for i in range(100):
        sent = i * FRAME_SECONDS
        packet = us.packetise(b"opus", i * FRAME_TICKS, sent)
        if i % 4 != 3:
            arrival = sent + 0.010 * (i % 2)
            peer.receive(packet, arrival, ntp(arrival))

    reception = only_report(us, peer.make_report(2.0, ntp(2.0)), 2.0).reception

    assert reception is not None
    assert reception.packets_lost == 24  # the hundredth is not missed yet
    assert reception.fraction_lost == pytest.approx(24 / 99, abs=1 / 256)
    assert reception.jitter == pytest.approx(0.0067, abs=0.002)
    assert us.stats()["remote-inbound-rtp"]["packetsLost"] == 24
    assert peer.stats()["inbound-rtp"]["packetsLost"] == 24


def test_round_trips_are_summed_and_one_report_without_leaves_the_latest_known() -> None:
    us, peer = session(), session(PEER, US)
    talk(us, peer, range(10))
    for sent, delay in ((1.0, 0.020), (2.0, 0.030)):
        talk(us, peer, range(10))
        peer.receive(us.make_report(sent, ntp(sent)), sent + delay, ntp(sent + delay))
        answer = peer.make_report(sent + 0.5, ntp(sent + 0.5))
        us.receive(answer, sent + 0.5 + delay, ntp(sent + 0.5 + delay))
    stranger = session(PEER, US)
    talk(us, stranger, range(20, 30))
    us.receive(stranger.make_report(3.0, ntp(3.0)), 3.0, ntp(3.0))

    measured = us.stats()["remote-inbound-rtp"]
    assert measured["roundTripTimeMeasurements"] == 2
    assert measured["roundTripTime"] == pytest.approx(0.060, abs=1e-4)
    assert measured["totalRoundTripTime"] == pytest.approx(0.100, abs=1e-4)


def test_a_source_that_has_not_been_heard_since_is_not_reported_on() -> None:
    us, peer = session(), session(PEER, US)
    talk(us, peer, range(5))

    assert only_report(us, peer.make_report(1.0, ntp(1.0)), 1.0).reception is not None
    assert only_report(us, peer.make_report(2.0, ntp(2.0)), 2.0).reception is None


def exchange(us: RtpSession, peer: RtpSession, out: float, back: float, held: float) -> None:
    """Our report travels for `out` seconds, the peer answers `held` later, `back` seconds away.

    The peer's wall clock is an hour ahead of ours.
    """
    report = us.make_report(10.0, ntp(10.0))
    peer.receive(report, 10.0 + out, ntp(10.0 + out, 3600))
    answered = 10.0 + out + held
    answer = peer.make_report(answered, ntp(answered, 3600))
    us.receive(answer, answered + back, ntp(answered + back))


def test_the_round_trip_leaves_out_what_the_peer_held_the_report_for() -> None:
    us, peer = session(), session(PEER, US)
    talk(us, peer, range(5))

    exchange(us, peer, out=0.030, back=0.050, held=0.7)

    assert us.round_trip == pytest.approx(0.080, abs=2 / 65536)


def test_a_report_that_answers_none_of_ours_tells_no_round_trip() -> None:
    us = session()
    block = RtcpReceiverInfo(US, 0, 0, 0, 0, lsr=0x1234, dlsr=5)

    reception = only_report(us, bytes(RtcpRrPacket(PEER, [block])), 1.0).reception

    assert reception is not None
    assert reception.round_trip is None


def test_a_report_about_another_stream_is_not_about_ours() -> None:
    us = session()
    block = RtcpReceiverInfo(99, 255, 1000, 0, 0, 0, 0)

    assert only_report(us, bytes(RtcpRrPacket(PEER, [block])), 1.0).reception is None


def test_capture_instants_survive_unsynchronised_wall_clocks() -> None:
    us, peer = session(host="a" * 16), session(PEER, US, host="b" * 16)
    talk(us, peer, range(5))
    talk(peer, us, range(500))  # captured at 20 ms each

    assert us.captured_at(peer.rtp_origin) is None
    exchange(us, peer, out=0.030, back=0.050, held=0.0)

    estimate = us.captured_at(peer.rtp_origin + 100 * FRAME_TICKS)
    assert estimate is not None
    assert estimate.uncertainty == pytest.approx(0.040, abs=0.001)
    assert abs(estimate.instant - 2.0) <= estimate.uncertainty
    assert not us.clock_map.shared_wall_clock


def test_on_one_machine_one_report_tells_capture_instants_exactly() -> None:
    us, peer = session(), session(PEER, US)
    talk(peer, us, range(500))

    us.receive(peer.make_report(10.0, ntp(10.0)), 10.3, ntp(10.3))

    estimate = us.captured_at(peer.rtp_origin + 100 * FRAME_TICKS)
    assert estimate is not None
    assert estimate.instant == pytest.approx(2.0, abs=1e-4)
    assert estimate.uncertainty < 0.001


def test_a_bye_carries_the_last_report() -> None:
    us, peer = session(), session(PEER, US)
    talk(peer, us, range(5))

    events = us.receive(peer.make_bye(1.0, ntp(1.0)), 1.0, ntp(1.0))

    assert isinstance(events[0], ReportReceived)
    assert events[0].sender is not None
    assert events[0].sender.packets == 5
    assert events[1:] == [ByeReceived(PEER, 1.0)]


def test_counters_outlive_the_bye() -> None:
    us, peer = session(), session(PEER, US)
    talk(peer, us, range(5))
    us.receive(peer.make_bye(1.0, ntp(1.0)), 1.0, ntp(1.0))

    assert us.stats()["inbound-rtp"]["packetsReceived"] == 5
    assert us.stats()["remote-outbound-rtp"]["packetsSent"] == 5


def test_unknown_rtcp_beside_a_report_is_counted_and_the_report_is_read() -> None:
    us = session()
    feedback = struct.pack("!BBHL", 0x80, 205, 1, PEER)

    only_report(us, bytes(RtcpRrPacket(PEER)) + feedback, 1.0)

    assert us.dropped == {DropReason.UNKNOWN_RTCP: 1}


def test_reports_of_a_stranger_are_dropped() -> None:
    us = session()

    assert us.receive(bytes(RtcpRrPacket(99)), 1.0, ntp(1.0)) == []
    assert us.dropped == {DropReason.WRONG_SSRC: 1}


def test_what_another_source_reported_is_void_once_the_real_one_is_known() -> None:
    us, other = session(peer=None), session(99, US)
    other.packetise(b"x", 0, 0.0)
    us.receive(other.make_report(0.5, ntp(0.5)), 0.5, ntp(0.5))
    assert us.captured_at(0) is not None

    arrivals(us, media(1), media(2))

    assert us.captured_at(0) is None
    (block,) = first_report(us).reports
    assert (block.ssrc, block.lsr, block.dlsr) == (PEER, 0, 0)


def first_report(us: RtpSession) -> RtcpRrPacket:
    piece = parse_compound(us.make_report(2.0, ntp(2.0)))[0][0]
    assert isinstance(piece, RtcpRrPacket)
    return piece


def test_the_first_report_follows_the_first_packet_and_the_second_waits_its_turn() -> None:
    us = session()
    assert not us.rtcp_due(0.001)
    us.packetise(b"x", 0, 0.001)
    assert us.rtcp_due(0.002)
    us.make_report(0.002, ntp(0.002))
    us.packetise(b"x", 960, 0.021)
    assert not us.rtcp_due(0.022)


def test_reports_come_about_once_a_second() -> None:
    us, now, reports = session(), 0.0, 0
    while now < 100.0:
        us.packetise(b"x", 0, now)
        if us.rtcp_due(now):
            us.make_report(now, ntp(now))
            reports += 1
        now += FRAME_SECONDS
    assert 80 < reports < 125


def valid_datagrams() -> list[bytes]:
    us, peer = session(), session(PEER, US)
    talk(us, peer, range(3))
    return [
        peer.packetise(b"payload" * 10, 0, 0.0, marker=True),
        peer.make_report(1.0, ntp(1.0)),
        peer.make_bye(1.0, ntp(1.0)),
        media(7),
    ]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.builds(
                lambda start, rest: start + rest,
                st.sampled_from([b"\x80\x6f", b"\x80\xc8", b"\x81\xc9", b"\xa1\xca", b"\x9f\xcb"]),
                st.binary(max_size=120),
            ),
            st.builds(
                lambda data, cut, at, bit: bytes(
                    byte ^ (1 << bit if i == at else 0) for i, byte in enumerate(data[:cut])
                ),
                st.sampled_from(valid_datagrams()),
                st.integers(1, 200),
                st.integers(0, 120),
                st.integers(0, 7),
            ),
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_no_bytes_raise_and_every_report_can_still_be_written(
    datagrams: list[bytes], announced: bool
) -> None:
    us = session(peer=PEER if announced else None)
    us.packetise(b"x", 0, 0.0)
    for i, data in enumerate(datagrams):
        now = i * 0.5
        for event in us.receive(data, now, ntp(now)):
            if isinstance(event, RtpReceived):
                us.captured_at(event.timestamp)
        parse_compound(us.make_report(now, ntp(now)))
    assert set(us.stats()) == {
        "inbound-rtp",
        "outbound-rtp",
        "remote-inbound-rtp",
        "remote-outbound-rtp",
    }
    assert sum(us.dropped.values()) <= 30 * len(datagrams)


def test_memory_stays_bounded_however_long_the_call() -> None:
    us, peer = session(), session(PEER, US)
    for i in range(3000):
        now = i * 1.0
        us.packetise(b"x", i, now)
        peer.packetise(b"x", i, now)
        peer.receive(us.make_report(now, ntp(now)), now, ntp(now))
        us.receive(peer.make_report(now, ntp(now)), now, ntp(now))
    assert len(us._reports._sent) == 64
    assert len(us.clock_map._exchanges) <= 64


def with_copies(receiver_agrees: bool = True) -> tuple[RtpSession, RtpSession, RedEncoder]:
    """A sender of RED, a receiver, and what packs the payloads."""
    sides = [
        RtpSession(
            now=0.0,
            rng=Random(1),
            cname=name,
            payload_type=111,
            red_payload_type=63 if agrees else None,
            ssrc=ssrc,
            peer_ssrc=peer,
        )
        for name, ssrc, peer, agrees in (("a", US, PEER, True), ("b", PEER, US, receiver_agrees))
    ]
    return sides[0], sides[1], RedEncoder(111)


def test_a_packet_that_repeats_others_arrives_as_itself_with_copies() -> None:
    sender, receiver, red = with_copies()
    red.protect(b"before", 0, 1)
    payload = red.protect(b"now", FRAME_TICKS, 1)
    assert payload is not None

    first = sender.packetise(b"before", 0, 0.0)
    (before,) = receiver.receive(first, 0.0, ntp(0.0))
    (event,) = receiver.receive(
        sender.packetise(payload, FRAME_TICKS, 0.02, red=True), 0.02, ntp(0.02)
    )

    assert isinstance(before, RtpReceived)
    assert isinstance(event, RtpReceived)
    assert event.payload == b"now"
    assert event.payload_type == 111
    assert event.copies == (Copy(before.sequence, before.timestamp, b"before"),)
    assert receiver.bytes_received == len(b"before") + len(payload)
    assert receiver.red_bytes_received == len(payload) - len(b"now")


def test_copies_that_were_not_agreed_on_are_dropped() -> None:
    sender, receiver, _ = with_copies(receiver_agrees=False)
    packet = sender.packetise(b"\x6fnow", 0, 0.0, red=True)
    assert receiver.receive(packet, 0.0, ntp(0.0)) == []
    assert receiver.dropped == {DropReason.WRONG_PAYLOAD_TYPE: 1}


def test_malformed_copies_are_dropped_and_counted_as_received() -> None:
    sender, receiver, _ = with_copies()
    for payload in (b"", b"\xef", b"\x0dnoise"):
        assert receiver.receive(sender.packetise(payload, 0, 0.0, red=True), 0.0, ntp(0.0)) == []
    assert receiver.dropped == {DropReason.MALFORMED: 3}
    assert receiver.stats()["inbound-rtp"]["packetsReceived"] == 3


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_payload_of_copies_is_taken_or_dropped(payloads: list[bytes]) -> None:
    sender, receiver, _ = with_copies()
    for payload in payloads:
        packet = sender.packetise(payload, 0, 0.0, red=True)
        for event in receiver.receive(packet, 0.0, ntp(0.0)):
            assert isinstance(event, RtpReceived)
            assert event.payload
            assert len(event.payload) + sum(len(c.payload) for c in event.copies) < len(payload)
