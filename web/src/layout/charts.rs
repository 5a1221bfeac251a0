//! Charts, drawn on the server: SVG that scales, takes its colours from the page, and says to a
//! screen reader what it shows; the table that it is drawn from folds out below it.

use anyhow::{Context, Result};
use maud::{Markup, PreEscaped, html};
use plotters::chart::MeshStyle;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Width of a drawing in its own units: at 360 px of screen, text of 13 units is 12 px.
const WIDTH: u32 = 400;
const HEIGHT: u32 = 250;
const TEXT: f64 = 13.0;
/// plotters writes sizes of text divided by this.
const SHRUNK: f64 = 1.24;
/// Width of a letter, about.
const LETTER: usize = 9;
/// Height of a row of a chart of rows.
const ROW: u32 = 26;

/// Stand-ins for colours of the page, which plotters cannot name, and what replaces them.
const INK: RGBColor = RGBColor(1, 0, 0);
const FIRST: RGBColor = RGBColor(2, 0, 0);
const SECOND: RGBColor = RGBColor(3, 0, 0);
const PAINTS: [(&str, &str); 3] = [
    ("\"#010000\"", "\"currentColor\""),
    ("\"#020000\"", "\"var(--c1)\""),
    ("\"#030000\"", "\"var(--c3)\""),
];

/// What is drawn: for each of `names`, in order, a value in each of the series.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// What there is to see, a sentence.
    pub(crate) description: &'a str,
    /// What the names are, along the horizontal axis.
    pub(crate) x_title: &'a str,
    /// What the values are, with their unit.
    pub(crate) y_title: &'a str,
    pub(crate) names: Vec<String>,
    /// Name and values of each series, two at most.
    pub(crate) series: Vec<(&'a str, Vec<f64>)>,
    /// How a value reads, along the axis and in the table.
    pub(crate) value: fn(f64) -> String,
}

