//! Counters in as few bytes as they need, on their way between partitions and machines: the deeper
//! a forest, the more of them are 0, and most others are small.
//!
//! A byte below 0x80 is a counter that is larger by one. 0x80 to 0xfe are a run of 1 to 127 zeros.
//! 0xff comes before any other counter, which stands as LEB128: seven bits a byte, the lowest
//! first, and the highest bit set in all bytes but the last.

use crate::N_CLASSES;
use crate::train::counters::Token::{Large, Small, Zeros};

/// Longest run of one byte.
const RUN_MAX: usize = 0x7f;
/// Counters that are looked at together: a run of zeros is passed quickly.
const LOOK: usize = 16;
/// Bytes of the longest LEB128 of 64 bits.
const LEB128_BYTES_MAX: u32 = 10;

/// Why bytes are not the counters that are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("they are counters of another forest, or cut off")]
pub struct BadCounters;

enum Token {
    Small(u64),
    Zeros(usize),
    Large,
}

fn token(byte: u8) -> Token {
    match byte {
        0..0x80 => Small(u64::from(byte) + 1),
        0xff => Large,
        run => Zeros(usize::from(run - 0x7f)),
    }
}

/// Packs counters.
pub fn pack<T: Copy + Into<u64>>(counters: &[T]) -> Vec<u8> {
    let mut packer = Packer::default();
    packer.push(counters);
    packer.finish()
}

/// The four counters of a word, that of the first class lowest.
pub(crate) fn of_word(word: u64) -> [u16; N_CLASSES] {
    std::array::from_fn(|class| (word >> (16 * class)) as u16)
}

/// Packs counters piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    bytes: Vec<u8>,
    /// Zeros that were not written yet.
    n_zeros: usize,
}

impl Packer {
    /// Packs the next counters.
    pub(crate) fn push<T: Copy + Into<u64>>(&mut self, counters: &[T]) {
        for some in counters.chunks(LOOK) {
            if some.iter().fold(0, |any, &counter| any | counter.into()) == 0 {
                self.n_zeros += some.len();
            } else {
                some.iter().for_each(|&counter| self.push_one(counter.into()));
            }
        }
    }

    /// Packs the next counters, [four a word](of_word).
    pub(crate) fn push_words(&mut self, words: &[u64]) {
        for some in words.chunks(LOOK / N_CLASSES) {
            if some.iter().fold(0, |any, word| any | word) == 0 {
                self.n_zeros += some.len() * N_CLASSES;
            } else {
                let counters = some.iter().flat_map(|&word| of_word(word));
                counters.for_each(|counter| self.push_one(counter.into()));
            }
        }
    }

    /// The bytes of all.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.push_zeros();
        self.bytes
    }

    #[inline]
    fn push_one(&mut self, counter: u64) {
        if counter == 0 {
            self.n_zeros += 1;
            return;
        }
        self.push_zeros();
        if counter <= 0x80 {
            self.bytes.push((counter - 1) as u8);
            return;
        }
        self.bytes.push(0xff);
        let mut rest = counter;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    #[inline]
    fn push_zeros(&mut self) {
        while self.n_zeros > 0 {
            let run = self.n_zeros.min(RUN_MAX);
            self.bytes.push(0x7f + run as u8);
            self.n_zeros -= run;
        }
    }
}

/// Packed counters that are read from the first to the last.
#[derive(Debug, Clone)]
pub struct Packed<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// Zeros of a run that were not read yet.
    n_zeros: usize,
}

impl<'a> Packed<'a> {
    /// From their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), n_zeros: 0 }
    }

    /// Adds the next counters to these, as many as there are.
    pub fn add_to(&mut self, counters: &mut [u64]) -> Result<(), BadCounters> {
        let mut at = 0;
        while at < counters.len() {
            if self.n_zeros > 0 {
                let passed = self.n_zeros.min(counters.len() - at);
                self.n_zeros -= passed;
                at += passed;
                continue;
            }
            let counter = match token(*self.bytes.next().ok_or(BadCounters)?) {
                Zeros(n) => {
                    self.n_zeros = n;
                    continue;
                }
                Small(counter) => counter,
                Large => self.large()?,
            };
            counters[at] = counters[at].checked_add(counter).ok_or(BadCounters)?;
            at += 1;
        }
        Ok(())
    }

    /// Errors unless all were read.
    pub fn end(self) -> Result<(), BadCounters> {
        if self.n_zeros == 0 && self.bytes.len() == 0 { Ok(()) } else { Err(BadCounters) }
    }

    fn large(&mut self) -> Result<u64, BadCounters> {
        let mut counter = 0;
        for i in 0..LEB128_BYTES_MAX {
            let byte = *self.bytes.next().ok_or(BadCounters)?;
            let bits = u64::from(byte & 0x7f);
            counter |= bits << (7 * i);
            if counter >> (7 * i) != bits {
                return Err(BadCounters);
            }
            if byte < 0x80 {
                return Ok(counter);
            }
        }
        Err(BadCounters)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(bytes: &[u8], n: usize) -> Result<Vec<u64>, BadCounters> {
        let mut packed = Packed::new(bytes);
        let mut counters = vec![0; n];
        packed.add_to(&mut counters)?;
        packed.end()?;
        Ok(counters)
    }

    #[test]
    fn small_counters_need_a_byte_and_zeros_next_to_none() {
        assert_eq!(pack(&[1_u32, 128, 0, 0, 3]), [0, 127, 0x81, 2]);
        assert_eq!(pack(&[129_u64]), [0xff, 0x81, 0x01]);
        assert_eq!(pack(&[0_u32; 300]), [0xfe, 0xfe, 0x7f + 46]);
        assert_eq!(pack::<u64>(&[]), [0_u8; 0]);
        assert_eq!(unpacked(&pack(&[u64::MAX]), 1), Ok(vec![u64::MAX]));
    }

    #[test]
    fn what_was_not_packed_is_refused() {
        let long = [[0xff].as_slice(), &[0x80; 10], &[1]].concat();
        let too_large = [[0xff].as_slice(), &[0xff; 9], &[2]].concat();
        let cases: [(&[u8], usize); 7] = [
            (&[], 1),
            (&[0], 0),
            (&[0, 0], 1),
            (&[0x81], 1),
            (&[0xff, 0x80], 1),
            (&long, 1),
            (&too_large, 1),
        ];
        for (bytes, n) in cases {
            assert_eq!(unpacked(bytes, n), Err(BadCounters), "{bytes:?}");
        }
        let mut full = [u64::MAX];
        assert_eq!(Packed::new(&[0]).add_to(&mut full), Err(BadCounters));
    }

    proptest! {
        #[test]
        fn they_come_back_piece_by_piece_and_add_up(
            counters in proptest::collection::vec(
                prop_oneof![3 => Just(0), 2 => 0..200_u64, 1 => 0..u64::MAX / 2], 0..400),
            piece in 1..50_usize,
        ) {
            let bytes = pack(&counters);
            prop_assert_eq!(unpacked(&bytes, counters.len()), Ok(counters.clone()));
            let mut sums = counters.clone();
            let mut packed = Packed::new(&bytes);
            for some in sums.chunks_mut(piece) {
                packed.add_to(some).unwrap();
            }
            packed.end().unwrap();
            prop_assert!(sums.iter().zip(&counters).all(|(sum, counter)| *sum == 2 * counter));
        }
    }
}
