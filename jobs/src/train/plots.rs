//! The pictures of a report: SVG that scales, says to a screen reader what it shows, and takes its
//! colours from the page around it, so that it reads on light and on dark.
//!
//! Pure: measures in, text out, the same text for the same measures. No font is loaded, no file
//! written.

use anyhow::{Context, Result};
use events::{CLASS_LABELS, N_CLASSES};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::models::evaluation::{Bin, Evaluation, class_title};

/// Width of a drawing in its own units: at 360 px of screen, 13 units of text are still 10 px.
const WIDTH: u32 = 400;
/// Size of text.
const TEXT: f64 = 13.0;
/// Size of text that stands under other text.
const SMALL: f64 = 12.0;
/// Fonts that are there already.
const FONTS: &str = "system-ui, sans-serif";

/// Stand-ins for colours of the page, which plotters cannot name; see [`PAINTS`].
const INK: RGBColor = RGBColor(1, 0, 0);
const MARK: RGBColor = RGBColor(2, 0, 0);
const QUIET: RGBColor = RGBColor(3, 0, 0);
/// What the stand-ins are replaced by. The colours after the commas are for a page that defines
/// none; they keep 3 : 1 against white and against black.
const PAINTS: [(&str, &str); 3] = [
    ("\"#010000\"", "\"currentColor\""),
    ("\"#020000\"", "\"var(--mark, #3a86c0)\""),
    ("\"#030000\"", "\"var(--quiet, #808b96)\""),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Reliability diagram: per tenth of probability, how often the forest was right against how sure
/// it was. The area of a point grows with its flights; tenths without flights have none.
///
/// Fails only where plotters cannot draw.
pub fn calibration(evaluation: &Evaluation) -> Result<String> {
    let title = "Calibration: share right by mean confidence";
    let desc = format!(
        "One point per tenth of probability, {} flights in all. On the dashed line, the forest is \
         right as often as it is sure.",
        thousands(evaluation.n_rows())
    );
    svg(title, &desc, 340, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(26)
            .x_label_area_size(44)
            .y_label_area_size(58)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        let whole_percent = |share: &f64| format!("{:.0}%", share * 100.0);
        chart
            .configure_mesh()
            .x_labels(6)
            .y_labels(6)
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.14))
            .axis_style(INK.mix(0.6))
            .label_style(text_style(TEXT))
            .axis_desc_style(text_style(TEXT))
            .x_desc("mean confidence")
            .y_desc("share right")
            .x_label_formatter(&whole_percent)
            .y_label_formatter(&whole_percent)
            .draw()?;
        let diagonal = [(0.0, 0.0), (1.0, 1.0)];
        chart.draw_series(DashedLineSeries::new(diagonal, 6, 5, INK.mix(0.6).into()))?;
        let points = points(evaluation);
        let line = points.iter().map(|&(x, y, _)| (x, y));
        chart.draw_series(LineSeries::new(line, MARK.stroke_width(2)))?;
        let circle = |&(x, y, radius): &_| Circle::new((x, y), radius, MARK.mix(0.75).filled());
        chart.draw_series(points.iter().map(circle))?;
        Ok(())
    })
}

/// Mean confidence, share right and radius of each tenth that has flights.
fn points(evaluation: &Evaluation) -> Vec<(f64, f64, u32)> {
    const RADIUS_MIN: f64 = 3.0;
    const RADIUS_MAX: f64 = 15.0;
    let tenths = evaluation.calibration.iter().filter(|tenth| tenth.n_rows > 0);
    let largest = tenths.clone().map(|tenth| tenth.n_rows).max().unwrap_or(1) as f64;
    let point = |tenth: &Bin| {
        let n = tenth.n_rows as f64;
        let radius = RADIUS_MAX * (n / largest).sqrt();
        let confidence = tenth.confidence_billionths as f64 / 1e9 / n;
        (confidence, tenth.n_right as f64 / n, radius.max(RADIUS_MIN).round() as u32)
    };
    tenths.map(point).collect()
}

