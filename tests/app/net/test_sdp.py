from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.net.opus_fmtp import OpusParameters
from app.net.red import RedFormat
from app.net.sdp import (
    WIDEBAND,
    Answer,
    Direction,
    MediaDescription,
    Offer,
    SdpError,
    answer_direction,
)

SENDRECV, SENDONLY, RECVONLY, INACTIVE = (
    Direction.SENDRECV,
    Direction.SENDONLY,
    Direction.RECVONLY,
    Direction.INACTIVE,
)

MEDIA = MediaDescription("192.0.2.1", 5004, ssrc=1234, cname="me@here")
OURS = MediaDescription("192.0.2.2", 6000, ssrc=77, cname="we@there")

FOREIGN_OFFER = """v=0
o=alice 2890844526 2890844526 IN IP4 host.example
s=Call
i=A description with lines this program has no use for
c=IN IP4 198.51.100.7/127
b=AS:64
t=2873397496 2873404696
a=tool:something 1.0
a=recvonly
m=video 51372 RTP/AVP 99
a=rtpmap:99 h263-1998/90000
m=audio 49230 RTP/AVP 0 96 97 101
c=IN IP6 2001:db8::7
k=prompt
a=rtpmap:96 L8/8000
a=rtpmap:97 OPUS/48000/2
a=fmtp:97 maxplaybackrate=24000; stereo=1; sprop-stereo=1; useinbandfec=1; minptime=10; x-new
a=rtpmap:101 telephone-event/8000
a=rtcp-mux
a=ptime:60
a=ssrc:42 msid:a b
a=ssrc:42 cname:alice@host.example
a=rtcp-fb:97 nack
a=sendonly
m=application 9 TCP/MRCPv2 1
"""


def offer_with(*lines: str, media: str = "m=audio 5004 RTP/AVP 111") -> str:
    given = {"c=": "c=IN IP4 192.0.2.1"} | {line[:2]: line for line in lines if line[0] == "c"}
    attributes = [line for line in lines if line[0] == "a"]
    return "\r\n".join(
        ["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", given["c="], "t=0 0", media]
        + (attributes or ["a=rtpmap:111 opus/48000/2", "a=rtcp-mux"])
        + [""]
    )


def test_an_offer_says_what_the_rfcs_want_said() -> None:
    assert Offer(MEDIA, 17).to_sdp().split("\r\n") == [
        "v=0",
        "o=- 17 0 IN IP4 192.0.2.1",
        "s=-",
        "c=IN IP4 192.0.2.1",
        "t=0 0",
        "m=audio 5004 RTP/AVP 111",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 maxplaybackrate=16000;sprop-maxcapturerate=16000;stereo=0;useinbandfec=1",
        "a=ptime:20",
        "a=maxptime:20",
        "a=rtcp-mux",
        "a=sendrecv",
        "a=ssrc:1234 cname:me@here",
        "",
    ]


@settings(deadline=None)
@given(
    st.builds(
        MediaDescription,
        address=st.ip_addresses(v=4, network="198.51.100.0/24").map(str)
        | st.ip_addresses(v=6, network="2001:db8::/32").map(str),
        port=st.integers(1, 65535),
        payload_type=st.integers(96, 127),
        direction=st.sampled_from(Direction),
        opus=st.builds(
            OpusParameters,
            maxplaybackrate=st.integers(8000, 48000),
            stereo=st.booleans(),
            maxaveragebitrate=st.none() | st.integers(6000, 510_000),
            usedtx=st.booleans(),
            useinbandfec=st.booleans(),
            dred_duration=st.none() | st.integers(0, 60_000),
            sprop_dred_duration=st.none() | st.integers(0, 60_000),
        ),
        red=st.none() | st.builds(RedFormat, st.sampled_from([35, 63]), st.integers(1, 31)),
        ptime=st.none() | st.integers(3, 120),
        maxptime=st.none() | st.integers(20, 120),
        ssrc=st.integers(0, 2**32 - 1),
        cname=st.text(string.ascii_letters + string.digits + "@.-", min_size=1),
    ),
    st.integers(0, 2**63 - 1),
)
def test_a_description_reads_back_as_it_was_written(
    media: MediaDescription, session_id: int
) -> None:
    offer = Offer(media, session_id)
    answer = offer.answer(OURS, session_id)

    assert Offer.parse(offer.to_sdp()) == offer
    assert Answer.parse(answer.to_sdp(), offer) == answer


