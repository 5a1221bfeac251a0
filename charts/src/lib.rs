//! SVG charts and HTML parts that reports and pages share: drawn on the server, without script or
//! font, in the colours of the page around them, with a name for screen readers and the numbers
//! as a table. Knows nothing of flights.
//!
//! ```
//! use charts::numbers::percent;
//! use charts::series::Chart;
//!
//! let chart = Chart {
//!     title: "Late flights by month",
//!     description: "A bar a month; taller is later.",
//!     x_title: "month",
//!     y_title: "late",
//!     names: vec!["2013-01".into(), "2013-02".into()],
//!     series: vec![("late", vec![0.25, 0.5])],
//!     value: percent,
//! };
//! let figure = chart.bars()?.into_string();
//! assert!(figure.contains("<svg role=\"img\"") && figure.contains("25.0 %"));
//! # anyhow::Ok(())
//! ```

pub mod numbers;
pub mod series;
pub mod svg;
pub mod table;
