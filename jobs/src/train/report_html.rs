//! The report of a training run as one page of HTML that needs nothing else: no script, no font,
//! no other file. `report` prints the same on a terminal.
//!
//! Pure: the same page for the same report. Everything that is not written here is escaped.

use anyhow::Result;
use charts::numbers::{decimals, percent, signed, thousands};
use charts::table::table;
use events::DelayClass;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use udf::model::artefact::Metrics;

use crate::models::evaluation::Evaluation;
use crate::train::plots;
use crate::train::report::Report;

/// Hexadecimal digits of a version that distinguish models for a reader.
const SHORT_VERSION: usize = 12;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #f4f6f8; --surface: #fff; --line: #d3dae1;
  --ink: #17212b; --soft: #52606d; --accent: #0f5f7f; --better: #1d7a55; --worse: #b3362b;
  --first: #3a86c0; --second: #98a4af; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0f1419; --surface: #182028; --line: #2e3a45; --ink: #e8edf2;
    --soft: #a3b1bf; --accent: #7cc4e4; --better: #5cc797; --worse: #ff8f82;
    --first: #4a94cc; --second: #77899a; }
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
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Model " (short(&report.version)) " · Tarmac" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (header(report))
                main {
                    (measures(report))
                    (classes(&report.forest))
                    (calibration(report)?)
                    (confusion(&report.forest)?)
                    (shares(&report.forest)?)
                    (importances(report)?)
                    (training(report))
                    (phases(report))
                }
                footer.soft { "Model " code { (report.version) } }
            }
        }
    };
    Ok(page.into_string())
}

/// What this is, and how good, in two sentences.
fn header(report: &Report) -> Markup {
    let (rows, metrics) = (report.model.rows, report.forest.metrics);
    let points =
        |other: &Evaluation| signed((metrics.accuracy - other.metrics.accuracy) * 100.0, 1);
    html! {
        header {
            h1 { "Model " code { (short(&report.version)) } }
            p {
                "A forest of " (report.model.trees.len()) " trees that predicts how late a flight \
                 arrives, trained on " (thousands(rows.training)) " flights. "
                @if rows.holdout == 0 {
                    "Nothing was held out: nobody knows how good it is."
                } @else {
                    "It is right on " strong { (percent(metrics.accuracy)) } " of the "
                    (thousands(rows.holdout)) " flights that were held out; in points: "
                    (points(&report.majority)) " against the majority class"
                    @if let Some(lookup) = &report.baselines.lookup {
                        ", " (points(lookup)) " against the departure delay alone"
                    }
                    @if let Some(logistic) = &report.baselines.logistic {
                        ", " (points(logistic)) " against logistic regression"
                    }
                    "."
                }
            }
            p { (report.promotion.sentence()) "." }
        }
    }
}

/// A metric: name, what it is of [`Metrics`], whether more of it is better.
type Metric = (&'static str, fn(&Metrics) -> f64, bool);

const METRICS: [Metric; 6] = [
    ("accuracy", |m| m.accuracy, true),
    ("precision", |m| m.precision, true),
    ("recall", |m| m.recall, true),
    ("F1", |m| m.f1, true),
    ("log loss", |m| m.log_loss, false),
    ("calibration error", |m| m.calibration_error.unwrap_or(f64::NAN), false),
];

/// Metrics by model; under each figure of another model, how far the forest is from it on the same
/// flights.
fn measures(report: &Report) -> Markup {
    let compared = report.compared();
    let names = compared.iter().map(|measured| measured.name.as_str());
    let headers: Vec<&str> = std::iter::once("metric").chain(names).collect();
    let rows = METRICS.iter().map(|(name, metric, more_is_better)| {
        let cells = compared.iter().map(|measured| {
            let value = metric(&measured.evaluation.metrics);
            let change = measured.own.map(|own| metric(&own.metrics) - value);
            html! {
                (decimals(value))
                @if let Some(change) = change {
                    small class=[class_of_change(change, *more_is_better)] { (signed(change, 4)) }
                }
            }
        });
        std::iter::once(html! { (name) }).chain(cells).collect()
    });
    let caption = "Under a figure: how far the forest is from it on the same flights. Precision, \
                   recall and F1 are weighted by class; less log loss is better, and so is less \
                   calibration error, which is how far confidence is from the share of right \
                   answers, over 15 bins of equal numbers of flights.";
    html! {
        section.full {
            h2 { "Metrics on held-out flights" }
            (table("Metrics on held-out flights", caption, &headers, rows))
        }
    }
}

/// The class that colours a change; none where it would be shown as zero.
fn class_of_change(change: f64, more_is_better: bool) -> Option<&'static str> {
    let shown = signed(change, 4);
    let is_change = shown.starts_with(['+', '−']);
    let is_better = (change > 0.0) == more_is_better;
    is_change.then_some(if is_better { "better" } else { "worse" })
}

