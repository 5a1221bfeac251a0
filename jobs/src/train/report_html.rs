//! The report of a training run as one page of HTML that needs nothing else: no script, no font,
//! no other file. `report` tells the same on a terminal.
//!
//! Pure: the same page for the same report. Everything that is not written here is escaped.

use std::fmt::Write;

use anyhow::Result;
use events::N_CLASSES;
use udf::model::artefact::Metrics;

use crate::models::evaluation::{Bin, Evaluation, class_title};
use crate::train::plots::{self, decimals, percent, signed, thousands};
use crate::train::report::{Phase, Report};

/// Hexadecimal digits of a version that tell models apart for a reader.
const SHORT_VERSION: usize = 12;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #f4f6f8; --surface: #fff; --line: #d3dae1;
  --ink: #17212b; --soft: #52606d; --accent: #0f5f7f; --better: #1d7a55; --worse: #b3362b;
  --mark: #3a86c0; --quiet: #98a4af; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0f1419; --surface: #182028; --line: #2e3a45; --ink: #e8edf2;
    --soft: #a3b1bf; --accent: #7cc4e4; --better: #5cc797; --worse: #ff8f82;
    --mark: #4a94cc; --quiet: #77899a; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
header, main, footer { width: min(100% - 1.5rem, 70rem); margin: 0 auto; }
header { padding: 1.5rem 0 0.5rem; }
footer { padding: 0.5rem 0 2rem; }
h1 { margin: 0; font-size: clamp(1.5rem, 1.1rem + 2vw, 2.2rem); line-height: 1.2; }
h2 { margin: 0 0 0.6rem; font-size: 1.2rem; line-height: 1.25; }
p { margin: 0.5rem 0; max-width: 46rem; text-wrap: pretty; }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere; }
small, .soft, caption, dt { color: var(--soft); font-size: 0.875rem; }
main { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; }
section { padding: clamp(0.8rem, 0.4rem + 1.5vw, 1.5rem); background: var(--surface);
  border: 1px solid var(--line); border-radius: 12px; }
@media (min-width: 56rem) {
  main { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .full { grid-column: 1 / -1; }
}
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr));
  gap: 0.7rem 1rem; margin: 0; }
dl .full { grid-column: 1 / -1; }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.table { overflow-x: auto; }
table { width: 100%; max-width: 50rem; border-collapse: collapse; font-size: 0.9rem;
  line-height: 1.35; font-variant-numeric: tabular-nums; }
caption { padding-bottom: 0.4rem; text-align: left; }
th, td { padding: 0.4rem 0 0.4rem 0.6rem; border-top: 1px solid var(--line); text-align: right;
  vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-size: 0.8rem; font-weight: 600;
  vertical-align: bottom; }
th:first-child { padding-left: 0; text-align: left; }
td small { display: block; }
.better { color: var(--better); }
.worse { color: var(--worse); }
svg { display: block; width: 100%; max-width: 34rem; height: auto; margin: 0.5rem auto; }
summary { padding: 0.5rem 0; color: var(--accent); cursor: pointer; }
@media (max-width: 30rem) {
  table { font-size: 0.8rem; }
  thead th, td small { font-size: 0.72rem; }
  th, td { padding-left: 0.35rem; }
}
";

/// The page.
///
/// Fails only where a picture cannot be drawn.
pub fn to_html(report: &Report) -> Result<String> {
    let mut page = String::new();
    let version = escape(short(&report.version));
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Model {version} · Tarmac</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )?;
    write_header(&mut page, report)?;
    page.push_str("<main>\n");
    write_measures(&mut page, report)?;
    write_classes(&mut page, &report.forest)?;
    write_calibration(&mut page, &report.forest)?;
    write_confusion(&mut page, &report.forest)?;
    write_shares(&mut page, &report.forest)?;
    write_importances(&mut page, report)?;
    write_training(&mut page, report)?;
    write_phases(&mut page, report)?;
    page.push_str("</main>\n");
    write!(
        page,
        "<footer class=\"soft\">Model <code>{}</code></footer>\n</body>\n</html>\n",
        escape(&report.version)
    )?;
    Ok(page)
}

/// What this is, and how good, in two sentences.
fn write_header(page: &mut String, report: &Report) -> Result<()> {
    let (rows, accuracy) = (report.model.rows, report.forest.metrics.accuracy);
    let points = |other: &Evaluation| signed((accuracy - other.metrics.accuracy) * 100.0, 1);
    let mut against = vec![format!("{} against the majority class", points(&report.majority))];
    if let Some(logistic) = &report.logistic {
        against.push(format!("{} against logistic regression", points(logistic)));
    }
    if let Some(previous) = &report.previous {
        let version = escape(short(&previous.version));
        let points = points(&previous.evaluation);
        against.push(format!("{points} against the previous champion <code>{version}</code>"));
    }
    write!(
        page,
        "<header>\n<h1>Model <code>{}</code></h1>\n\
         <p>A forest of {} trees that predicts how late a flight arrives, trained on {} flights. \
         It is right on <strong>{}</strong> of the {} flights that were held out; in points: \
         {}.</p>\n</header>\n",
        escape(short(&report.version)),
        report.model.trees.len(),
        thousands(rows.training),
        percent(accuracy),
        thousands(rows.holdout),
        against.join(", ")
    )?;
    Ok(())
}

