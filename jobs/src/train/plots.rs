//! The pictures of a report. Pure: the same drawing for the same evaluation.

use anyhow::Result;
use charts::numbers::{percent, signed, thousands};
use charts::svg::{
    Area, FIRST, INK, SECOND, SMALL, TEXT, axis, bar, style, svg, text_style, write,
};
use events::{DelayClass, N_CLASSES};
use maud::Markup;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::models::evaluation::{Bin, Evaluation};

/// Reliability diagram: per calibration bin, how often the forest was right against how sure
/// it was, and a thin line for what it was before it was calibrated. The area of a point grows with
/// its flights; bins without flights have none.
///
/// Fails only where plotters cannot draw.
pub fn calibration(evaluation: &Evaluation, before: &Evaluation) -> Result<Markup> {
    let title = "Calibration: share right by mean confidence";
    let desc = format!(
        "One point per calibration bin, {} flights in all. On the dashed line, the forest is \
         right as often as it is sure. The line without points is of the forest before it was \
         calibrated.",
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
        let mut mesh = chart.configure_mesh();
        style(&mut mesh, TEXT);
        mesh.x_labels(6)
            .y_labels(6)
            .x_desc("mean confidence")
            .y_desc("share right")
            .x_label_formatter(&whole_percent)
            .y_label_formatter(&whole_percent)
            .draw()?;
        drop(mesh);
        let diagonal = [(0.0, 0.0), (1.0, 1.0)];
        chart.draw_series(DashedLineSeries::new(diagonal, 6, 5, INK.mix(0.6).into()))?;
        let line = points(before).into_iter().map(|(x, y, _)| (x, y));
        chart.draw_series(LineSeries::new(line, SECOND.stroke_width(2)))?;
        let points = points(evaluation);
        let line = points.iter().map(|&(x, y, _)| (x, y));
        chart.draw_series(LineSeries::new(line, FIRST.stroke_width(2)))?;
        let circle = |&(x, y, radius): &_| Circle::new((x, y), radius, FIRST.mix(0.75).filled());
        chart.draw_series(points.iter().map(circle))?;
        Ok(())
    })
}

/// Mean confidence, share right and radius of each bin that has flights.
fn points(evaluation: &Evaluation) -> Vec<(f64, f64, u32)> {
    const RADIUS_MIN: f64 = 3.0;
    const RADIUS_MAX: f64 = 15.0;
    let bins = evaluation.calibration.iter().filter(|bin| bin.n_rows > 0);
    let largest = bins.clone().map(|bin| bin.n_rows).max().unwrap_or(1) as f64;
    let point = |bin: &Bin| {
        let n = bin.n_rows as f64;
        let radius = RADIUS_MAX * (n / largest).sqrt();
        let confidence = bin.confidence_billionths as f64 / 1e9 / n;
        (confidence, bin.n_right as f64 / n, radius.max(RADIUS_MIN).round() as u32)
    };
    bins.map(point).collect()
}

/// Horizontal bars of (feature, importance, change against the previous champion), in the order
/// given. Where there is a change, a line across the bar stands where it ended before.
///
/// Fails only where plotters cannot draw.
pub fn importances(importances: &[(&str, f64, Option<f64>)]) -> Result<Markup> {
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
            bar(area, (LEFT, x_of(share)), (y + 5, y + ROW - 5), FIRST)?;
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
pub fn confusion(evaluation: &Evaluation) -> Result<Markup> {
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
    area.draw(&Rectangle::new(inner, FIRST.mix(0.05 + depth).filled()))?;
    let (x, y) = ((left + right) / 2, (top + bottom) / 2);
    write(area, &percent(share), (x, y - 9), HPos::Center, TEXT + 2.0)?;
    write(area, &thousands(n_rows), (x, y + 11), HPos::Center, SMALL)
}

/// The name of a class, its words under one another, around a height.
fn write_words(area: &Area<'_>, class: usize, at: (i32, i32), anchor: HPos) -> Result<()> {
    const LINE: i32 = 16;
    let words: Vec<&str> = DelayClass::ALL[class].name().split(' ').collect();
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
pub fn class_shares(evaluation: &Evaluation) -> Result<Markup> {
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
        for (x, name, paint) in [(LEFT, "true", SECOND), (LEFT + 80, "predicted", FIRST)] {
            bar(area, (x, x + 13), (6, 19), paint)?;
            write(area, name, (x + 20, 13), HPos::Left, TEXT)?;
        }
        for class in 0..N_CLASSES {
            let y = TOP + class as i32 * GROUP;
            write(area, &DelayClass::ALL[class].title(), (LEFT, y + 9), HPos::Left, TEXT)?;
            let bars = [(of_truth[class], SECOND, y + 20), (of_predictions[class], FIRST, y + 37)];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::evaluation::tests::of_confusion;

    fn example() -> Evaluation {
        let confusion = [[800, 200, 0, 0], [400, 1_500, 100, 0], [0, 0, 300, 0], [0, 0, 0, 700]];
        let mut evaluation = of_confusion(confusion);
        evaluation.calibration = Default::default();
        evaluation.calibration[4] =
            Bin { n_rows: 1_000, n_right: 500, confidence_billionths: 450_000_000_000 };
        evaluation.calibration[9] =
            Bin { n_rows: 3_000, n_right: 2_800, confidence_billionths: 2_850_000_000_000 };
        evaluation
    }

    fn check(svg: &Markup, contains: &[&str]) {
        let svg = &svg.0;
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"), "{svg}");
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
        let svg = calibration(&example(), &example()).unwrap();
        check(&svg, &["mean confidence", "share right", "4,000 flights"]);
        assert_eq!(svg.0.matches("<circle").count(), 2);
    }

    #[test]
    fn importances_escape_names_and_show_changes() {
        let rows = [("dep_delay", 0.75, Some(0.05)), ("<b>&\"#010000\"", 0.25, None)];
        let svg = importances(&rows).unwrap();
        let named = maud::PreEscaped(svg.0.replace("&quot;#010000", ""));
        check(&named, &["dep_delay", "75.0 % (+5.0)", "&lt;b&gt;&amp;"]);
        assert!(!svg.0.contains("<b>"), "{}", svg.0);
    }

    #[test]
    fn confusion_has_share_and_count_of_each_cell() {
        let svg = confusion(&example()).unwrap();
        check(&svg, &["predicted", "true", "75.0 %", "1,500", "Early", "Slightly", "Very"]);
        // sixteen cells and four frames
        assert_eq!(svg.0.matches("<rect").count(), 20);
    }

    #[test]
    fn class_shares_name_all_classes() {
        let svg = class_shares(&example()).unwrap();
        check(&svg, &["true", "predicted", "25.0 %", "42.5 %"]);
        DelayClass::ALL.iter().for_each(|class| check(&svg, &[&class.title()]));
    }

    #[test]
    fn an_evaluation_without_flights_can_be_drawn() {
        let none = of_confusion([[0; 4]; 4]);
        check(&calibration(&none, &none).unwrap(), &["0 flights"]);
        check(&confusion(&none).unwrap(), &["–"]);
        check(&class_shares(&none).unwrap(), &["0.0 %"]);
        check(&importances(&[]).unwrap(), &[]);
    }
}
