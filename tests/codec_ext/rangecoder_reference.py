"""The range coder of RFC 6716 in exact arithmetic, written from the RFC's text alone.

Slow and plain: the encoder keeps the whole code value as one big integer, so that carries need no
care, and the decoder reads bits from a list. Raw bits are kept apart and join at the end.
"""

from __future__ import annotations

TOP = 1 << 31
BOTTOM = 1 << 23


class ReferenceEncoder:
    """Section 5.1: `low` is the code value so far, of which `shift` bits lie above the range."""

    def __init__(self) -> None:
        self.low = 0
        self.range = TOP
        self.shifts = 0
        self.raw: list[int] = []

    def encode(self, low: int, high: int, total: int) -> None:
        scale = self.range // total
        if low > 0:
            self.low += self.range - scale * (total - low)
            self.range = scale * (high - low)
        else:
            self.range -= scale * (total - high)
        while self.range <= BOTTOM:
            self.range <<= 8
            self.low <<= 8
            self.shifts += 8

    def icdf(self, symbol: int, table: list[int], bits: int) -> None:
        total = 1 << bits
        low = total - table[symbol - 1] if symbol else 0
        self.encode(low, total - table[symbol], total)

    def bits(self, value: int, count: int) -> None:
        self.raw += [value >> i & 1 for i in range(count)]

    def uint(self, value: int, total: int) -> None:
        split = max(0, (total - 1).bit_length() - 8)
        self.encode(value >> split, (value >> split) + 1, ((total - 1) >> split) + 1)
        self.bits(value & ((1 << split) - 1), split)

    def tell(self) -> int:
        """Section 4.1.6.1: bits spent, with one reserved for ending the code."""
        return 33 + self.shifts - self.range.bit_length() + len(self.raw)

    def finish(self, size: int) -> bytes:
        """Section 5.1.5: the value in [low, low + range) with the most trailing zeros."""
        for zeros in range(self.range.bit_length(), -1, -1):
            end = -(-self.low >> zeros) << zeros
            if end + (1 << zeros) - 1 < self.low + self.range:
                break
        # The first bit of the first byte is always the one above the 31 bits of the initial range.
        length = 31 + self.shifts
        code = [end >> (length - 1 - i) & 1 for i in range(length)]
        used = length - zeros
        out = [0] * (8 * size)
        assert used <= len(out) - len(self.raw), "does not fit"
        out[:used] = code[:used]
        for i, bit in enumerate(self.raw):
            byte, place = divmod(i, 8)
            out[8 * (size - 1 - byte) + 7 - place] |= bit
        return bytes(int("".join(map(str, out[k : k + 8])), 2) for k in range(0, len(out), 8))


class ReferenceDecoder:
    """Section 4.1, with the code value itself in place of its distance from the top."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.range = TOP
        # 31 bits; section 4.1.1 reads 7 of them first and normalises three times.
        self.position = 31
        self.value = sum(self.bit(i) << (30 - i) for i in range(31))
        self.raw = 0

    def bit(self, index: int) -> int:
        byte, place = divmod(index, 8)
        return self.data[byte] >> (7 - place) & 1 if byte < len(self.data) else 0

    def decode(self, total: int) -> int:
        scale = self.range // total
        # The lowest symbol also owns what the division leaves over.
        from_top = (self.range - 1 - self.value) // scale
        return total - 1 - min(from_top, total - 1)

    def update(self, low: int, high: int, total: int) -> None:
        scale = self.range // total
        bottom = self.range - scale * (total - low) if low else 0
        self.range = scale * (high - low) if low else self.range - scale * (total - high)
        self.value -= bottom
        while self.range <= BOTTOM:
            self.range <<= 8
            for _ in range(8):
                self.value = self.value << 1 | self.bit(self.position)
                self.position += 1

    def icdf(self, table: list[int], bits: int) -> int:
        total = 1 << bits
        found = self.decode(total)
        symbol = next(k for k, above in enumerate(table) if found < total - above)
        low = total - table[symbol - 1] if symbol else 0
        self.update(low, total - table[symbol], total)
        return symbol

    def bits(self, count: int) -> int:
        value = 0
        for i in range(count):
            byte, place = divmod(self.raw, 8)
            if byte < len(self.data):
                value |= (self.data[len(self.data) - 1 - byte] >> place & 1) << i
            self.raw += 1
        return value

    def uint(self, total: int) -> int:
        split = max(0, (total - 1).bit_length() - 8)
        count = ((total - 1) >> split) + 1
        top = self.decode(count)
        self.update(top, top + 1, count)
        return min(top << split | self.bits(split), total - 1)

    def tell(self) -> int:
        return self.position + 2 - self.range.bit_length() + self.raw


def laplace_tables(p0: int, r: int) -> tuple[list[int], list[int]]:
    """Inverse cumulative tables, 15 bit, of sign and of magnitude in groups of seven."""
    zero = 32768 - 128 * p0
    tail = [max(7, 128 * r)]
    for i in range(1, 7):
        tail.append(max(7 - i, tail[-1] * 128 * r // 32768))
    return [zero, zero // 2, 0], [*tail, 0]


def laplace_encode(coder: ReferenceEncoder, value: int, p0: int, r: int) -> None:
    if r == 0 or p0 == 255:
        return
    sign, tail = laplace_tables(p0, r)
    coder.icdf((value > 0) + 2 * (value < 0), sign, 15)
    if value:
        groups, rest = divmod(abs(value) - 1, 7)
        for symbol in [7] * groups + [rest]:
            coder.icdf(symbol, tail, 15)
