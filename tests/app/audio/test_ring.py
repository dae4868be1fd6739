"""The ring between a device's callback and our thread."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.audio.ring import SampleRing


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.booleans(), st.integers(0, 70)), max_size=60),
)
def test_samples_come_out_in_order_and_once(capacity: int, steps: list[tuple[bool, int]]) -> None:
    ring = SampleRing(capacity)
    following = np.arange(20_000, dtype=np.int16)
    written = taken = 0
    for write, size in steps:
        if write:
            count = ring.write(following[written : written + size])
            assert count == min(size, capacity - (written - taken))
            written += count
        else:
            out = np.full(size, -1, np.int16)
            count = ring.read_into(out)
            assert count == min(size, written - taken)
            np.testing.assert_array_equal(out[:count], following[taken : taken + count])
            assert (out[count:] == -1).all()
            taken += count
        assert (ring.written, ring.taken, len(ring)) == (written, taken, written - taken)


def test_two_threads_lose_nothing() -> None:
    ring = SampleRing(512)
    everything = np.arange(30_000, dtype=np.int16)
    heard: list[np.ndarray] = []

    def read() -> None:
        out = np.empty(100, np.int16)
        while ring.taken < len(everything):
            heard.append(out[: ring.read_into(out)].copy())

    reader = threading.Thread(target=read)
    reader.start()
    position = 0
    while position < len(everything):
        position += ring.write(everything[position : position + 77])
    reader.join()
    np.testing.assert_array_equal(np.concatenate(heard), everything)