fn classes(forest: &Evaluation) -> Markup {
    let row = |class: DelayClass| {
        let own = forest.classes[class.index()];
        let metrics = [own.precision, own.recall, own.f1].map(decimals);
        texts([vec![class.title(), thousands(own.n_rows)], metrics.to_vec()].concat())
    };
    let headers = ["class", "flights", "precision", "recall", "F1"];
    let caption =
        "Of the forest, on held-out flights. A dash: no flight is of, or predicted as, the class.";
    html! {
        section.full {
            h2 { "Metrics by class" }
            (table("Metrics by class", caption, &headers, DelayClass::ALL.map(row)))
        }
    }
}

fn calibration(report: &Report) -> Result<Markup> {
    let rows = report.forest.calibration.iter().enumerate().map(|(i, bin)| {
        let n = bin.n_rows as f64;
        texts(vec![
            format!("{}–{} %", i * 10, (i + 1) * 10),
            thousands(bin.n_rows),
            percent(bin.confidence_billionths as f64 / 1e9 / n),
            percent(bin.n_right as f64 / n),
        ])
    });
    Ok(plot(
        "Is it as sure as it is right?",
        "On the dashed line it is; under it, it is too sure. Larger points stand for more flights. \
         The line without points is the forest before it was calibrated.",
        &plots::calibration(&report.forest, &report.uncalibrated)?,
        &["probability", "flights", "mean confidence", "share right"],
        rows,
    ))
}

fn confusion(forest: &Evaluation) -> Result<Markup> {
    let titles = DelayClass::ALL.map(DelayClass::title);
    let mut headers = vec!["true class, predicted as:"];
    headers.extend(titles.iter().map(String::as_str));
    let rows = forest.confusion.iter().zip(&titles).map(|(flights, title)| {
        let of_class: u64 = flights.iter().sum();
        let cell = |n: u64| format!("{} ({})", thousands(n), percent(n as f64 / of_class as f64));
        texts([vec![title.clone()], flights.map(cell).to_vec()].concat())
    });
    Ok(plot(
        "What is taken for what?",
        "Each row shares out the flights of a class; the framed cells are right.",
        &plots::confusion(forest)?,
        &headers,
        rows,
    ))
}

fn shares(forest: &Evaluation) -> Result<Markup> {
    let (of_truth, of_predictions) = (forest.class_shares(), plots::predicted_shares(forest));
    let row = |class: DelayClass| {
        let (truth, predicted) = (of_truth[class.index()], of_predictions[class.index()]);
        texts(vec![class.title(), percent(truth), percent(predicted)])
    };
    Ok(plot(
        "Is each class predicted as often as it occurs?",
        "A shorter lower bar: the class is predicted too rarely.",
        &plots::class_shares(forest)?,
        &["class", "true", "predicted"],
        DelayClass::ALL.map(row),
    ))
}

