//! What becomes of the months that are there when flights of them arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{SessionContext, col, lit};
use futures::TryStreamExt;

use crate::ingest::counted::Month;
use crate::ingest::files::{Found, RawFile};
use crate::ingest::flights::GROUP_ROWS;
use crate::ingest::options::{Job, Months, Rest};
use crate::lake::Lake;
use crate::lease::{self, Swap};
use crate::progress::Progress;
use crate::sql;
use crate::write::{Place, parquet, write};

/// Months that a message names at most.
const MONTHS_SHOWN: usize = 3;
/// A month that would lose a larger part of its flights, 1/10, is not replaced unasked.
const STAYS_MIN: f64 = 0.9;

/// Ids that are sorted in memory: a month has 700,000 flights.
const SORTED_IDS_MAX: u64 = 16_000_000;

/// Flights of a month that is there, by carrier.
pub type There = BTreeMap<Month, BTreeMap<String, u64>>;

/// The flights that are there of `months`.
pub async fn there(
    ctx: &SessionContext,
    lake: &Lake,
    months: &BTreeMap<Month, u64>,
) -> Result<There> {
    let mut found = by_carrier(ctx, lake, "flights/").await?;
    found.retain(|month, _| months.contains_key(month));
    Ok(found)
}

/// The flights below a directory, which may hold none.
async fn by_carrier(ctx: &SessionContext, lake: &Lake, directory: &str) -> Result<There> {
    let mut found = There::new();
    if !lake.holds_table(directory).await? {
        return Ok(found);
    }
    lake.register_table(ctx, "counted", directory, &["year", "month"]).await?;
    let keys = ["year", "month", "carrier"].map(col).to_vec();
    let counted = ctx.table("counted").await?.aggregate(keys, vec![count(lit(1))])?;
    let counted = counted.collect().await;
    ctx.deregister_table("counted")?;
    for batch in counted? {
        let years = batch.column(0).as_primitive::<Int32Type>();
        let numbers = batch.column(1).as_primitive::<Int32Type>();
        let carriers = cast(batch.column(2), &DataType::Utf8View)?;
        let carriers = carriers.as_string_view();
        let n_flights = batch.column(3).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let month = found.entry((years.value(row), numbers.value(row))).or_default();
            let carrier = carriers.value(row).to_owned();
            *month.entry(carrier).or_default() += n_flights.value(row).unsigned_abs();
        }
    }
    Ok(found)
}

/// As people write it: `2015-01`.
pub fn name((year, month): Month) -> String {
    format!("{year}-{month:02}")
}

