//! Charts of series: a value for each of some names. The table that a chart is drawn from folds
//! out below it.

use anyhow::{Context, Result};
use maud::{Markup, html};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::svg::{Area, FIRST, SECOND, WIDTH, style, svg};
use crate::table::table;

const HEIGHT: u32 = 270;
/// Size of the text of labels: on a phone, where a drawing is 286 px wide, it is 12 px.
const TEXT: f64 = 17.0;
/// Width of a letter of that size, about.
const LETTER: usize = 10;
/// Width of a capital letter: the names of makers have no other.
const CAPITAL: usize = 12;
/// Height of the labels below, with what marks their places.
const BELOW: u32 = 34;
/// Height of a row of a chart of rows.
const ROW: u32 = 30;
/// A dash of the second line, and the gap after it.
const DASH: (i32, i32) = (7, 5);

/// What is drawn: for each of `names`, in order, a value in each of the series.
pub struct Chart<'a> {
    /// The heading.
    pub title: &'a str,
    /// What there is to see, a sentence.
    pub description: &'a str,
    /// What the names are.
    pub x_title: &'a str,
    /// What the values are, with their unit.
    pub y_title: &'a str,
    /// The names.
    pub names: Vec<String>,
    /// Name and values of each series, two at most. What is not known is NaN, and not drawn.
    pub series: Vec<(&'a str, Vec<f64>)>,
    /// How a value reads, along the axis and in the table.
    pub value: fn(f64) -> String,
}

