//! Calibration: a forest's probabilities made as sure as it is right, by one number.
//!
//! A class with probability p gets p^(1/T), divided by the sum over the classes (temperature
//! scaling: Guo et al., "On calibration of modern neural networks", 2017, for logarithms of
//! probabilities). T below 1 makes a forest surer: its trees disagree about what each of them
//! knows, and their mean is timid. The order of the classes stays.
//!
//! Logarithm and exponential are made of additions, multiplications and divisions, which IEEE 754
//! defines to the last bit; those of the system's library differ between processors.

use std::f64::consts::{LN_2, LOG2_E, SQRT_2};

use crate::N_CLASSES;

/// Bits of the fraction of a number.
const FRACTION_BITS: u32 = 52;
/// What the exponent of 1 is stored as.
const EXPONENT_OF_ONE: u64 = 1_023;
/// The number whose fraction counts in ones: a whole number below it, put there, is added to it.
const WHOLE: f64 = (1_u64 << FRACTION_BITS) as f64;
/// A probability below this counts as this in a log loss, as is usual.
const PROBABILITY_MIN: f64 = 1e-15;
/// Adding it rounds a small number to a whole one, which the last bits then hold; subtracting it
/// gives that number.
const ROUNDING: f64 = 1.5 * WHOLE;
/// Rows that are calibrated side by side.
const BLOCK_ROWS: usize = 64;
/// The exponential of less is as good as 0.
const EXPONENT_MIN: f64 = -700.0;
/// 1, 1/3, 1/5, …: the coefficients of artanh.
const ODD_INVERSES: [f64; 11] = {
    let (mut inverses, mut k) = ([1.0; 11], 1);
    while k < inverses.len() {
        inverses[k] = 1.0 / (2 * k + 1) as f64;
        k += 1;
    }
    inverses
};
/// 1, 1, 1/2, 1/6, …: the coefficients of the exponential.
const FACTORIAL_INVERSES: [f64; 14] = {
    let (mut inverses, mut k) = ([1.0; 14], 1);
    while k < inverses.len() {
        inverses[k] = inverses[k - 1] / k as f64;
        k += 1;
    }
    inverses
};

/// The probabilities of a row as [`calibrate`] changes them.
pub fn calibrated(probabilities: [f64; N_CLASSES], temperature: f64) -> [f64; N_CLASSES] {
    let mut rows = [probabilities];
    calibrate(&mut rows, temperature);
    rows[0]
}

/// Raises the probabilities of each row to the power of `1 / temperature`, and scales them to sum
/// to 1. Temperature 1 leaves them as they are.
pub fn calibrate(rows: &mut [[f64; N_CLASSES]], temperature: f64) {
    if temperature == 1.0 {
        return;
    }
    let mut powers = [0.0; BLOCK_ROWS * N_CLASSES];
    for block in rows.chunks_mut(BLOCK_ROWS) {
        let powers = &mut powers[..block.len() * N_CLASSES];
        // loops over numbers without a branch, which the compiler vectorises
        for (power, p) in powers.iter_mut().zip(block.as_flattened()) {
            *power = ln(*p);
        }
        let (of_rows, _) = powers.as_chunks_mut::<N_CLASSES>();
        for (logarithms, row) in of_rows.iter_mut().zip(&*block) {
            let (mut highest, mut of_highest) = (0.0, 0.0);
            for (&p, &logarithm) in row.iter().zip(&*logarithms) {
                let is_higher = p > highest;
                highest = if is_higher { p } else { highest };
                of_highest = if is_higher { logarithm } else { of_highest };
            }
            *logarithms = logarithms.map(|logarithm| (logarithm - of_highest) / temperature);
        }
        for (power, p) in powers.iter_mut().zip(block.as_flattened()) {
            *power = if *p > 0.0 { exp(*power) } else { 0.0 };
        }
        let (of_rows, _) = powers.as_chunks::<N_CLASSES>();
        for (powers, row) in of_rows.iter().zip(block) {
            let sum = powers.iter().fold(0.0, |sum, power| sum + power);
            *row = powers.map(|power| power / sum);
        }
    }
}

