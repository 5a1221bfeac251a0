//! Values of features as small integers: which features there are, and the index of a value.

pub mod codes;
pub mod features;