/// A measure: name, what it is of [`Metrics`], whether more of it is better.
type Measure = (&'static str, fn(&Metrics) -> f64, bool);

const MEASURES: [Measure; 5] = [
    ("accuracy", |m| m.accuracy, true),
    ("precision", |m| m.precision, true),
    ("recall", |m| m.recall, true),
    ("F1", |m| m.f1, true),
    ("log loss", |m| m.log_loss, false),
];

/// Measures by model; under each figure of another model, how far the forest is from it.
fn write_measures(page: &mut String, report: &Report) -> Result<()> {
    page.push_str(
        "<section class=\"full\">\n<h2>Measures on held-out flights</h2>\n\
         <div class=\"table\"><table>\n<caption>Under a figure: how far the forest is from it. \
         Precision, recall and F1 are weighted by class; less log loss is better.</caption>\n\
         <thead><tr><th scope=\"col\">measure</th>",
    );
    let compared = report.compared();
    for (name, _) in &compared {
        write!(page, "<th scope=\"col\">{}</th>", escape(name))?;
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (name, measure, more_is_better) in MEASURES {
        write!(page, "<tr><th scope=\"row\">{name}</th>")?;
        let own = measure(&report.forest.metrics);
        for (i, (_, metrics)) in compared.iter().enumerate() {
            let other = measure(metrics);
            write!(page, "<td>{}", decimals(other))?;
            if i > 0 {
                let change = own - other;
                let class = class_of_change(change, more_is_better);
                write!(page, "<small{class}>{}</small>", signed(change, 4))?;
            }
            page.push_str("</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n</section>\n");
    Ok(())
}

/// The attribute that colours a change; none where it would be shown as zero.
fn class_of_change(change: f64, more_is_better: bool) -> &'static str {
    let shown = signed(change, 4);
    if !shown.starts_with(['+', '−']) {
        ""
    } else if (change > 0.0) == more_is_better {
        " class=\"better\""
    } else {
        " class=\"worse\""
    }
}

fn write_classes(page: &mut String, forest: &Evaluation) -> Result<()> {
    let row = |class: usize| {
        let own = forest.classes[class];
        let measures = [own.precision, own.recall, own.f1].map(decimals);
        [vec![class_title(class), thousands(own.n_rows)], measures.to_vec()].concat()
    };
    page.push_str("<section class=\"full\">\n<h2>Measures by class</h2>\n");
    write_table(
        page,
        "Of the forest, on held-out flights. A dash: no flight is of, or predicted as, the class.",
        &["class", "flights", "precision", "recall", "F1"],
        (0..N_CLASSES).map(row),
    )?;
    page.push_str("</section>\n");
    Ok(())
}

fn write_calibration(page: &mut String, forest: &Evaluation) -> Result<()> {
    let row = |(i, tenth): (usize, &Bin)| {
        let n = tenth.n_rows as f64;
        vec![
            format!("{}–{}%", i * 10, (i + 1) * 10),
            thousands(tenth.n_rows),
            percent(tenth.confidence_billionths as f64 / 1e9 / n),
            percent(tenth.n_right as f64 / n),
        ]
    };
    write_plot(
        page,
        "Is it as sure as it is right?",
        "On the dashed line it is; under it, it is too sure. Larger points stand for more flights.",
        &plots::calibration(forest)?,
        &["probability", "flights", "mean confidence", "share right"],
        forest.calibration.iter().enumerate().map(row),
    )
}

fn write_confusion(page: &mut String, forest: &Evaluation) -> Result<()> {
    let titles: Vec<String> = (0..N_CLASSES).map(class_title).collect();
    let mut headers = vec!["true class, predicted as:"];
    headers.extend(titles.iter().map(String::as_str));
    let row = |class: usize| {
        let flights = forest.confusion[class];
        let of_class: u64 = flights.iter().sum();
        let cell = |n: u64| format!("{} ({})", thousands(n), percent(n as f64 / of_class as f64));
        [vec![titles[class].clone()], flights.map(cell).to_vec()].concat()
    };
    write_plot(
        page,
        "What is taken for what?",
        "Each row shares out the flights of a class; the framed cells are right.",
        &plots::confusion(forest)?,
        &headers,
        (0..N_CLASSES).map(row),
    )
}

fn write_shares(page: &mut String, forest: &Evaluation) -> Result<()> {
    let (of_truth, of_predictions) = (forest.class_shares(), plots::predicted_shares(forest));
    let row = |class: usize| {
        vec![class_title(class), percent(of_truth[class]), percent(of_predictions[class])]
    };
    write_plot(
        page,
        "Is each class predicted as often as it occurs?",
        "A shorter lower bar: the class is predicted too rarely.",
        &plots::class_shares(forest)?,
        &["class", "true", "predicted"],
        (0..N_CLASSES).map(row),
    )
}

fn write_importances(page: &mut String, report: &Report) -> Result<()> {
    let importances = report.importances();
    let row = |&(name, share, change): &(&str, f64, Option<f64>)| {
        let change = change.map_or("–".into(), |change| signed(change * 100.0, 1));
        vec![name.to_owned(), percent(share), change]
    };
    let note = match &report.previous {
        Some(_) => {
            "Share of the decrease of impurity; in brackets its change in points. A line across a \
             bar is where the previous champion's ended."
        }
        None => "Share of the decrease of impurity. There is no previous champion to compare with.",
    };
    write_plot(
        page,
        "What does it look at?",
        note,
        &plots::importances(&importances)?,
        &["feature", "share", "change in points"],
        importances.iter().map(row),
    )
}

/// What it was trained on, and how: enough to train it again.
fn write_training(page: &mut String, report: &Report) -> Result<()> {
    let (params, rows) = (&report.model.params, report.model.rows);
    let facts = [
        ("flights trained on", thousands(rows.training)),
        ("flights held out", thousands(rows.holdout)),
        ("share held out", percent(params.holdout)),
        ("trees", params.n_trees.to_string()),
        ("depth at most", params.depth.to_string()),
        ("bins at most", params.n_bins.to_string()),
        ("rows per leaf at least", params.min_rows_per_leaf.to_string()),
        ("features per node", params.features_per_node.to_string()),
        ("seed", params.seed.to_string()),
    ];
    page.push_str("<section>\n<h2>Training</h2>\n<dl>\n");
    for (name, value) in facts {
        writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value))?;
    }
    let names: Vec<&str> = report.model.features.iter().map(|f| f.name.as_str()).collect();
    let mut texts = vec![
        ("features", names.join(", ")),
        ("SHA-256 of the SQL that made features and labels", report.model.sql_sha256.clone()),
    ];
    if let Some(previous) = &report.previous {
        texts.push(("previous champion", previous.version.clone()));
    }
    for (name, value) in texts {
        let value = escape(&value);
        writeln!(page, "<div class=\"full\"><dt>{name}</dt><dd><code>{value}</code></dd></div>")?;
    }
    page.push_str("</dl>\n</section>\n");
    Ok(())
}

fn write_phases(page: &mut String, report: &Report) -> Result<()> {
    let row = |phase: &Phase| {
        let per_second = if phase.seconds > 0.0 {
            thousands((phase.n_rows as f64 / phase.seconds).round() as u64)
        } else {
            "–".into()
        };
        let seconds = format!("{:.2}", phase.seconds);
        vec![phase.name.to_owned(), seconds, thousands(phase.n_rows), per_second]
    };
    page.push_str("<section>\n<h2>Phases</h2>\n");
    let caption = format!(
        "Fitting took {:.2} s of {:.2} s. Rows are counted once per pass.",
        report.fit_seconds(),
        report.job_seconds()
    );
    let headers = ["phase", "seconds", "rows read", "rows per second"];
    write_table(page, &caption, &headers, report.phases.iter().map(row))?;
    page.push_str("</section>\n");
    Ok(())
}

/// A section with a picture, and its numbers for who cannot see it or wants them exactly.
fn write_plot(
    page: &mut String,
    title: &str,
    note: &str,
    svg: &str,
    headers: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    let (title, note) = (escape(title), escape(note));
    writeln!(page, "<section>\n<h2>{title}</h2>\n<p class=\"soft\">{note}</p>")?;
    page.push_str(svg);
    page.push_str("<details><summary>The same as a table</summary>\n");
    write_table(page, "", headers, rows)?;
    page.push_str("</details>\n</section>\n");
    Ok(())
}

/// A table whose first column names its rows. Takes text, not HTML.
fn write_table(
    page: &mut String,
    caption: &str,
    headers: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    page.push_str("<div class=\"table\"><table>\n");
    if !caption.is_empty() {
        writeln!(page, "<caption>{}</caption>", escape(caption))?;
    }
    page.push_str("<thead><tr>");
    for header in headers {
        write!(page, "<th scope=\"col\">{}</th>", escape(header))?;
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            match i {
                0 => write!(page, "<th scope=\"row\">{cell}</th>")?,
                _ => write!(page, "<td>{cell}</td>")?,
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

fn short(version: &str) -> &str {
    version.get(..SHORT_VERSION).unwrap_or(version)
}

/// Text that is safe between tags and in attributes.
fn escape(text: &str) -> String {
    // the ampersand first, or it would escape the other escapes
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::evaluation::N_BINS;
    use crate::train::report::Previous;
    use udf::encode::encoder::Encoding;
    use udf::model::artefact::{FORMAT, FeatureSpec, ForestParams, Model, Node, Rows, Tree};

    fn evaluation(confusion: [[u64; 4]; 4]) -> Evaluation {
        let mut calibration = [Bin::default(); N_BINS];
        calibration[7] = Bin { n_rows: 40, n_right: 30, confidence_billionths: 30_400_000_000 };
        Evaluation::new(confusion, 30.0, calibration).unwrap()
    }

    fn example() -> Report {
        let forest = evaluation([[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 0, 10], [0, 0, 0, 10]]);
        let names = ["dep_delay", "<script>alert('&')</script>"];
        let encoding = Encoding::Numeric(vec![0.0]);
        let feature =
            |name: &str| FeatureSpec { name: name.to_owned(), encoding: encoding.clone() };
        let model = Model {
            format: FORMAT,
            classes: (0..N_CLASSES).map(class_title).collect(),
            params: ForestParams { seed: 4_711, ..ForestParams::default() },
            sql_sha256: "5a1".repeat(21) + "0",
            rows: Rows { training: 1_234_567, holdout: 40 },
            holdout: forest.metrics,
            features: names.map(feature).to_vec(),
            reference: None,
            importances: vec![0.75, 0.25],
            trees: vec![Tree { nodes: vec![Node { counts: [1; 4], split: None }] }],
        };
        let majority = Evaluation::majority(&forest).unwrap();
        let phase = |name, seconds| Phase { name, seconds, n_rows: 1_000_000 };
        let phases = vec![phase("levels", 2.0), phase("evaluation", 0.0)];
        let version = "0123456789abcdef".repeat(4);
        Report { model, version, forest, majority, logistic: None, previous: None, phases }
    }

    fn check(report: &Report, contains: &[&str]) {
        let page = to_html(report).unwrap();
        for text in contains {
            assert!(page.contains(text), "{text:?} is not in {page}");
        }
    }

    #[test]
    fn everything_that_is_known_is_told() {
        let report = example();
        check(&report, &["<title>Model 0123456789ab ·", &report.version, "1,234,567", "4711"]);
        check(&report, &[&report.model.sql_sha256, "500,000", "rows per second", "majority class"]);
        check(&report, &["There is no previous champion"]);
        (0..N_CLASSES).for_each(|class| check(&report, &[&class_title(class)]));
        let page = to_html(&report).unwrap();
        assert_eq!(page.matches("role=\"img\"").count(), 4);
        assert_eq!(page.matches("<details>").count(), 4);
    }

    #[test]
    fn names_are_escaped_and_nothing_is_loaded() {
        let mut report = example();
        report.version = "\"><img src=x>".into();
        let page = to_html(&report).unwrap();
        check(&report, &["&lt;script&gt;alert(&#39;&amp;&#39;)", "&quot;&gt;&lt;img"]);
        for forbidden in ["<script", "<img", "<link", "url(", "href=", "src=\""] {
            assert!(!page.contains(forbidden), "{forbidden} is in {page}");
        }
    }

    #[test]
    fn the_previous_champion_and_the_baseline_come_with_changes() {
        let mut report = example();
        let worse = evaluation([[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 0, 10], [0, 0, 10, 0]]);
        report.logistic = Some(worse.clone());
        let importances = vec![("dep_delay".to_owned(), 0.8)];
        report.previous =
            Some(Previous { version: "fedc".repeat(16), evaluation: worse, importances });
        let change = "<small class=\"better\">+0.2500</small>";
        check(&report, &["logistic (40 rows)", "previous champion", "fedcfedcfedc", change]);
        check(&report, &["<td>75.0%</td><td>−5.0</td>", "<td>25.0%</td><td>+25.0</td>"]);
    }

    #[test]
    fn the_same_report_makes_the_same_page() {
        assert_eq!(to_html(&example()).unwrap(), to_html(&example()).unwrap());
    }

    #[test]
    fn less_log_loss_is_better() {
        assert_eq!(class_of_change(-0.1, false), " class=\"better\"");
        assert_eq!(class_of_change(-0.1, true), " class=\"worse\"");
        assert_eq!(class_of_change(-0.000_01, true), "");
    }
}