impl Chart<'_> {
    /// A bar for each name; one series.
    pub fn bars(&self) -> Result<Markup> {
        let values = &self.series.first().context("a chart needs a series")?.1;
        let top = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        self.draw(0.0..top * 1.05, |chart| {
            let known = values.iter().enumerate().filter(|(_, value)| value.is_finite());
            let bar = |(i, value): (usize, &f64)| {
                let corners = [(i as f64 - 0.4, 0.0), (i as f64 + 0.4, *value)];
                Rectangle::new(corners, FIRST.filled())
            };
            chart.draw_series(known.map(bar))?;
            Ok(())
        })
    }

    /// A line for each series, the second one dashed; they end where a value is not known.
    pub fn lines(&self) -> Result<Markup> {
        let all = || self.series.iter().flat_map(|(_, values)| values).copied();
        let (bottom, top) = (all().fold(0.0, f64::min), all().fold(1.0, f64::max));
        let room = (top - bottom) * 0.05;
        self.draw(bottom - room..top + room, |chart| {
            for (n, (_, values)) in self.series.iter().enumerate() {
                let points: Vec<_> =
                    values.iter().enumerate().map(|(i, value)| (i as f64, *value)).collect();
                for line in points.split(|(_, value)| !value.is_finite()) {
                    let line = line.iter().copied();
                    if n == 0 {
                        chart.draw_series(LineSeries::new(line, FIRST.stroke_width(2)))?;
                    } else {
                        let (dash, gap) = DASH;
                        let paint = SECOND.stroke_width(2);
                        chart.draw_series(DashedLineSeries::new(line, dash, gap, paint))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// A row for each name, its bar to the right of it; one series.
    pub fn rows(&self) -> Result<Markup> {
        let values = &self.series.first().context("a chart needs a series")?.1;
        let top = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let (name, number) = (|y: &f64| self.name(*y), |x: &f64| (self.value)(*x));
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let height = ROW * self.names.len() as u32 + BELOW + 16;
        let drawn = svg(self.title, self.description, height, |area| {
            let y = self.names.len() as f64 - 0.5..-0.5;
            let mut chart = ChartBuilder::on(area)
                .margin(8)
                .margin_right((LETTER * self.longest(&[top]) / 2) as u32)
                .x_label_area_size(BELOW)
                .y_label_area_size(16 + (CAPITAL * longest) as u32)
                .build_cartesian_2d(0.0..top * 1.05, y)?;
            let mut mesh = chart.configure_mesh();
            style(&mut mesh, TEXT);
            mesh.disable_y_mesh().x_labels(3).y_labels(self.names.len() + 1);
            mesh.x_label_formatter(&number);
            mesh.y_label_formatter(&name).draw()?;
            drop(mesh);
            let bar = |(i, value): (usize, &f64)| {
                let corners = [(0.0, i as f64 - 0.35), (*value, i as f64 + 0.35)];
                Rectangle::new(corners, FIRST.filled())
            };
            chart.draw_series(values.iter().enumerate().map(bar))?;
            Ok(())
        })?;
        Ok(self.figure(&drawn, self.x_title, self.y_title))
    }

    /// Letters of the longest of some values.
    fn longest(&self, values: &[f64]) -> usize {
        let letters = |value: &f64| (self.value)(*value).chars().count();
        values.iter().map(letters).max().unwrap_or(0)
    }

    fn draw(
        &self,
        y: std::ops::Range<f64>,
        draw: impl FnOnce(&mut Plane<'_, '_>) -> Result<()>,
    ) -> Result<Markup> {
        let (name, number) = (|x: &f64| self.name(*x), |y: &f64| (self.value)(*y));
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let left = 14 + LETTER * self.longest(&[y.start, (y.start + y.end) / 2.0, y.end]);
        // the last name stands half beyond the last place
        let right = 12.max(LETTER * longest / 2);
        // more names would run into each other
        let n_names = (WIDTH as usize - left - right) / (LETTER * (longest + 2)).max(1);
        let drawn = svg(self.title, self.description, HEIGHT, |area: &Area<'_>| {
            let x = -0.5..self.names.len() as f64 - 0.5;
            let mut chart = ChartBuilder::on(area)
                .margin(8)
                .margin_right(right as u32)
                .x_label_area_size(BELOW)
                .y_label_area_size(left as u32)
                .build_cartesian_2d(x, y)?;
            let mut mesh = chart.configure_mesh();
            style(&mut mesh, TEXT);
            mesh.disable_x_mesh().x_labels(n_names.max(2)).y_labels(5);
            mesh.y_label_formatter(&number);
            mesh.x_label_formatter(&name).draw()?;
            drop(mesh);
            draw(&mut chart)
        })?;
        Ok(self.figure(&drawn, self.y_title, self.x_title))
    }

    /// The name at a place of the axis; none between two.
    fn name(&self, place: f64) -> String {
        let is_whole = (place - place.round()).abs() < 1e-6 && place >= 0.0;
        let name = is_whole.then(|| self.names.get(place.round() as usize)).flatten();
        name.cloned().unwrap_or_default()
    }

    /// The drawing with its heading, its key, what stands `above` and `below` its axes, and its
    /// numbers.
    fn figure(&self, drawn: &Markup, above: &str, below: &str) -> Markup {
        let Self { title, description, x_title, names, series, value, .. } = self;
        let headers: Vec<&str> =
            std::iter::once(*x_title).chain(series.iter().map(|(name, _)| *name)).collect();
        let rows = names.iter().enumerate().map(|(i, name)| {
            let values = series.iter().map(|(_, values)| html! { (value(values[i])) });
            std::iter::once(html! { (name) }).chain(values).collect()
        });
        html! {
            figure.card.chart {
                figcaption { h2 { (title) } p { (description) } }
                @if series.len() > 1 {
                    ul.key { @for (i, (name, _)) in series.iter().enumerate() {
                        li class={ "s" (i) } { (name) }
                    } }
                }
                p.axis { (above) }
                (drawn)
                p.axis.below { (below) }
                details {
                    summary { "The numbers" }
                    (table(&format!("The numbers: {title}"), "", &headers, rows))
                }
            }
        }
    }
}

type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::percent;

    fn example<'a>(names: &[&str], series: Vec<(&'a str, Vec<f64>)>) -> Chart<'a> {
        Chart {
            title: "Flights <by> month",
            description: "A bar a month.",
            x_title: "month",
            y_title: "flights",
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            series,
            value: percent,
        }
    }

    fn check(figure: &str, wants: &[&str]) {
        for want in wants {
            assert!(figure.contains(want), "{want:?} is not in {figure}");
        }
        for never in ["<by>", "style=", "#010000", "#020000", "#030000", "width=\"400\""] {
            assert!(!figure.contains(never), "{never:?} is in {figure}");
        }
        assert_eq!(figure.matches("</svg>").count(), 1);
    }

    #[test]
    fn bars_are_named_in_the_drawing_and_in_the_table() {
        let chart = example(&["2013-01", "<b>\"&"], vec![("flights", vec![0.25, 0.5])]);
        let figure = chart.bars().unwrap().into_string();
        check(&figure, &["role=\"img\"", "<desc>A bar a month.", "25.0 %", "50.0 %", "2013-01"]);
        assert_eq!(figure.matches("<rect").count(), 2);
        assert_eq!(figure.matches("<b>").count(), 0);
    }

    #[test]
    fn lines_have_a_key_and_go_below_zero() {
        let series = vec![("departure", vec![1.0, -2.0, 3.0]), ("arrival", vec![0.0, 0.0, 9.0])];
        let figure = example(&["a", "b", "c"], series).lines().unwrap().into_string();
        check(&figure, &["class=\"s0\">departure", "class=\"s1\">arrival", "<polyline"]);
    }

    #[test]
    fn the_second_line_is_dashed_and_lines_end_where_nothing_is_known() {
        let (first, second) = (vec![1.0, 2.0, f64::NAN, 3.0, 4.0], vec![1.0; 5]);
        let figure = example(&["a", "b", "c", "d", "e"], vec![("x", first), ("y", second)]);
        let figure = figure.lines().unwrap().into_string();
        let first = figure.matches("stroke=\"var(--first, #3a86c0)\"").count();
        let second = figure.matches("stroke=\"var(--second, #808b96)\"").count();
        assert!(first == 2 && second > 5, "{first} {second} {figure}");
        assert!(!figure.contains("NaN"), "{figure}");
        assert!(figure.contains("<p class=\"axis\">flights</p>"), "{figure}");
    }

    #[test]
    fn nothing_can_be_drawn() {
        check(&example(&[], vec![("flights", vec![])]).bars().unwrap().into_string(), &["<svg"]);
        let lines = example(&[], vec![("a", vec![]), ("b", vec![])]).lines();
        check(&lines.unwrap().into_string(), &["<svg"]);
    }
}
