//! What a model may look at: the columns of the relation `features`, in the order in which
//! `feature_codes` and `predict_delay` take them.

use serde::{Deserialize, Serialize};

/// How a feature's values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// By size; splits are thresholds.
    Numeric,
    /// By identity; splits are subsets.
    Categorical,
}

/// A column of the relation `features`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Name on the command line, in reports and in the model.
    pub name: &'static str,
    /// Name of the column in SQL: the name with its unit.
    pub column: &'static str,
    /// The field of a request that it comes from, to tell a person about it.
    pub field: &'static str,
    /// How its values are compared.
    pub kind: Kind,
    /// Whether a model uses it unless told otherwise.
    pub by_default: bool,
}

const fn feature(
    name: &'static str,
    column: &'static str,
    field: &'static str,
    kind: Kind,
) -> Feature {
    Feature { name, column, field, kind, by_default: true }
}

const fn optional(feature: Feature) -> Feature {
    Feature { by_default: false, ..feature }
}

/// All features. The first nine are those of the original system, in its order.
pub const FEATURES: [Feature; 11] = [
    feature("dep_delay", "dep_delay_minutes", "DepDelay", Kind::Numeric),
    feature("distance", "distance_miles", "Distance", Kind::Numeric),
    feature("day_of_month", "day_of_month", "FlightDate", Kind::Numeric),
    feature("day_of_week", "day_of_week", "FlightDate", Kind::Numeric),
    feature("day_of_year", "day_of_year", "FlightDate", Kind::Numeric),
    feature("carrier", "carrier", "Carrier", Kind::Categorical),
    feature("origin", "origin", "Origin", Kind::Categorical),
    feature("dest", "dest", "Dest", Kind::Categorical),
    feature("route", "route", "Route", Kind::Categorical),
    optional(feature("crs_dep", "crs_dep_minutes", "CRSDepTime", Kind::Numeric)),
    optional(feature("crs_arr", "crs_arr_minutes", "CRSArrTime", Kind::Numeric)),
];

/// Position of a feature in [`FEATURES`], by name or column.
pub fn position(name: &str) -> Option<usize> {
    FEATURES.iter().position(|f| f.name == name || f.column == name)
}