def test_an_offer_from_elsewhere_is_understood() -> None:
    offer = Offer.parse(FOREIGN_OFFER)

    assert offer.media == MediaDescription(
        address="2001:db8::7",
        port=49230,
        payload_type=97,
        direction=SENDONLY,
        opus=OpusParameters(
            maxplaybackrate=24_000, stereo=True, sprop_stereo=True, useinbandfec=True
        ),
        ptime=60,
        maxptime=None,
        ssrc=42,
        cname="alice@host.example",
    )


def test_the_answer_keeps_the_payload_type_and_refuses_all_but_the_audio() -> None:
    lines = Offer.parse(FOREIGN_OFFER).answer(OURS, 3).to_sdp().split("\r\n")

    assert [line for line in lines if line.startswith("m=")] == [
        "m=video 0 RTP/AVP 99",
        "m=audio 6000 RTP/AVP 97",
        "m=application 0 TCP/MRCPv2 1",
    ]
    assert "a=rtpmap:97 opus/48000/2" in lines
    assert "a=recvonly" in lines


def test_the_first_audio_that_can_be_used_is_taken() -> None:
    unusable = "m=audio 4000 RTP/SAVP 111\r\na=rtpmap:111 opus/48000/2\r\n"
    text = Offer(MEDIA, 1).to_sdp().replace("m=audio", unusable + "m=audio", 1)

    offer = Offer.parse(text)

    assert offer.media == MEDIA
    assert offer.sections == ("m=audio 4000 RTP/SAVP 111", None)


@pytest.mark.parametrize(
    ("offered", "wanted", "answered"),
    [
        (SENDRECV, SENDRECV, SENDRECV),
        (SENDRECV, SENDONLY, SENDONLY),
        (SENDRECV, RECVONLY, RECVONLY),
        (SENDONLY, SENDRECV, RECVONLY),
        (SENDONLY, SENDONLY, INACTIVE),
        (RECVONLY, SENDRECV, SENDONLY),
        (RECVONLY, RECVONLY, INACTIVE),
        (INACTIVE, SENDRECV, INACTIVE),
    ],
)
def test_directions_are_answered_from_the_other_side(
    offered: Direction, wanted: Direction, answered: Direction
) -> None:
    assert answer_direction(offered, wanted) == answered