impl Chart<'_> {
    /// A bar for each name; one series.
    pub(crate) fn bars(&self) -> Result<Markup> {
        let values = &self.series.first().context("a chart needs a series")?.1;
        let top = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let drawn = self.draw(0.0..top * 1.05, |chart| {
            let bar = |(i, value): (usize, &f64)| {
                let corners = [(i as f64 - 0.4, 0.0), (i as f64 + 0.4, *value)];
                Rectangle::new(corners, FIRST.filled())
            };
            chart.draw_series(values.iter().enumerate().map(bar))?;
            Ok(())
        })?;
        Ok(self.figure(&drawn, HEIGHT))
    }

    /// A line for each series.
    pub(crate) fn lines(&self) -> Result<Markup> {
        let all = || self.series.iter().flat_map(|(_, values)| values).copied();
        let (bottom, top) = (all().fold(0.0, f64::min), all().fold(1.0, f64::max));
        let room = (top - bottom) * 0.05;
        let drawn = self.draw(bottom - room..top + room, |chart| {
            for ((_, values), paint) in self.series.iter().zip([FIRST, SECOND]) {
                let points = values.iter().enumerate().map(|(i, value)| (i as f64, *value));
                chart.draw_series(LineSeries::new(points, paint.stroke_width(2)))?;
            }
            Ok(())
        })?;
        Ok(self.figure(&drawn, HEIGHT))
    }

    /// A row for each name, its bar to the right of it; one series.
    pub(crate) fn rows(&self) -> Result<Markup> {
        let values = &self.series.first().context("a chart needs a series")?.1;
        let top = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let (name, number) = (|y: &f64| self.name(*y), |x: &f64| (self.value)(*x));
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut drawn = String::new();
        {
            let height = ROW * self.names.len() as u32 + 56;
            let area = SVGBackend::with_string(&mut drawn, (WIDTH, height)).into_drawing_area();
            let y = self.names.len() as f64 - 0.5..-0.5;
            let mut chart = ChartBuilder::on(&area)
                .margin(8)
                .margin_right(20)
                .x_label_area_size(42)
                .y_label_area_size(16 + (LETTER * longest) as u32)
                .build_cartesian_2d(0.0..top * 1.05, y)?;
            let mut mesh = chart.configure_mesh();
            style(&mut mesh);
            mesh.disable_y_mesh().x_labels(4).y_labels(self.names.len() + 1);
            mesh.x_label_formatter(&number);
            mesh.y_label_formatter(&name).x_desc(self.y_title).draw()?;
            drop(mesh);
            let bar = |(i, value): (usize, &f64)| {
                let corners = [(0.0, i as f64 - 0.35), (*value, i as f64 + 0.35)];
                Rectangle::new(corners, FIRST.filled())
            };
            chart.draw_series(values.iter().enumerate().map(bar))?;
            area.present()?;
        }
        Ok(self.figure(&drawn, ROW * self.names.len() as u32 + 56))
    }

    fn draw(
        &self,
        y: std::ops::Range<f64>,
        draw: impl FnOnce(&mut Plane<'_, '_>) -> Result<()>,
    ) -> Result<String> {
        let mut drawn = String::new();
        let (name, number) = (|x: &f64| self.name(*x), |y: &f64| (self.value)(*y));
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        // more names would run into each other
        let n_names = (WIDTH as usize - 90) / (LETTER * (longest + 2));
        {
            let area = SVGBackend::with_string(&mut drawn, (WIDTH, HEIGHT)).into_drawing_area();
            let x = -0.5..self.names.len() as f64 - 0.5;
            let mut chart = ChartBuilder::on(&area)
                .margin(8)
                .margin_right(20)
                .x_label_area_size(42)
                .y_label_area_size(72)
                .build_cartesian_2d(x, y)?;
            let mut mesh = chart.configure_mesh();
            style(&mut mesh);
            mesh.disable_x_mesh().x_labels(n_names.max(2)).y_labels(5);
            mesh.y_label_formatter(&number);
            mesh.x_label_formatter(&name).x_desc(self.x_title).y_desc(self.y_title).draw()?;
            drop(mesh);
            draw(&mut chart)?;
            area.present()?;
        }
        Ok(drawn)
    }

    /// The name at a place of the axis; none between two.
    fn name(&self, place: f64) -> String {
        let is_whole = (place - place.round()).abs() < 1e-6 && place >= 0.0;
        let name = is_whole.then(|| self.names.get(place.round() as usize)).flatten();
        name.cloned().unwrap_or_default()
    }

    /// The drawing in its figure. The element that plotters opens has a fixed width and no role, so
    /// it is replaced.
    fn figure(&self, drawn: &str, height: u32) -> Markup {
        let shapes = drawn.split_once('>').map_or("", |(_, shapes)| shapes);
        let mut shapes = shapes.replace("</svg>", "");
        for (stand_in, paint) in PAINTS {
            shapes = shapes.replace(stand_in, paint);
        }
        let Self { title, description, x_title, names, series, value, .. } = self;
        html! {
            figure.card.chart {
                figcaption { h2 { (title) } p { (description) } }
                @if series.len() > 1 {
                    ul.key { @for (i, (name, _)) in series.iter().enumerate() {
                        li class={ "s" (i) } { (name) }
                    } }
                }
                svg role="img" viewBox={ "0 0 " (WIDTH) " " (height) } {
                    title { (title) }
                    desc { (description) }
                    // made by plotters, which escapes our names
                    (PreEscaped(shapes))
                }
                details {
                    summary { "The numbers" }
                    div.table tabindex="0" role="region" aria-label={ "The numbers: " (title) } {
                        table {
                            thead { tr {
                                th scope="col" { (x_title) }
                                @for (name, _) in series { th scope="col" { (name) } }
                            } }
                            tbody { @for (i, name) in names.iter().enumerate() { tr {
                                th scope="row" { (name) }
                                @for (_, values) in series { td.number { (value(values[i])) } }
                            } } }
                        }
                    }
                }
            }
        }
    }
}

/// Gives the axes the colours and the type of the page.
fn style(mesh: &mut MeshStyle<'_, '_, RangedCoordf64, RangedCoordf64, SVGBackend<'_>>) {
    let text = TextStyle::from(("system-ui, sans-serif", TEXT * SHRUNK).into_font());
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.14))
        .axis_style(INK.mix(0.6))
        .label_style(text.color(&INK));
}

type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::page;

    fn example<'a>(names: &[&str], series: Vec<(&'a str, Vec<f64>)>) -> Chart<'a> {
        Chart {
            title: "Flights <by> month",
            description: "A bar a month.",
            x_title: "month",
            y_title: "flights",
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            series,
            value: page::percent,
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
    fn nothing_can_be_drawn() {
        check(&example(&[], vec![("flights", vec![])]).bars().unwrap().into_string(), &["<svg"]);
        let lines = example(&[], vec![("a", vec![]), ("b", vec![])]).lines();
        check(&lines.unwrap().into_string(), &["<svg"]);
    }
}