/// Horizontal bars of (feature, importance, change against the previous champion), in the order
/// given. Where there is a change, a line across the bar stands where it ended before.
///
/// Fails only where plotters cannot draw.
pub fn importances(importances: &[(&str, f64, Option<f64>)]) -> Result<String> {
    const ROW: i32 = 30;
    const LEFT: i32 = 104;
    const LONGEST: f64 = 180.0;
    let title = "Importance of each feature";
    let desc = "Longer bars brought a larger share of the decrease of impurity. A line across a \
                bar is where the previous champion's ended.";
    let ends = |&(_, share, change): &(&str, f64, Option<f64>)| {
        share.max(change.map_or(share, |change| share - change))
    };
    let longest = importances.iter().map(ends).fold(f64::MIN_POSITIVE, f64::max);
    let x_of = |share: f64| LEFT + (LONGEST * share / longest).round() as i32;
    let height = ROW * i32::try_from(importances.len())? + 8;
    svg(title, desc, height.unsigned_abs(), |area| {
        let mut y = 4;
        for &(name, share, change) in importances {
            let middle = y + ROW / 2;
            write(area, name, (LEFT - 8, middle), HPos::Right, TEXT)?;
            bar(area, (LEFT, x_of(share)), (y + 5, y + ROW - 5), MARK)?;
            let before = change.map(|change| x_of(share - change));
            if let Some(x) = before {
                let line = [(x, y + 2), (x, y + ROW - 2)];
                area.draw(&PathElement::new(line, INK.stroke_width(2)))?;
            }
            let mut value = percent(share);
            if let Some(change) = change {
                value += &format!(" ({})", signed(change * 100.0, 1));
            }
            let end = x_of(share).max(before.unwrap_or(LEFT)) + 7;
            write(area, &value, (end, middle), HPos::Left, SMALL)?;
            y += ROW;
        }
        axis(area, LEFT, (4, y))
    })
}

/// Heat map of flights by true class (rows) and predicted class (columns): in each cell the share
/// of its row and the flights; what is right is framed.
///
/// Fails only where plotters cannot draw.
pub fn confusion(evaluation: &Evaluation) -> Result<String> {
    const LEFT: i32 = 80;
    const TOP: i32 = 62;
    const CELL: (i32, i32) = (79, 58);
    let title = "Confusion: true class by predicted class";
    let desc = "Each row is a true class, each column a predicted one. A cell has the share of \
                its row, which is also its depth of colour, and the number of flights.";
    let n_classes = N_CLASSES as i32;
    let height = (TOP + n_classes * CELL.1 + 4).unsigned_abs();
    svg(title, desc, height, |area| {
        let centre = (LEFT + n_classes * CELL.0 / 2, 10);
        write(area, "predicted", centre, HPos::Center, TEXT)?;
        let upwards = text_style(TEXT).transform(FontTransform::Rotate270);
        let upwards = upwards.pos(Pos::new(HPos::Center, VPos::Center));
        area.draw_text("true", &upwards, (10, TOP + n_classes * CELL.1 / 2))?;
        for class in 0..N_CLASSES {
            let (x, y) = (LEFT + class as i32 * CELL.0, TOP + class as i32 * CELL.1);
            write_words(area, class, (x + CELL.0 / 2, TOP - 22), HPos::Center)?;
            write_words(area, class, (LEFT - 7, y + CELL.1 / 2), HPos::Right)?;
            let of_class: u64 = evaluation.confusion[class].iter().sum();
            for (predicted, &n_rows) in evaluation.confusion[class].iter().enumerate() {
                let at = (LEFT + predicted as i32 * CELL.0, y);
                cell(area, [at, (at.0 + CELL.0, at.1 + CELL.1)], n_rows, of_class)?;
            }
            let frame = [(x + 1, y + 1), (x + CELL.0 - 2, y + CELL.1 - 2)];
            area.draw(&Rectangle::new(frame, INK.mix(0.8)))?;
        }
        Ok(())
    })
}

/// A cell of the heat map between two corners.
fn cell(area: &Area<'_>, corners: [(i32, i32); 2], n_rows: u64, of_class: u64) -> Result<()> {
    // deeper colour than this would leave too little contrast to the text
    const DEPTH_MAX: f64 = 0.6;
    let share = n_rows as f64 / of_class as f64;
    let depth = if share.is_nan() { 0.0 } else { share * DEPTH_MAX };
    let [(left, top), (right, bottom)] = corners;
    let inner = [(left + 1, top + 1), (right - 2, bottom - 2)];
    area.draw(&Rectangle::new(inner, MARK.mix(0.05 + depth).filled()))?;
    let (x, y) = ((left + right) / 2, (top + bottom) / 2);
    write(area, &percent(share), (x, y - 9), HPos::Center, TEXT + 2.0)?;
    write(area, &thousands(n_rows), (x, y + 11), HPos::Center, SMALL)
}

