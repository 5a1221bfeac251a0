//! Values of features as small integers: how numbers fall into [bins](encoder::Encoding::Numeric)
//! and texts into [categories](encoder::Encoding::Categorical), and the index of a value.

mod bins;
pub(crate) mod categories;
pub mod encoder;