def test_direction_is_both_ways_unless_stated_and_may_be_stated_for_the_session() -> None:
    text = offer_with()

    assert Offer.parse(text).media.direction == SENDRECV
    assert Offer.parse(text.replace("t=0 0", "t=0 0\r\na=inactive")).media.direction == INACTIVE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "v=0"),
        ("hello", "v=0"),
        ("v=1\r\n", "v=0"),
        ("v=0\r\ns=-\r\n", "o= line"),
        ("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n", "no audio"),
        (offer_with(media="m=video 5004 RTP/AVP 111"), "no audio"),
        (offer_with(media="m=audio 0 RTP/AVP 111"), "port 0"),
        (offer_with(media="m=audio 65536 RTP/AVP 111"), "65536"),
        (offer_with(media="m=audio 5004/2 RTP/AVP 111"), "5004/2"),
        (offer_with(media="m=audio"), "m=audio"),
        (offer_with(media="m=audio 5004 RTP/SAVP 111"), "'RTP/SAVP', not RTP/AVP"),
        (offer_with(media="m=audio 9 UDP/TLS/RTP/SAVPF 111"), "'UDP/TLS/RTP/SAVPF'"),
        (offer_with(media="m=audio 5004 RTP/AVP 0 8"), "opus/48000/2"),
        (offer_with("a=rtpmap:111 opus/16000", "a=rtcp-mux"), "opus/48000/2"),
        (offer_with("a=rtpmap:111 opus/48000/2"), "rtcp-mux"),
        (
            offer_with("a=rtpmap:72 opus/48000/2", "a=rtcp-mux", media="m=audio 5004 RTP/AVP 72"),
            "RTCP",
        ),
        (
            offer_with("a=rtpmap:200 opus/48000/2", "a=rtcp-mux", media="m=audio 5004 RTP/AVP 200"),
            "200",
        ),
        (offer_with("a=rtpmap:111 opus/48000/2", "a=rtcp-mux", "a=maxptime:10"), "maxptime 10"),
        (
            offer_with(
                "a=rtpmap:111 opus/48000/2", "a=rtcp-mux", "a=fmtp:111 maxplaybackrate=4000"
            ),
            "maxplaybackrate='4000'",
        ),
        (
            offer_with("a=rtpmap:111 opus/48000/2", "a=rtcp-mux", "a=fmtp:111 stereo=yes"),
            "stereo='yes'",
        ),
        (offer_with("c=IN IP4 224.2.36.42/127"), "224.2.36.42 is multicast"),
        (offer_with("c=IN IP6 ff02::1"), "ff02::1 is multicast"),
        (offer_with("c=IN IP6 ::ffff:224.0.0.1"), "multicast"),
        (offer_with("c=IN IP4 0.0.0.0"), "0.0.0.0"),
        (offer_with("c=IN IP4 255.255.255.255"), "255.255.255.255"),
        (offer_with("c=IN IP4 host.example"), "'host.example' is not an IP address"),
        (offer_with("c=IN IP4 2001:db8::1"), "not of type IP4"),
        (offer_with("c=ATM x"), "c=ATM x"),
        (offer_with().replace("c=IN IP4 192.0.2.1\r\n", ""), "no connection address"),
        ("v=0\r\n" + "a=x\r\n" * 20_000, "64 kB"),
        (offer_with() + "m=video 1 RTP/AVP 1\r\n" * 40, "32 media"),
    ],
)
def test_an_offer_that_cannot_be_used_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SdpError) as refusal:
        Offer.parse(text)

    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("m=audio 6000", "m=audio 0"), "port 0"),
        ((":111 opus", ":112 opus"), "opus/48000/2"),
        (("111", "112"), "payload type 112 instead of 111"),
        (("a=sendrecv", "a=recvonly"), None),
        (("m=audio", "m=video 5 RTP/AVP 9\r\nm=audio"), "as many media sections"),
        (("a=rtcp-mux\r\n", ""), "rtcp-mux"),
    ],
)
def test_an_answer_has_to_fit_the_offer(change: tuple[str, str], reason: str | None) -> None:
    offer = Offer(MEDIA, 1)
    text = offer.answer(OURS, 2).to_sdp().replace(*change)

    if reason is None:
        assert Answer.parse(text, offer).media.direction == RECVONLY
    else:
        with pytest.raises(SdpError, match=reason):
            Answer.parse(text, offer)


def test_an_answer_may_not_send_what_was_not_offered_to_be_received() -> None:
    offer = Offer(replace(MEDIA, direction=SENDONLY), 1)

    with pytest.raises(SdpError, match="sendonly"):
        Answer.parse(Offer(OURS, 2).to_sdp(), offer)


def test_format_parameters_are_declared_by_their_names_in_the_rfc_and_the_draft() -> None:
    opus = OpusParameters(
        sprop_stereo=True,
        maxaveragebitrate=24_000,
        cbr=True,
        usedtx=True,
        dred_duration=1000,
        sprop_dred_duration=500,
    )

    assert opus.to_fmtp() == (
        "stereo=0;sprop-stereo=1;maxaveragebitrate=24000;cbr=1;usedtx=1"
        ";ext32-dred-duration=1000;sprop-ext32-dred-duration=500"
    )
    assert OpusParameters.from_fmtp(opus.to_fmtp()) == opus


