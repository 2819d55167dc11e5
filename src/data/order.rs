//! Which item stands where in the endless stream of training items.
//!
//! The stream runs through all items once per epoch, in an order of its own each time. The order is computed, not stored:
//! a Feistel network permutes a power of two, and walking its cycles keeps it below `n` (Black and Rogaway, "Ciphers with
//! arbitrary finite domains", 2002). So any position is reached at once, with no memory, however many items there are.

/// Enough that orders of small sets look random, too: with few rounds over few bits they would not.
const ROUNDS: u64 = 8;
const MIN_HALF_BITS: u32 = 4;

/// The item at `position` of the stream that `seed` gives over `n` items: `0 <= item < n`. `n` must not be 0.
pub fn item(seed: u64, position: u64, n: usize) -> usize {
    assert!(n > 0, "a stream over no items");
    let count = n as u64;
    permute(mix(seed, position / count), position % count, count) as usize
}

/// Where `index` goes in the permutation of `0..n` that `key` selects.
pub(super) fn permute(key: u64, index: u64, n: u64) -> u64 {
    let half_bits = (u64::BITS - (n - 1).leading_zeros()).div_ceil(2).max(MIN_HALF_BITS);
    let mut index = index;
    loop {
        index = feistel(key, index, half_bits);
        if index < n {
            return index;
        }
    }
}

/// A bijection of `0..4^half_bits`.
fn feistel(key: u64, value: u64, half_bits: u32) -> u64 {
    let mask = (1 << half_bits) - 1;
    let (mut left, mut right) = (value >> half_bits, value & mask);
    for round in 0..ROUNDS {
        (left, right) = (right, left ^ (mix(key.wrapping_add(round), right) & mask));
    }
    left << half_bits | right
}

/// Two numbers into one that shows no pattern: SplitMix64's finaliser, twice.
pub(crate) fn mix(key: u64, value: u64) -> u64 {
    scramble(scramble(key.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ value)
}

fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
