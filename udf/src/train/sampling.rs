//! Chance without state: every random choice is a hash of the seed and of what is chosen for.

/// Mixes 64 bits so that each input bit affects each output bit. The finaliser of SplitMix64
/// (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The increment of SplitMix64: 2^64 divided by the golden ratio.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of several numbers, in order.
pub fn hash(parts: &[u64]) -> u64 {
    parts.iter().fold(GOLDEN, |state, &part| mix(state ^ part).wrapping_add(GOLDEN))
}

/// A hash of a text. Never changes: what names a flight depends on it.
#[inline]
pub fn hash_text(text: &str) -> u64 {
    let mut hash = text.len() as u64;
    for chunk in text.as_bytes().chunks(8) {
        hash = mix(hash.wrapping_add(GOLDEN) ^ word(chunk));
    }
    hash
}

/// The number that up to eight bytes and zeros behind them are, the lowest byte first.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    // two halves that overlap: copying so many bytes as there are is a call each time
    let half = |bytes: &[u8]| bytes.first_chunk().map(|half| u64::from(u32::from_le_bytes(*half)));
    match bytes {
        [_, _, _, _, ..] => {
            let behind = bytes.len() - 4;
            let (low, high) = (half(bytes), half(&bytes[behind..]));
            low.unwrap_or_default() | high.unwrap_or_default() << (8 * behind)
        }
        _ => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Trees that share one hash of a row: each takes 16 of its 64 bits.
pub const TREES_PER_HASH: usize = 4;

/// The cumulative distribution of Poisson(1) in units of 1/65536: e⁻¹ · Σ 1/k!, rounded.
const POISSON_CDF: [u16; 8] = [24109, 48219, 60273, 64292, 65296, 65497, 65531, 65535];

/// How often a row is in a tree's bootstrap sample, given the tree's 16 bits of the row's hash.
///
/// Sampling n of n rows with replacement draws each row Poisson(1) times for large n (Oza and
/// Russell: Online bagging and boosting, 2001); drawn per row, it needs no order of rows.
#[inline]
pub fn bootstrap_weight(bits: u16) -> u16 {
    POISSON_CDF.iter().map(|&limit| u16::from(bits >= limit)).sum()
}

/// The hash from which the weights of a row in trees `4·group … 4·group + 3` are cut.
#[inline]
pub fn row_hash(row_key: i64, group_seed: u64) -> u64 {
    mix(row_key.cast_unsigned().wrapping_mul(GOLDEN) ^ group_seed)
}

/// The seed of a group of [`TREES_PER_HASH`] trees.
pub fn group_seed(seed: u64, group: usize) -> u64 {
    hash(&[seed, 0x0062_6f6f_7473, group as u64])
}

/// Draws `n_drawn` of `0..n` without replacement, in ascending order.
pub fn draw(n: usize, n_drawn: usize, seed: u64) -> Vec<usize> {
    let mut pool: Vec<usize> = (0..n).collect();
    let n_drawn = n_drawn.min(n);
    for i in 0..n_drawn {
        let left = (n - i) as u64;
        let j = i + (hash(&[seed, i as u64]) % left) as usize;
        pool.swap(i, j);
    }
    pool.truncate(n_drawn);
    pool.sort_unstable();
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_mean_and_variance_one() {
        let n = 200_000;
        let seed = group_seed(7, 3);
        let weights: Vec<f64> = (0..n)
            .flat_map(|key| {
                let h = row_hash(key, seed);
                (0..4).map(move |lane| f64::from(bootstrap_weight((h >> (16 * lane)) as u16)))
            })
            .collect();
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        let variance =
            weights.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / weights.len() as f64;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
    }

    #[test]
    fn a_draw_is_a_sorted_subset_and_every_element_is_drawn_about_equally_often() {
        let mut times = [0; 9];
        for seed in 0..9_000 {
            let drawn = draw(9, 3, seed);
            assert!(drawn.windows(2).all(|w| w[0] < w[1]) && drawn.len() == 3);
            drawn.into_iter().for_each(|i| times[i] += 1);
        }
        assert!(times.iter().all(|&t| (2_800..3_200).contains(&t)), "{times:?}");
        assert_eq!(draw(2, 5, 1), [0, 1]);
    }
}