/// -ln(probability) in whole billionths, so that sums are the same for any order of rows.
pub fn log_loss_billionths(probability: f64) -> i64 {
    (-ln(probability.max(PROBABILITY_MIN)) * 1e9).round() as i64
}

/// The natural logarithm of a positive number that is not subnormal; the last bits may be wrong,
/// everywhere the same ones.
#[inline]
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let m = f64::from_bits(fraction | (EXPONENT_OF_ONE << FRACTION_BITS));
    let stored = f64::from_bits(WHOLE.to_bits() | (bits >> FRACTION_BITS)) - WHOLE;
    // from 1 … 2 to √½ … √2, where the series is short
    let (m, halved) = if m > SQRT_2 { (m * 0.5, 1.0) } else { (m, 0.0) };
    let exponent = stored - EXPONENT_OF_ONE as f64 + halved;
    // ln m = 2 artanh s
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = ODD_INVERSES.iter().rev().fold(0.0, |series, inverse| series * z + inverse);
    exponent * LN_2 + 2.0 * s * series
}

/// The exponential of a number that is not positive.
#[inline]
pub fn exp(x: f64) -> f64 {
    let x = x.max(EXPONENT_MIN);
    let rounded = x * LOG2_E + ROUNDING;
    let rest = x - (rounded - ROUNDING) * LN_2;
    let series =
        FACTORIAL_INVERSES.iter().rev().fold(0.0, |series, inverse| series * rest + inverse);
    let scale = rounded.to_bits().wrapping_add(EXPONENT_OF_ONE) << FRACTION_BITS;
    series * f64::from_bits(scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn logarithm_and_exponential_are_those_of_the_library_but_for_the_last_bits() {
        for i in 1..20_000 {
            let x = f64::from(i) / 10_000.0;
            assert!((ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0), "ln {x}");
            let y = -f64::from(i) / 40.0;
            assert!((exp(y) - y.exp()).abs() <= 1e-13 * y.exp(), "exp {y}");
        }
        assert!((ln(1e-15) - 1e-15_f64.ln()).abs() < 1e-13);
        assert_eq!((ln(1.0), exp(0.0)), (0.0, 1.0));
        assert!(exp(-1e9) < 1e-300);
    }

    /// What an answer says was computed on one machine, and must be on all: if these change, so do
    /// the bytes of models.
    #[test]
    fn the_bits_are_these() {
        assert_eq!(ln(0.3).to_bits(), 0xbff3_4378_fcbd_a720);
        assert_eq!(exp(-0.7).to_bits(), 0x3fdf_c80d_b9dd_5542);
        assert_eq!(log_loss_billionths(0.3), 1_203_972_804);
        assert_eq!(log_loss_billionths(0.0), 34_538_776_395);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn order_and_sum_stay_and_a_low_temperature_is_surer(
            counts in proptest::array::uniform4(0..1_000_u32),
            temperature in 0.2..4.0_f64,
        ) {
            let n: u32 = counts.iter().sum();
            prop_assume!(n > 0);
            let before = counts.map(|count| f64::from(count) / f64::from(n));
            let after = calibrated(before, temperature);
            prop_assert!((after.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for i in 0..N_CLASSES {
                prop_assert_eq!(before[i] == 0.0, after[i] == 0.0);
                for j in 0..N_CLASSES {
                    prop_assert!(before[i] > before[j] || after[i] <= after[j]);
                }
            }
            let highest = |p: [f64; N_CLASSES]| p.into_iter().fold(0.0, f64::max);
            let change = highest(after) - highest(before);
            let is_right = if temperature <= 1.0 { change >= -1e-12 } else { change <= 1e-12 };
            prop_assert!(is_right);
            // the inverse takes it back
            let back = calibrated(after, 1.0 / temperature);
            prop_assert!(back.iter().zip(before).all(|(a, b)| (a - b).abs() < 1e-9));
        }
    }
}
