//! Codes: small integers in place of values. A tree sees nothing but codes, in training and in
//! scoring, so both agree on every value, bit for bit.
//!
//! Code 0 is reserved for what has no place of its own: null, NaN, and categories that training
//! did not see. A numeric value has the code of its bin (1 … bins), a category that of its rank by
//! frequency (1 … 65,535).

use std::borrow::Cow;
use std::collections::HashMap;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, exec_err};
use serde::{Deserialize, Serialize};

use crate::encode::features::Kind;
use crate::train::sampling::GOLDEN;

/// Largest number of categories of a feature; rarer ones share the reserved code.
pub const CATEGORIES_MAX: usize = 65_535;

/// The codes of rows as an array: `n_features` codes a row, each two bytes, the lower one first.
/// Bytes of a fixed width, because files give them back as fast as memory.
pub fn code_array(codes: Vec<u16>, n_features: usize) -> Result<FixedSizeBinaryArray> {
    let codes = if cfg!(target_endian = "little") {
        Buffer::from_vec(codes)
    } else {
        Buffer::from_iter(codes.into_iter().map(u16::to_le))
    };
    let n_bytes = (n_features * size_of::<u16>()) as i32;
    Ok(FixedSizeBinaryArray::try_new(n_bytes, codes, None)?)
}

/// The codes in an array that [`code_array`] made, one row after the other.
pub fn codes_of(array: &FixedSizeBinaryArray) -> Cow<'_, [u16]> {
    let bytes = array.values();
    if cfg!(target_endian = "little") && bytes.as_ptr().align_offset(align_of::<u16>()) == 0 {
        return Cow::Borrowed(bytes.typed_data());
    }
    let pairs = bytes.chunks_exact(size_of::<u16>());
    Cow::Owned(pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// How the values of one feature become codes. Part of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Codes {
    /// Ascending upper edges, each belonging to the bin it closes; a value above all has the
    /// last code.
    Numeric(Vec<f64>),
    /// Categories, most frequent first, ties alphabetical.
    Categorical(Vec<String>),
}

/// The distinct values of a feature with the number of rows that have them.
#[derive(Debug, Clone, PartialEq)]
pub enum DistinctValues {
    /// Values of a numeric feature.
    Numeric(Vec<(f64, u64)>),
    /// Values of a categorical feature.
    Categorical(Vec<(String, u64)>),
}

impl Codes {
    /// Codes for the given values: at most `n_bins_max` bins of about equal numbers of rows, or
    /// a code for each category. The order of the values does not matter.
    pub fn from_values(values: DistinctValues, n_bins_max: usize) -> Self {
        match values {
            DistinctValues::Numeric(values) => Self::Numeric(quantile_edges(values, n_bins_max)),
            DistinctValues::Categorical(mut values) => {
                values.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                values.truncate(CATEGORIES_MAX);
                Self::Categorical(values.into_iter().map(|(value, _)| value).collect())
            }
        }
    }

    /// Number of codes, the reserved one included.
    pub fn n_codes(&self) -> usize {
        match self {
            Self::Numeric(edges) => edges.len() + 2,
            Self::Categorical(categories) => categories.len() + 1,
        }
    }

    /// How the codes are compared.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Numeric(_) => Kind::Numeric,
            Self::Categorical(_) => Kind::Categorical,
        }
    }

    /// The code of one number. The definition that [`Encoder`] must agree with.
    pub fn code_of_number(&self, value: Option<f64>) -> u16 {
        match (self, value) {
            (Self::Numeric(edges), Some(v)) if !v.is_nan() => {
                1 + edges.iter().filter(|&&edge| edge < v).count() as u16
            }
            _ => 0,
        }
    }

    /// The code of one category. The definition that [`Encoder`] must agree with.
    pub fn code_of_category(&self, value: Option<&str>) -> u16 {
        match (self, value) {
            (Self::Categorical(categories), Some(v)) => {
                categories.iter().position(|c| c == v).map_or(0, |i| i as u16 + 1)
            }
            _ => 0,
        }
    }

    /// Says what is wrong with codes that were read from outside.
    pub fn check(&self) -> std::result::Result<(), String> {
        match self {
            Self::Numeric(edges) => {
                let ascending = edges.windows(2).all(|w| w[0] < w[1]);
                if !ascending || edges.iter().any(|e| !e.is_finite()) {
                    return Err("bin edges are not finite and ascending".into());
                }
            }
            Self::Categorical(categories) => {
                let mut sorted: Vec<_> = categories.iter().collect();
                sorted.sort_unstable();
                if sorted.windows(2).any(|w| w[0] == w[1]) {
                    return Err("a category is listed twice".into());
                }
            }
        }
        if self.n_codes() > CATEGORIES_MAX + 1 {
            return Err(format!("{} codes exceed {}", self.n_codes(), CATEGORIES_MAX + 1));
        }
        Ok(())
    }
}