/// The name of a class, its words under one another, around a height.
fn write_words(area: &Area<'_>, class: usize, at: (i32, i32), anchor: HPos) -> Result<()> {
    const LINE: i32 = 16;
    let words: Vec<&str> = CLASS_LABELS[class].name.split(' ').collect();
    let mut y = at.1 - LINE * (words.len() as i32 - 1) / 2;
    for word in words {
        write(area, word, (at.0, y), anchor, TEXT)?;
        y += LINE;
    }
    Ok(())
}

/// Bars per class: its share among the flights and among the predictions.
///
/// Fails only where plotters cannot draw.
pub fn class_shares(evaluation: &Evaluation) -> Result<String> {
    const LEFT: i32 = 10;
    const TOP: i32 = 34;
    const GROUP: i32 = 66;
    const LONGEST: f64 = 310.0;
    let title = "Share of each class among the flights and among the predictions";
    let desc = "Two bars per class: the share of the flights that are of it, and the share that \
                are predicted as it.";
    let (of_truth, of_predictions) = (evaluation.class_shares(), predicted_shares(evaluation));
    let longest = of_truth.into_iter().chain(of_predictions).fold(f64::MIN_POSITIVE, f64::max);
    let x_of = |share: f64| LEFT + (LONGEST * share / longest).round() as i32;
    let height = (TOP + GROUP * N_CLASSES as i32).unsigned_abs();
    svg(title, desc, height, |area| {
        for (x, name, paint) in [(LEFT, "true", QUIET), (LEFT + 80, "predicted", MARK)] {
            bar(area, (x, x + 13), (6, 19), paint)?;
            write(area, name, (x + 20, 13), HPos::Left, TEXT)?;
        }
        for class in 0..N_CLASSES {
            let y = TOP + class as i32 * GROUP;
            write(area, &class_title(class), (LEFT, y + 9), HPos::Left, TEXT)?;
            let bars = [(of_truth[class], QUIET, y + 20), (of_predictions[class], MARK, y + 37)];
            for (share, paint, y) in bars {
                bar(area, (LEFT, x_of(share)), (y, y + 15), paint)?;
                write(area, &percent(share), (x_of(share) + 6, y + 8), HPos::Left, SMALL)?;
            }
            axis(area, LEFT, (y + 18, y + 54))?;
        }
        Ok(())
    })
}

/// Share of each class among the predictions; all 0 without flights.
pub(crate) fn predicted_shares(evaluation: &Evaluation) -> [f64; N_CLASSES] {
    let n_rows = evaluation.n_rows().max(1) as f64;
    std::array::from_fn(|class| {
        let predicted: u64 = evaluation.confusion.iter().map(|row| row[class]).sum();
        predicted as f64 / n_rows
    })
}

/// A share in percent; a dash for what is not a number.
pub(crate) fn percent(share: f64) -> String {
    if share.is_nan() { "–".into() } else { format!("{:.1}%", share * 100.0) }
}

/// A measure with four decimals; a dash for what is not a number.
pub(crate) fn decimals(measure: f64) -> String {
    if measure.is_nan() { "–".into() } else { format!("{measure:.4}") }
}

/// A change with its sign, which nothing that rounds to zero has; a dash for what is not a number.
pub(crate) fn signed(change: f64, n_decimals: usize) -> String {
    if change.is_nan() {
        return "–".into();
    }
    let size = format!("{:.n_decimals$}", change.abs());
    let is_zero = size.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let sign = match change {
        _ if is_zero => "",
        _ if change < 0.0 => "−",
        _ => "+",
    };
    format!("{sign}{size}")
}

/// A count with its thousands set apart.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Draws, gives the drawing its name, and lets it scale: the element that plotters opens has a
/// fixed width and no role, so it is replaced. `title` and `desc` are ours and need no escaping.
fn svg(
    title: &str,
    desc: &str,
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let mut drawn = String::new();
    let area = SVGBackend::with_string(&mut drawn, (WIDTH, height)).into_drawing_area();
    draw(&area)?;
    area.present()?;
    drop(area);
    let (_, shapes) = drawn.split_once('>').context("plotters drew no svg element")?;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <title>{title}</title>\n<desc>{desc}</desc>{shapes}"
    );
    for (stand_in, paint) in PAINTS {
        svg = svg.replace(stand_in, paint);
    }
    Ok(svg)
}

