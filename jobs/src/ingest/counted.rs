//! What is counted of rows that were typed.

use std::collections::BTreeMap;

use anyhow::Result;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::prelude::{DataFrame, col, lit};

/// A month as (year, month).
pub type Month = (i32, i32);

/// What flights can lack as a whole, and what it is called: they are kept, but it is said.
const MAY_LACK: [(&str, &str); 6] = [
    ("flight_number", "number"),
    ("crs_dep_minutes", "scheduled departure"),
    ("crs_arr_minutes", "scheduled arrival"),
    ("dep_delay_minutes", "departure delay"),
    ("arr_delay_minutes", "arrival delay"),
    ("distance_miles", "distance"),
];

/// What typing the rows says.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) months: BTreeMap<Month, u64>,
    pub(crate) n_flights: u64,
    pub(crate) n_rejects: u64,
    pub(crate) n_odd_times: u64,
    pub(crate) n_odd_tails: u64,
    /// Flights that have each of [`MAY_LACK`].
    n_known: [u64; MAY_LACK.len()],
}

impl Counted {
    /// Counts flights of a month.
    pub(crate) fn add(&mut self, month: Month, flights: &RecordBatch) {
        let n_flights = flights.num_rows() as u64;
        self.n_flights += n_flights;
        *self.months.entry(month).or_default() += n_flights;
        for (n, (name, _)) in self.n_known.iter_mut().zip(MAY_LACK) {
            let n_missing = flights.column_by_name(name).map_or(0, |column| column.null_count());
            *n += n_flights - n_missing as u64;
        }
    }

    /// With what else was counted.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.n_flights += other.n_flights;
        self.n_rejects += other.n_rejects;
        self.n_odd_times += other.n_odd_times;
        self.n_odd_tails += other.n_odd_tails;
        self.n_known.iter_mut().zip(other.n_known).for_each(|(n, more)| *n += more);
        for (month, n_flights) in other.months {
            *self.months.entry(month).or_default() += n_flights;
        }
        self
    }

    pub(crate) fn lacking(&self) -> Vec<&'static str> {
        let lacking = MAY_LACK.iter().zip(self.n_known).filter(|(_, n)| *n == 0);
        lacking.map(|((_, title), _)| *title).collect()
    }
}

/// Counts rows of `sql/10_flights.sql`.
pub(crate) async fn count_rows(typed: &DataFrame) -> Result<Counted> {
    let keys = vec![col("year"), col("month"), col("reject_reason").is_not_null().alias("bad")];
    let mut sums =
        vec![count(lit(1)).alias("n_rows"), sum(col("odd_times")), sum(col("odd_tails"))];
    sums.extend(MAY_LACK.iter().map(|(name, _)| count(col(*name))));
    let counted = typed.clone().aggregate(keys, sums)?;
    let mut all = Counted::default();
    for batch in counted.collect().await? {
        let years = batch.column(0).as_primitive::<Int32Type>();
        let numbers = batch.column(1).as_primitive::<Int32Type>();
        let bad = batch.column(2).as_boolean();
        let n_rows = batch.column(3).as_primitive::<Int64Type>();
        let n_odd = batch.column(4).as_primitive::<Int64Type>();
        let n_odd_tails = batch.column(5).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let n_rows = n_rows.value(row).unsigned_abs();
            if bad.value(row) {
                all.n_rejects += n_rows;
            } else {
                all.n_flights += n_rows;
                all.n_odd_times += n_odd.value(row).unsigned_abs();
                all.n_odd_tails += n_odd_tails.value(row).unsigned_abs();
                for (i, n) in all.n_known.iter_mut().enumerate() {
                    let known = batch.column(6 + i).as_primitive::<Int64Type>();
                    *n += known.value(row).unsigned_abs();
                }
                *all.months.entry((years.value(row), numbers.value(row))).or_default() += n_rows;
            }
        }
    }
    Ok(all)
}
