//! Random choices that follow from a seed, so that a run can be repeated.

use std::time::Duration;

use udf::train::sampling::hash;

/// Numbers that follow from a seed.
pub struct Dice {
    pub seed: u64,
    n_thrown: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { seed, n_thrown: 0 }
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.n_thrown += 1;
        hash(&[self.seed, self.n_thrown]) % n
    }

    pub fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