fn importances(report: &Report) -> Result<Markup> {
    let importances = report.importances();
    let row = |&(name, share, change): &(&str, f64, Option<f64>)| {
        let change = change.map_or("–".into(), |change| signed(change * 100.0, 1));
        let permuted = report.permuted(name).map_or("–".into(), |rise| signed(rise, 4));
        texts(vec![name.to_owned(), percent(share), change, permuted])
    };
    let note = match &report.rival {
        Some(_) => {
            "Share of the decrease of impurity; in brackets its change in points. A line across a \
             bar is where the previous champion's ended."
        }
        None => "Share of the decrease of impurity. It is compared with no other champion.",
    };
    Ok(plot(
        "What does it look at?",
        note,
        &plots::importances(&importances)?,
        &["feature", "share", "change in points", "log loss more when permuted"],
        importances.iter().map(row),
    ))
}

/// What it was trained on, and how: enough to train it again.
fn training(report: &Report) -> Markup {
    let (params, rows) = (&report.model.params, report.model.rows);
    let n_days = report.model.days.map_or(0, |days| days.n);
    let drawn = if params.draws_days(n_days) { "days" } else { "flights" };
    let facts = [
        ("flights trained on", thousands(rows.training)),
        ("flights held out", thousands(rows.holdout)),
        ("held out by", params.holdout.to_string()),
        ("trees", params.n_trees.to_string()),
        ("depth at most", params.depth.to_string()),
        ("bins at most", params.n_bins.to_string()),
        ("rows per leaf at least", params.min_rows_per_leaf.to_string()),
        ("rows per category at least", params.min_rows_per_category.to_string()),
        ("features per node", params.features_per_node.to_string()),
        ("drawn for a tree", drawn.into()),
        ("temperature", decimals(report.model.temperature)),
        ("seed", params.seed.to_string()),
    ];
    let names: Vec<&str> = report.model.features.iter().map(|f| f.name.as_str()).collect();
    let mut long = vec![
        ("features", names.join(", ")),
        ("SHA-256 of the SQL that made features and labels", report.model.sql_sha256.clone()),
    ];
    long.extend(report.rival.iter().map(|rival| ("champion before", rival.version.clone())));
    long.push(("fingerprint of the flights", report.model.data.clone()));
    html! {
        section {
            h2 { "Training" }
            dl {
                @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
                @for (name, value) in long {
                    div.full { dt { (name) } dd { code { (value) } } }
                }
            }
        }
    }
}

fn phases(report: &Report) -> Markup {
    let rows = report.phases.iter().map(|phase| {
        let per_second = if phase.seconds > 0.0 {
            thousands((phase.n_rows as f64 / phase.seconds).round() as u64)
        } else {
            "–".into()
        };
        let seconds = |seconds: f64| format!("{seconds:.2}");
        let (wall, cpu) = (seconds(phase.seconds), seconds(phase.cpu_seconds));
        texts(vec![phase.name.to_owned(), wall, cpu, thousands(phase.n_rows), per_second])
    });
    let caption = format!(
        "Fitting took {:.2} s of {:.2} s. Rows are counted once per pass; processor time is that \
         of all cores in the process that trained.",
        report.fit_seconds(),
        report.job_seconds()
    );
    let headers = ["phase", "seconds", "processor seconds", "rows read", "rows per second"];
    html! { section { h2 { "Phases" } (table("Phases", &caption, &headers, rows)) } }
}

/// A section with a picture, and its numbers for who cannot see it or wants them exactly.
fn plot(
    title: &str,
    note: &str,
    svg: &Markup,
    headers: &[&str],
    rows: impl IntoIterator<Item = Vec<Markup>>,
) -> Markup {
    html! {
        section {
            h2 { (title) }
            p.soft { (note) }
            (svg)
            details { summary { "The same as a table" } (table(title, "", headers, rows)) }
        }
    }
}

fn texts(cells: Vec<String>) -> Vec<Markup> {
    cells.into_iter().map(|text| html! { (text) }).collect()
}