def test_a_bitrate_opus_cannot_have_means_the_nearest_it_can() -> None:
    assert OpusParameters.from_fmtp("maxaveragebitrate=9999999").maxaveragebitrate == 510_000
    assert OpusParameters.from_fmtp("maxaveragebitrate=1").maxaveragebitrate == 6_000


def test_without_parameters_the_defaults_of_the_rfc_hold() -> None:
    assert OpusParameters.from_fmtp("") == OpusParameters()
    assert OpusParameters.from_fmtp(" ; =1; x=2;").maxplaybackrate == 48_000


@settings(deadline=None)
@given(
    st.one_of(
        st.text(max_size=400),
        st.lists(
            st.sampled_from([*FOREIGN_OFFER.splitlines(), *Offer(MEDIA, 1).to_sdp().splitlines()])
            | st.text("acmvot=:/ 0123456789\r\n\x00é", max_size=40),
            max_size=40,
        ).map("\r\n".join),
        st.builds(
            lambda at, text: FOREIGN_OFFER[:at] + text + FOREIGN_OFFER[at + len(text) :],
            st.integers(0, len(FOREIGN_OFFER)),
            st.text(max_size=5),
        ),
    )
)
def test_any_text_is_an_offer_that_can_be_answered_or_is_refused(text: str) -> None:
    try:
        offer = Offer.parse(text)
    except SdpError:
        return
    answer = offer.answer(replace(OURS, opus=WIDEBAND), 1)
    assert Answer.parse(answer.to_sdp(), offer) == answer


WITH_RED = replace(MEDIA, red=RedFormat(63, 2))


def test_copies_are_offered_before_plain_opus() -> None:
    lines = Offer(WITH_RED, 1).to_sdp().split("\r\n")

    assert "m=audio 5004 RTP/AVP 63 111" in lines
    assert "a=rtpmap:63 red/48000/2" in lines
    assert "a=fmtp:63 111/111/111" in lines


def test_copies_are_agreed_on_only_if_both_sides_take_them() -> None:
    offer = Offer(replace(WITH_RED, red=RedFormat(35, 1)), 1)

    assert offer.answer(OURS, 2).media.red is None
    assert Offer(MEDIA, 1).answer(replace(OURS, red=RedFormat()), 2).media.red is None
    assert offer.answer(replace(OURS, red=RedFormat(63, 2)), 2).media.red == RedFormat(35, 2)


def test_an_answer_with_copies_that_were_not_offered_is_one_without() -> None:
    offer, answer = Offer(MEDIA, 1), Offer(WITH_RED, 1).answer(replace(OURS, red=RedFormat()), 2)

    assert Answer.parse(answer.to_sdp(), offer).media.red is None
    other = Offer(replace(MEDIA, red=RedFormat(35, 1)), 1)
    assert Answer.parse(answer.to_sdp(), other).media.red is None


@pytest.mark.parametrize(
    "change",
    [
        ("a=fmtp:63 111/111/111\r\n", ""),
        ("111/111/111", "111"),
        ("111/111/111", "111/0"),
        ("111/111/111", "111/"),
        ("111/111/111", "/".join(["111"] * 40)),
        ("red/48000/2", "red/8000"),
        ("63", "64"),
        ("63", "200"),
    ],
)
def test_a_format_of_copies_that_cannot_be_used_is_passed_over(change: tuple[str, str]) -> None:
    text = Offer(WITH_RED, 1).to_sdp().replace(*change)

    assert Offer.parse(text).media == MEDIA


def test_the_offer_of_a_browser_has_copies_of_one_packet() -> None:
    text = offer_with(
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
        "a=rtcp-mux",
        media="m=audio 9 RTP/AVP 111 63 9 0 8 13 110 126",
    )

    assert Offer.parse(text).media.red == RedFormat(63, 1)
