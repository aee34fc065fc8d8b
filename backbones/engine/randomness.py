"""Random choices as functions of numbers, never of process state: the ground of exact resume."""

import hashlib
import struct


def derive_seed(*keys: int) -> int:
    """A 63-bit seed that depends on all of `keys` (for instance run seed, epoch, index) and on nothing else."""
    digest = hashlib.blake2b(struct.pack(f"<{len(keys)}q", *keys), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
