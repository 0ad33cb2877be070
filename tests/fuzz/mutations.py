"""Changes of valid bytes, as hypothesis strategies: what coverage-guided fuzzing does, for every Python."""

from collections.abc import Sequence

from hypothesis import strategies as st

_INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\0\0\0\x80",
    b"{",
    b'"',
)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Return one of ``seeds`` with up to eight changes: bytes replaced, removed, inserted, repeated, spliced."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 16))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + length] = draw(st.binary(min_size=0, max_size=length))
            case 1:
                data[at : at + 1] = draw(st.sampled_from(_INTERESTING))
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                other = draw(st.sampled_from(list(seeds)))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case _:
                if at < len(data):
                    data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)
