"""Seeds are functions of their keys."""

from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.engine.randomness import derive_seed

KEY = st.integers(-(2**63), 2**63 - 1)


def test_seeds_stay_what_they_are_between_versions_and_machines() -> None:
    # A change here changes the order and augmentation of every recorded run.
    assert derive_seed(0) == 893442142816765029
    assert derive_seed(1, 2, 3) == 6520558355739401531
    assert derive_seed(0, 0, -1) == 4677951519191696690


@settings(deadline=None)
@given(st.lists(KEY, min_size=1, max_size=4))
def test_a_seed_fits_every_generator(keys: list[int]) -> None:
    assert 0 <= derive_seed(*keys) < 2**63
    assert derive_seed(*keys) == derive_seed(*keys)


def test_neighbouring_keys_share_nothing() -> None:
    seeds = [derive_seed(a, b, c) for a in range(8) for b in range(8) for c in range(-1, 8)]
    assert len(set(seeds)) == len(seeds)
    flipped = [(derive_seed(0, 0, c) ^ derive_seed(0, 0, c + 1)).bit_count() for c in range(200)]
    assert 30 < sum(flipped) / len(flipped) < 33  # half of 63 bits