/// Cuts between distinct values so that each bin holds about the same number of rows. A cut lies
/// half-way between two values, so that a value not seen in training falls to its neighbour.
fn quantile_edges(mut values: Vec<(f64, u64)>, n_bins_max: usize) -> Vec<f64> {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let n_bins = n_bins_max.min(values.len());
    let mut rows_left: u64 = values.iter().map(|v| v.1).sum();
    let mut edges = Vec::new();
    let mut rows_in_bin = 0;
    for (i, pair) in values.windows(2).enumerate() {
        let bins_left = n_bins - edges.len();
        let values_left = values.len() - i;
        rows_in_bin += pair[0].1;
        // as many bins as values remain, or the bin holds its share of the rows that remain
        let full = rows_in_bin * bins_left as u64 >= rows_left || values_left <= bins_left;
        if bins_left > 1 && full {
            let middle = pair[0].0 + (pair[1].0 - pair[0].0) / 2.0;
            edges.push(if middle < pair[1].0 { middle } else { pair[0].0 });
            rows_left -= rows_in_bin;
            rows_in_bin = 0;
        }
    }
    edges
}

/// [`Codes`] made ready to encode whole columns.
#[derive(Debug)]
pub enum Encoder {
    /// Encodes numbers.
    Numeric(NumericEncoder),
    /// Encodes categories.
    Categorical(CategoryEncoder),
}

impl Encoder {
    /// Prepares the tables.
    pub fn new(codes: &Codes) -> Self {
        match codes {
            Codes::Numeric(edges) => Self::Numeric(NumericEncoder::new(edges)),
            Codes::Categorical(categories) => Self::Categorical(CategoryEncoder::new(categories)),
        }
    }

    /// Writes the code of row `i` of `column` to `codes[i * stride + position]`.
    ///
    /// Errors when the column's type cannot be read as the feature's kind.
    pub fn encode(
        &self,
        column: &ArrayRef,
        codes: &mut [u16],
        position: usize,
        stride: usize,
    ) -> Result<()> {
        let rows = codes.chunks_exact_mut(stride);
        match self {
            Self::Numeric(encoder) => {
                let column = cast(column, &DataType::Float64)?;
                let column = column.as_primitive::<Float64Type>();
                for (row, &value) in rows.zip(column.values()) {
                    row[position] = encoder.code(value);
                }
            }
            Self::Categorical(encoder) => {
                if column.data_type().is_numeric() {
                    return exec_err!(
                        "a categorical feature needs text, not {}",
                        column.data_type()
                    );
                }
                let column = cast(column, &DataType::Utf8View)?;
                let column = column.as_string_view();
                for (i, (row, &view)) in rows.zip(column.views()).enumerate() {
                    row[position] = match short_key(view) {
                        Some(key) => encoder.code_of_key(key),
                        None => encoder.code_of_long(column.value(i)),
                    };
                }
            }
        }
        // a null holds some value underneath, which was coded like any other
        if let Some(nulls) = column.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
            let rows = codes.chunks_exact_mut(stride).zip(&nulls);
            rows.filter(|(_, is_valid)| !is_valid).for_each(|(row, _)| row[position] = 0);
        }
        Ok(())
    }
}

/// Cells of the table that shortens the search for a bin.
const N_CELLS: usize = 4096;

