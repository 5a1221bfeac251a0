//! Bins of a numeric feature: how they are cut, and how the bin of a number is found fast.

/// Cells of the table that shortens the search for a bin.
const N_CELLS: usize = 4096;
/// Whole numbers whose bin is in a table at most. Minutes, days and miles are whole.
const N_WHOLE: f64 = 4096.0;

/// Finds the bin of a number: that of most whole numbers is in a table, for others another table
/// gives the first edge worth looking at.
#[derive(Debug)]
pub(crate) struct NumericEncoder {
    /// The bins of `whole_from` and the whole numbers after it.
    whole: Vec<u16>,
    whole_from: i32,
    /// The edges, then infinity.
    edges: Vec<f64>,
    low: f64,
    cells_per_unit: f64,
    /// Number of edges that lie in a cell before this one.
    first_edge: Vec<u16>,
}

impl NumericEncoder {
    pub(crate) fn new(edges: &[f64]) -> Self {
        let low = edges.first().copied().unwrap_or(0.0);
        let span = edges.last().copied().unwrap_or(0.0) - low;
        let cells_per_unit = if span > 0.0 { (N_CELLS - 1) as f64 / span } else { 0.0 };
        let closed = edges.iter().copied().chain([f64::INFINITY]).collect();
        let (whole, whole_from) = (Vec::new(), low.floor() as i32);
        let first_edge = vec![0; N_CELLS];
        let mut encoder =
            Self { whole, whole_from, edges: closed, low, cells_per_unit, first_edge };
        let cells: Vec<usize> = edges.iter().map(|&edge| encoder.cell(edge)).collect();
        for (cell, first) in encoder.first_edge.iter_mut().enumerate() {
            *first = cells.partition_point(|&c| c < cell) as u16;
        }
        // to the first one beyond the last edge
        let n_whole = (span + 3.0).min(N_WHOLE) as i32;
        let whole = (0..n_whole).map_while(|i| whole_from.checked_add(i));
        encoder.whole = whole.map(|number| encoder.search(f64::from(number))).collect();
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
    pub(crate) fn index(&self, value: f64) -> u16 {
        // what is not whole is no longer itself
        let whole = value as i32;
        let position = whole.wrapping_sub(self.whole_from).cast_unsigned() as usize;
        match self.whole.get(position) {
            Some(index) if f64::from(whole) == value => *index,
            _ => self.search(value),
        }
    }

    fn search(&self, value: f64) -> u16 {
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

/// Cuts between distinct values so that each bin holds about the same number of rows. A cut lies
/// half-way between two values, so that a value not seen in training falls to its neighbour.
pub(crate) fn quantile_edges(mut values: Vec<(f64, u64)>, n_bins_max: usize) -> Vec<f64> {
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