/// The first few of some texts, and how many more there are.
fn few(all: &[String]) -> String {
    let mut text = all.iter().take(MONTHS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if let more @ 1.. = all.len().saturating_sub(MONTHS_SHOWN) {
        _ = write!(text, " and {more} more months");
    }
    text
}

/// Errors when a month that is there would lose more of its flights than a newer version does.
pub fn check(months: Months, there: &There, arriving: &BTreeMap<Month, u64>) -> Result<()> {
    if months != (Months::Replace { shrinking: false }) {
        return Ok(());
    }
    let mut shrinking = Vec::new();
    for (month, carriers) in there {
        let (before, after) = (carriers.values().sum::<u64>(), arriving[month]);
        if (after as f64) < before as f64 * STAYS_MIN {
            shrinking.push(format!("{} from {before} flights to {after}", name(*month)));
        }
    }
    ensure!(
        shrinking.is_empty(),
        "{} would shrink; nothing was replaced. --append adds to what is there, --replace replaces \
         it all the same",
        few(&shrinking)
    );
    Ok(())
}

/// Where the flights of a month are.
pub(super) fn directory((year, month): Month) -> String {
    format!("year={year}/month={month}/")
}

/// Counts flights that arrive more than once, or are there already; drops all but one of each when
/// that is asked for. Returns their number.
pub(super) async fn repeats(
    job: &Job<'_>,
    staged: &str,
    months: &BTreeMap<Month, u64>,
    files: &[RawFile],
) -> Result<u64> {
    let Job { ctx, lake, options, .. } = job;
    let (mut n_repeats, mut example) = (0, None);
    let keys = ["year", "month"];
    lake.register_table(ctx, "staged_flights", staged, &keys).await?;
    let stays = options.months == Months::Append && lake.holds_table("flights/").await?;
    if stays {
        lake.register_table(ctx, "flights", "flights/", &keys).await?;
    }
    for (month, n_flights) in months {
        register_month(ctx, *month, stays).await?;
        if !stays && *n_flights <= SORTED_IDS_MAX && !has_twins(ctx).await? {
            continue;
        }
        let found = sql::collect(ctx, sql::REPEATS, &[]).await?;
        let Some(row) = found.iter().find(|batch| batch.num_rows() > 0) else { continue };
        let n = row.column(0).as_primitive::<Int64Type>().value(0).unsigned_abs();
        if n == 0 {
            continue;
        }
        n_repeats += n;
        example.get_or_insert(row.column(1).as_primitive::<Int64Type>().value(0));
        if options.distinct {
            let rows = sql::plan(ctx, sql::DISTINCT, &[]).await?;
            // as they arrived: a month fits, and is read by carrier
            let rows = rows.sort(vec![col("carrier").sort(true, true)])?;
            let once = job.staging("distinct/");
            let place = Place { directory: &once, partitions: &["year", "month"] };
            let mut layout = parquet();
            layout.global.max_row_group_size = GROUP_ROWS;
            write(ctx, lake, &[rows], place, &layout).await?;
            let of_month = directory(*month);
            replace(lake, &format!("{once}{of_month}"), &format!("{staged}{of_month}")).await?;
        }
    }
    let n_flights: u64 = months.values().sum();
    let share = n_repeats as f64 / n_flights.max(1) as f64;
    if let (Some(id), false) = (example, options.distinct) {
        let places = places(job, files, id).await;
        let places = places.unwrap_or_else(|_| format!("flight {id}"));
        if share > options.repeats_max {
            bail!(
                "{n_repeats} of {n_flights} flights are there already, or twice in what was read \
                 ({:.2} %, more than the {:.2} % allowed), such as {places}; nothing was replaced. \
                 --distinct keeps one of each",
                share * 100.0,
                options.repeats_max * 100.0,
            );
        }
        let text = format!("{n_repeats} flights are there more than once, such as {places}");
        (job.on_progress)(Progress::Notice(text));
    }
    Ok(n_repeats)
}

/// Whether an id arrives twice: only then SQL is asked whether that is a repeat. Sorting ids takes
/// a tenth of the time of grouping by them.
async fn has_twins(ctx: &SessionContext) -> Result<bool> {
    let arriving = ctx.table("arriving").await?.select_columns(&["flight_id"])?;
    let (mut arriving, mut ids) = (arriving.execute_stream().await?, Vec::<i64>::new());
    while let Some(batch) = arriving.try_next().await? {
        ids.extend(batch.column(0).as_primitive::<Int64Type>().values());
    }
    let sort = move || {
        ids.sort_unstable();
        ids.windows(2).any(|pair| pair[0] == pair[1])
    };
    Ok(tokio::task::spawn_blocking(sort).await?)
}

/// Makes the relations `arriving` and `present` of one month; nothing is present unless it `stays`.
async fn register_month(ctx: &SessionContext, month: Month, stays: bool) -> Result<()> {
    let of_month = |frame: datafusion::prelude::DataFrame| {
        let (year, number) = month;
        frame.filter(col("year").eq(lit(year)).and(col("month").eq(lit(number))))
    };
    let arriving = of_month(ctx.table("staged_flights").await?)?;
    let present = match stays {
        true => of_month(ctx.table("flights").await?)?,
        false => arriving.clone().limit(0, Some(0))?,
    };
    sql::register(ctx, "arriving", arriving)?;
    sql::register(ctx, "present", present)
}

/// Where the rows of a flight are, for a message. The files are read again: clean rows are not kept
/// with their places.
async fn places(job: &Job<'_>, files: &[RawFile], flight_id: i64) -> Result<String> {
    let Job { ctx, lake, .. } = job;
    lake.delete_below(&job.staging("raw/")).await?;
    job.stage(Found::all(files.to_vec()), Rest::Of(flight_id)).await?;
    let rows = sql::plan(ctx, sql::FLIGHTS, &[]).await?;
    let rows = rows
        .filter(col("flight_id").eq(lit(flight_id)).and(col("reject_reason").is_null()))?
        .sort(vec![col("file").sort(true, true), col("line").sort(true, true)])?
        .limit(0, Some(2))?
        .collect()
        .await?;
    let mut places = Vec::new();
    for batch in &rows {
        let text = |name: &str, row: usize| -> Result<String> {
            let column = batch.column_by_name(name).expect("a column of the step");
            let column = datafusion::arrow::util::display::array_value_to_string(column, row)?;
            Ok(column)
        };
        for row in 0..batch.num_rows() {
            if places.is_empty() {
                places.push(format!(
                    "{} {} of {} from {} to {}",
                    text("carrier", row)?,
                    text("flight_number", row)?,
                    text("flight_date", row)?,
                    text("origin", row)?,
                    text("dest", row)?
                ));
            }
            places.push(format!("{}, line {}", text("file", row)?, text("line", row)?));
        }
    }
    Ok(match places.as_slice() {
        [flight, places @ ..] => format!("{flight} ({})", places.join("; ")),
        [] => format!("flight {flight_id}"),
    })
}

/// Says what becomes of the months that are there; returns what puts the staged flights in their
/// place, or beside them, and the number of flights.
pub(super) async fn swap(
    job: &Job<'_>,
    staged: &str,
    months: &BTreeMap<Month, u64>,
    there: &There,
) -> Result<(Swap, u64)> {
    let Job { ctx, lake, options, .. } = job;
    let arriving = by_carrier(ctx, lake, staged).await?;
    // dropping repeats may have left less of a month than it seemed
    let n_arriving = months.keys().map(|month| {
        let n_flights = arriving.get(month).map_or(0, |carriers| carriers.values().sum());
        (*month, n_flights)
    });
    check(options.months, there, &n_arriving.collect())?;
    for text in notices(options.months, there, &arriving) {
        (job.on_progress)(Progress::Notice(text));
    }
    let mut made = Swap::default();
    for month in months.keys() {
        let to = format!("flights/{}", directory(*month));
        if options.months != Months::Append {
            made.deletes.extend(lake.list(&to).await?);
        }
        let of_month = format!("{staged}{}", directory(*month));
        made.moves.extend(lease::moves(lake, job.run, job.epoch, &of_month, &to).await?);
    }
    Ok((made, arriving.values().flat_map(BTreeMap::values).sum()))
}

/// Whether a run of this name has put flights in place.
pub(super) async fn has_put(lake: &Lake, run: &str) -> Result<bool> {
    let of_run = |name: &String| {
        let file = name.rsplit('/').next().unwrap_or_default();
        let rest = file.strip_prefix(run).and_then(|rest| rest.strip_prefix('-'));
        let numbers = rest.and_then(|rest| rest.strip_suffix(".parquet")?.split_once('-'));
        numbers.is_some_and(|(a, b)| a.parse::<u64>().is_ok() && b.parse::<u64>().is_ok())
    };
    Ok(lake.list("flights/").await?.iter().any(of_run))
}

/// Makes `flights` what it will be when what is staged is in place.
pub(super) async fn register_coming(
    job: &Job<'_>,
    staged: &str,
    months: &BTreeMap<Month, u64>,
) -> Result<()> {
    let Job { ctx, lake, options, .. } = job;
    let keys = ["year", "month"];
    let mut parts = Vec::new();
    if lake.holds_table(staged).await? {
        lake.register_table(ctx, "staged_flights", staged, &keys).await?;
        parts.push(ctx.table("staged_flights").await?);
    }
    if lake.holds_table("flights/").await? {
        lake.register_table(ctx, "present_flights", "flights/", &keys).await?;
        let present = ctx.table("present_flights").await?;
        let number = |(year, month): &Month| lit(year * 100 + month);
        let goes = (col("year") * lit(100) + col("month"))
            .in_list(months.keys().map(number).collect(), false);
        parts.push(match options.months {
            Months::Append => present,
            Months::Replace { .. } => present.filter(goes.is_not_true())?,
        });
    }
    let mut coming = parts.pop().context("there are no flights")?;
    for part in parts {
        coming = part.union_by_name(coming)?;
    }
    sql::register(ctx, "flights", coming)
}

/// What a person must know before it happens.
fn notices(months: Months, there: &There, arriving: &There) -> Vec<String> {
    let none = BTreeMap::new();
    let sum = |carriers: &BTreeMap<String, u64>| carriers.values().sum::<u64>();
    let arrives = |month: &Month| arriving.get(month).unwrap_or(&none);
    let mut changed = Vec::new();
    let mut gone: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (month, before) in there {
        let after = arrives(month);
        let month_name = name(*month);
        if months == Months::Append {
            changed.push(format!("{} to the {} of {month_name}", sum(after), sum(before)));
            continue;
        }
        changed.push(format!("{} flights of {month_name} by {}", sum(before), sum(after)));
        let kept: BTreeSet<&String> = after.keys().collect();
        for (carrier, _) in before.iter().filter(|(carrier, _)| !kept.contains(carrier)) {
            gone.entry(carrier).or_default().push(month_name.clone());
        }
    }
    let mut texts = Vec::new();
    if !changed.is_empty() {
        let what = if months == Months::Append { "adding" } else { "replacing" };
        texts.push(format!("{what} {}", few(&changed)));
    }
    for (carrier, months) in gone.iter().take(MONTHS_SHOWN) {
        texts.push(format!(
            "no flight of {carrier} is left in {}: what was read has none; --append keeps what is \
             there",
            few(months)
        ));
    }
    if let more @ 1.. = gone.len().saturating_sub(MONTHS_SHOWN) {
        texts.push(format!("nor of {more} more carriers"));
    }
    texts
}

/// Puts all of `staged` in the place of what is in `directory`; nobody else looks there.
async fn replace(lake: &Lake, staged: &str, directory: &str) -> Result<()> {
    lake.delete_below(directory).await?;
    for (i, name) in lake.list(staged).await?.iter().enumerate() {
        lake.rename(name, &format!("{directory}{i}.parquet")).await?;
    }
    Ok(())
}