/// Finds the bin of a number: a table gives the first edge worth looking at.
#[derive(Debug)]
pub struct NumericEncoder {
    /// The edges, then infinity.
    edges: Vec<f64>,
    low: f64,
    cells_per_unit: f64,
    /// Number of edges that lie in a cell before this one.
    first_edge: Vec<u16>,
}

impl NumericEncoder {
    fn new(edges: &[f64]) -> Self {
        let low = edges.first().copied().unwrap_or(0.0);
        let span = edges.last().copied().unwrap_or(0.0) - low;
        let cells_per_unit = if span > 0.0 { (N_CELLS - 1) as f64 / span } else { 0.0 };
        let closed = edges.iter().copied().chain([f64::INFINITY]).collect();
        let first_edge = vec![0; N_CELLS];
        let mut encoder = Self { edges: closed, low, cells_per_unit, first_edge };
        let cells: Vec<usize> = edges.iter().map(|&edge| encoder.cell(edge)).collect();
        for (cell, first) in encoder.first_edge.iter_mut().enumerate() {
            *first = cells.partition_point(|&c| c < cell) as u16;
        }
        encoder
    }

    /// Never falls as `value` grows: so an edge in an earlier cell is below the value for sure,
    /// however the arithmetic rounds.
    #[inline]
    fn cell(&self, value: f64) -> usize {
        // `as` saturates; to 32 bits it is one instruction
        (((value - self.low) * self.cells_per_unit) as i32).clamp(0, N_CELLS as i32 - 1) as usize
    }

    #[inline]
    fn code(&self, value: f64) -> u16 {
        if value.is_nan() {
            return 0;
        }
        // the last edge is infinite, so the search ends
        let mut below = usize::from(self.first_edge[self.cell(value)]);
        below += usize::from(self.edges[below] < value);
        while self.edges[below] < value {
            below += 1;
        }
        below as u16 + 1
    }
}

/// Finds the code of a category. Airport codes, carriers and routes fit into eight bytes, which
/// are compared as one number.
#[derive(Debug)]
pub struct CategoryEncoder {
    /// Open addressing; the key 0 marks a free slot.
    slots: Vec<(u64, u16)>,
    shift: u32,
    long: HashMap<String, u16>,
}

impl CategoryEncoder {
    fn new(categories: &[String]) -> Self {
        let n_slots = (categories.len() * 2).next_power_of_two().max(16);
        let shift = 64 - n_slots.trailing_zeros();
        let mut encoder = Self { slots: vec![(0, 0); n_slots], shift, long: HashMap::new() };
        for (i, category) in categories.iter().enumerate() {
            let code = i as u16 + 1;
            match short_key_of(category) {
                Some(key) => {
                    let mut slot = encoder.slot(key);
                    while encoder.slots[slot].0 != 0 {
                        slot = (slot + 1) % n_slots;
                    }
                    encoder.slots[slot] = (key, code);
                }
                None => _ = encoder.long.insert(category.clone(), code),
            }
        }
        encoder
    }

    #[inline]
    fn slot(&self, key: u64) -> usize {
        (key.wrapping_mul(GOLDEN) >> self.shift) as usize
    }

    #[inline]
    fn code_of_key(&self, key: u64) -> u16 {
        let mut slot = self.slot(key);
        // ends: at most half of the slots are taken
        loop {
            match self.slots[slot] {
                (k, code) if k == key => return code,
                (0, _) => return 0,
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    fn code_of_long(&self, value: &str) -> u16 {
        self.long.get(value).copied().unwrap_or(0)
    }
}

/// The bytes of a text of 1 to 8 bytes, zero-padded, from its Arrow string view. Texts that end
/// in a NUL would be ambiguous and count as long.
#[inline]
pub(crate) fn short_key(view: u128) -> Option<u64> {
    let length = view as u32;
    let key = (view >> 32) as u64;
    let fits = (1..=8).contains(&length) && (key >> (8 * (length - 1))) != 0;
    fits.then_some(key)
}

fn short_key_of(text: &str) -> Option<u64> {
    let mut bytes = [0; 16];
    let length = u32::try_from(text.len()).ok().filter(|l| *l <= 8)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..4 + text.len()].copy_from_slice(text.as_bytes());
    short_key(u128::from_le_bytes(bytes))
}