fn text_style(size: f64) -> TextStyle<'static> {
    // plotters writes font sizes divided by this
    const SHRUNK: f64 = 1.24;
    TextStyle::from((FONTS, size * SHRUNK).into_font()).color(&INK)
}

/// Text, centred on a height.
fn write(area: &Area<'_>, text: &str, at: (i32, i32), anchor: HPos, size: f64) -> Result<()> {
    let style = text_style(size).pos(Pos::new(anchor, VPos::Center));
    Ok(area.draw_text(text, &style, at)?)
}

/// A filled rectangle between two x and two y.
fn bar(area: &Area<'_>, x: (i32, i32), y: (i32, i32), paint: RGBColor) -> Result<()> {
    Ok(area.draw(&Rectangle::new([(x.0, y.0), (x.1, y.1)], paint.filled()))?)
}

/// The line at which bars begin.
fn axis(area: &Area<'_>, x: i32, y: (i32, i32)) -> Result<()> {
    Ok(area.draw(&PathElement::new([(x, y.0), (x, y.1)], INK.mix(0.6)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::evaluation::N_BINS;

    fn example() -> Evaluation {
        let confusion = [[800, 200, 0, 0], [400, 1_500, 100, 0], [0, 0, 300, 0], [0, 0, 0, 700]];
        let mut calibration = [Bin::default(); N_BINS];
        calibration[4] =
            Bin { n_rows: 1_000, n_right: 500, confidence_billionths: 450_000_000_000 };
        calibration[9] =
            Bin { n_rows: 3_000, n_right: 2_800, confidence_billionths: 2_850_000_000_000 };
        Evaluation::new(confusion, 2_400.0, calibration).unwrap()
    }

    fn check(svg: &str, contains: &[&str]) {
        assert!(svg.starts_with("<svg "), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
        let (tag, _) = svg.split_once('>').unwrap();
        assert!(tag.contains("role=\"img\"") && tag.contains("viewBox=\"0 0 400 "), "{tag}");
        assert!(!tag.contains("width="), "{tag}");
        assert!(svg.contains("<title>") && svg.contains("<desc>"), "{svg}");
        for stand_in in ["#010000", "#020000", "#030000"] {
            assert!(!svg.contains(stand_in), "{stand_in} is left in {svg}");
        }
        for text in contains {
            assert!(svg.contains(text), "{text:?} is not in {svg}");
        }
    }

    #[test]
    fn calibration_has_a_point_for_each_tenth_with_flights() {
        let svg = calibration(&example()).unwrap();
        check(&svg, &["mean confidence", "share right", "4,000 flights"]);
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn importances_escape_names_and_show_changes() {
        let rows = [("dep_delay", 0.75, Some(0.05)), ("<b>&\"#010000\"", 0.25, None)];
        let svg = importances(&rows).unwrap();
        check(&svg.replace("&quot;#010000", ""), &["dep_delay", "75.0% (+5.0)", "&lt;b&gt;&amp;"]);
        assert!(!svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn confusion_has_share_and_count_of_each_cell() {
        let svg = confusion(&example()).unwrap();
        check(&svg, &["predicted", "true", "75.0%", "1,500", "Early", "Slightly", "Very"]);
        // sixteen cells and four frames
        assert_eq!(svg.matches("<rect").count(), 20);
    }

    #[test]
    fn class_shares_name_all_classes() {
        let svg = class_shares(&example()).unwrap();
        check(&svg, &["true", "predicted", "25.0%", "42.5%"]);
        (0..N_CLASSES).for_each(|class| check(&svg, &[&class_title(class)]));
    }

    #[test]
    fn an_evaluation_without_flights_can_be_drawn() {
        let none = Evaluation::new([[0; 4]; 4], 0.0, [Bin::default(); N_BINS]).unwrap();
        check(&calibration(&none).unwrap(), &["0 flights"]);
        check(&confusion(&none).unwrap(), &["–"]);
        check(&class_shares(&none).unwrap(), &["0.0%"]);
        check(&importances(&[]).unwrap(), &[]);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(signed(0.5, 1), "+0.5");
        assert_eq!(signed(-0.5, 1), "−0.5");
        assert_eq!(signed(-0.04, 1), "0.0");
        assert_eq!(signed(f64::NAN, 1), "–");
    }
}