fn short(version: &str) -> &str {
    version.get(..SHORT_VERSION).unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::evaluation::tests::of_confusion as evaluation;
    use crate::models::promotion::{Decision, Promotion};
    use crate::train::baselines::Baselines;
    use crate::train::gate::Rival;
    use crate::train::report::Phase;
    use udf::encode::encoder::Encoding;
    use udf::model::artefact::{FORMAT, FeatureSpec, ForestParams, Model, Node, Rows, Tree};

    fn example() -> Report {
        let forest = evaluation([[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 0, 10], [0, 0, 0, 10]]);
        let names = ["dep_delay", "<script>alert('&')</script>"];
        let encoding = Encoding::Numeric(vec![0.0]);
        let feature =
            |name: &str| FeatureSpec { name: name.to_owned(), encoding: encoding.clone() };
        let model = Model {
            format: FORMAT,
            classes: DelayClass::ALL.map(DelayClass::title).to_vec(),
            params: ForestParams { seed: 4_711, ..ForestParams::default() },
            sql_sha256: "5a1".repeat(21) + "0",
            rows: Rows { training: 1_234_567, holdout: 40 },
            data: "0123456789abcdef".into(),
            days: None,
            holdout: forest.metrics,
            features: names.map(feature).to_vec(),
            reference: None,
            importances: vec![0.75, 0.25],
            temperature: 0.8,
            trees: vec![Tree { nodes: vec![Node { counts: [1; 4], split: None }] }],
        };
        let majority = Evaluation::majority(&forest);
        let baselines = Baselines { permutation: vec![0.31, 0.0], ..Baselines::default() };
        let promotion = Promotion::new(Decision::First, "train-1");
        let phase = |name, seconds| {
            let cpu_seconds = 1.25 * seconds;
            Phase { name, seconds, cpu_seconds, n_rows: 1_000_000 }
        };
        let phases = vec![phase("levels", 2.0), phase("evaluation", 0.0)];
        let version = "0123456789abcdef".repeat(4);
        Report {
            model,
            version,
            uncalibrated: forest.clone(),
            forest,
            future: None,
            majority,
            baselines,
            rival: None,
            promotion,
            phases,
        }
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
        check(
            &report,
            &[&report.model.sql_sha256, "500,000", "rows per second", "2.50", "majority class"],
        );
        check(&report, &["It is compared with no other champion"]);
        DelayClass::ALL.iter().for_each(|class| check(&report, &[&class.title()]));
        let page = to_html(&report).unwrap();
        assert_eq!(page.matches("role=\"img\"").count(), 4);
        assert_eq!(page.matches("<details>").count(), 4);
    }

    #[test]
    fn names_are_escaped_and_nothing_is_loaded() {
        let mut report = example();
        report.version = "\"><img src=x>".into();
        let page = to_html(&report).unwrap();
        check(&report, &["&lt;script&gt;alert('&amp;')", "&quot;&gt;&lt;img"]);
        for forbidden in ["<script", "<img", "<link", "url(", "href=", "src=\""] {
            assert!(!page.contains(forbidden), "{forbidden} is in {page}");
        }
    }

    #[test]
    fn the_previous_champion_and_the_baseline_come_with_changes() {
        let mut report = example();
        let worse = evaluation([[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 0, 10], [0, 0, 10, 0]]);
        report.baselines.logistic = Some(worse.clone());
        let importances = vec![("dep_delay".to_owned(), 0.8)];
        let candidate = report.forest.clone();
        let version = "fedc".repeat(16);
        report.rival = Some(Rival { version, evaluation: worse, candidate, importances });
        let change = "<small class=\"better\">+0.2500</small>";
        check(&report, &["logistic", "champion before", "fedcfedcfedc", change]);
        let row = "<td class=\"number\">75.0 %</td><td class=\"number\">−5.0</td>";
        check(&report, &[row, "25.0 %</td><td class=\"number\">+25.0</td>", "+0.3100"]);
    }

    #[test]
    fn the_same_report_makes_the_same_page() {
        assert_eq!(to_html(&example()).unwrap(), to_html(&example()).unwrap());
    }

    #[test]
    fn less_log_loss_is_better() {
        assert_eq!(class_of_change(-0.1, false), Some("better"));
        assert_eq!(class_of_change(-0.1, true), Some("worse"));
        assert_eq!(class_of_change(-0.000_01, true), None);
    }
}
