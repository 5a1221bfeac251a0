//! Days and clock times as programs write them.
//!
//! A day is `2019-03-04`, `2019/3/4`, `20190304`, `3/4/2019` (the American order; what is no month
//! there is no day either), `04-MAR-2019`, or a number of seconds or smaller parts since 1970. A
//! clock time behind a day, `12:00:00 AM` or `03:05:00.000-08:00`, makes it an instant. A clock
//! time alone is `515`, `0515`, `515.0`, `5:15`, `05:15:00` or `5:15 AM`.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

/// A day, or an instant, as it stands in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    local: NaiveDateTime,
    /// East of UTC, where the text says it.
    offset: Option<TimeDelta>,
}

impl Written {
    /// `None` when the text is neither a day nor an instant.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(day) = iso_day(text) {
            return Some(Self { local: day.and_time(NaiveTime::MIN), offset: None });
        }
        // a number may have gone through a column of floats
        let text = text.strip_suffix(".0").unwrap_or(text);
        if let Some(local) = since_1970(text) {
            return Some(Self { local, offset: Some(TimeDelta::zero()) });
        }
        let bytes = text.as_bytes();
        // behind the day stands a blank or a T, and a digit
        let end = (1..bytes.len().saturating_sub(1)).find(|&i| {
            let is_end = matches!(bytes[i], b' ' | b'T' | b't');
            is_end && bytes[i - 1].is_ascii_digit() && bytes[i + 1].is_ascii_digit()
        });
        let (day, clock) = match end {
            Some(end) => (text.get(..end)?, Some(text.get(end + 1..)?)),
            None => (text, None),
        };
        let day = any_day(day)?;
        let Some(clock) = clock else {
            return Some(Self { local: day.and_time(NaiveTime::MIN), offset: None });
        };
        let (clock, offset) = split_offset(clock)?;
        let (hours, minutes, rest) = clock_time(clock)?;
        let local = day.and_hms_opt(hours, minutes, 0)?.checked_add_signed(rest)?;
        Some(Self { local, offset })
    }

    /// The day that stands there, or that the UTC clock shows.
    pub fn day(self, utc: bool) -> i32 {
        let time = if utc { self.utc() } else { self.local };
        time.date().num_days_from_ce() - DAYS_TO_EPOCH
    }

    /// The year and the month of the day that stands there.
    pub fn month(self) -> (i32, i32) {
        (self.local.year(), self.local.month().cast_signed())
    }

    /// The point in time; without an offset as if its clock were that of UTC.
    pub fn utc(self) -> NaiveDateTime {
        let utc = self.offset.and_then(|offset| self.local.checked_sub_signed(offset));
        utc.unwrap_or(self.local)
    }
}

/// Days from 0001-01-01, which is day 1, to 1970-01-01.
const DAYS_TO_EPOCH: i32 = 719_163;

/// `HHMM` of a clock time, or of an instant; it may be no time of day, such as 2410. `None` when
/// the text is neither.
pub fn hhmm(text: &str, utc: bool) -> Option<i32> {
    let text = text.trim();
    if !text.contains([':', '-', '/']) || text.starts_with('-') {
        let number: f64 = text.parse().ok()?;
        // NaN is not whole either
        let is_whole = number.fract() == 0.0 && number.abs() < 1e6;
        return is_whole.then_some(number as i32);
    }
    if let Some((hours, minutes, _)) = clock_time(text) {
        return Some((hours * 100 + minutes).cast_signed());
    }
    // 24:10 is 2410
    if let &[hours, minutes] = text.split(':').collect::<Vec<_>>().as_slice()
        && hours.len() == 2
        && minutes.len() == 2
        && let Ok(number) = format!("{hours}{minutes}").parse::<u16>()
    {
        return Some(number.into());
    }
    let written = Written::parse(text)?;
    let time = if utc { written.utc() } else { written.local };
    Some((time.hour() * 100 + time.minute()).cast_signed())
}

/// `YYYY-MM-DD`, which most files have.
fn iso_day(text: &str) -> Option<NaiveDate> {
    let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range]
            .iter()
            .try_fold(0, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u32::from(byte - b'0')))
    };
    NaiveDate::from_ymd_opt(number(0..4)?.cast_signed(), number(5..7)?, number(8..10)?)
}

/// The point in time that a number of seconds, milli-, micro- or nanoseconds since 1970 says; which
/// one it is shows in its digits, for the years from 2001 to 2286.
fn since_1970(text: &str) -> Option<NaiveDateTime> {
    let number: i64 = text.parse().ok().filter(|number| *number > 0)?;
    let time = match text.len() {
        10 => DateTime::from_timestamp(number, 0),
        13 => DateTime::from_timestamp_millis(number),
        16 => DateTime::from_timestamp_micros(number),
        19 => Some(DateTime::from_timestamp_nanos(number)),
        _ => None,
    };
    time.map(|time| time.naive_utc())
}

fn any_day(text: &str) -> Option<NaiveDate> {
    if text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return NaiveDate::parse_from_str(text, "%Y%m%d").ok();
    }
    let parts: Vec<&str> = text.split(['-', '/']).collect();
    let &[first, second, third] = parts.as_slice() else { return None };
    let number = |text: &str| -> Option<u32> {
        let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let year = |text: &str| (text.len() == 4).then(|| number(text)).flatten().map(u32::cast_signed);
    if let Some(year) = year(first) {
        return NaiveDate::from_ymd_opt(year, number(second)?, number(third)?);
    }
    let year = year(third)?;
    if second.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return NaiveDate::parse_from_str(&format!("{first}-{second}-{year}"), "%d-%b-%Y").ok();
    }
    // with hyphens the order differs between countries
    let is_american = text.contains('/');
    if is_american { NaiveDate::from_ymd_opt(year, number(first)?, number(second)?) } else { None }
}

/// A clock time without the offset at its end.
fn split_offset(text: &str) -> Option<(&str, Option<TimeDelta>)> {
    let text = text.trim_end();
    for zone in ["Z", "z", " UTC", " GMT"] {
        if let Some(clock) = text.strip_suffix(zone) {
            return Some((clock, Some(TimeDelta::zero())));
        }
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, None)) };
    let digits: String = text[at + 1..].chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = match digits.len() {
        2 => (digits.as_str(), "0"),
        4 => digits.split_at(2),
        _ => return None,
    };
    let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
    Some((text[..at].trim_end(), Some(TimeDelta::minutes(sign * minutes))))
}

/// Hours, minutes, and the rest of `H:MM[:SS[.f]][ AM]`; 24:00 is allowed.
fn clock_time(text: &str) -> Option<(u32, u32, TimeDelta)> {
    let lower = text.trim().to_ascii_lowercase();
    let half = ["am", "pm"].iter().find(|half| lower.ends_with(**half)).copied();
    let clock = half.map_or(lower.as_str(), |half| lower.trim_end_matches(half).trim_end());
    let mut parts = clock.split(':');
    let mut next = |max: usize| {
        let part = parts.next()?;
        let is_number = (1..=max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| part.parse::<u32>().ok()).flatten()
    };
    let (hours, minutes) = (next(2)?, next(2)?);
    let seconds = match parts.next() {
        Some(text) if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse::<f64>().ok()?,
        Some(_) => return None,
        None => 0.0,
    };
    let is_clock = parts.next().is_none() && minutes < 60 && (0.0..61.0).contains(&seconds);
    let hours = match half {
        Some(_) if !(1..=12).contains(&hours) => return None,
        Some("am") => hours % 12,
        Some(_) => hours % 12 + 12,
        None => hours,
    };
    let is_day = hours < 24 || (hours == 24 && minutes == 0);
    (is_clock && is_day).then(|| (hours, minutes, TimeDelta::milliseconds((seconds * 1e3) as i64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str, utc: bool) -> Option<String> {
        let days = Written::parse(text)?.day(utc);
        Some(NaiveDate::from_num_days_from_ce_opt(days + DAYS_TO_EPOCH)?.to_string())
    }

    #[test]
    fn a_day_is_read_as_it_stands_there() {
        for text in [
            "2019-03-04",
            "2019-3-4",
            "2019/03/04",
            "20190304",
            "3/4/2019",
            "03/04/2019",
            "04-MAR-2019",
            "4-mar-2019",
            "3/4/2019 12:00:00 AM",
            "2019-03-04 23:59:59.999",
            "2019-03-04T00:00:00",
            "2019-03-04T23:30:00.000-08:00",
            "2019-03-04T00:30:00+0100",
            "2019-03-04 00:00:00 UTC",
            "2019-03-04T00:00:00Z",
            "20190304.0",
            "1551657600",
            "1551657600000",
            "1551657600000000",
            "1551657600000000000",
            " 2019-03-04 ",
        ] {
            assert_eq!(day(text, false).as_deref(), Some("2019-03-04"), "{text}");
        }
    }

    #[test]
    fn an_instant_is_read_by_its_utc_clock_when_that_is_asked_for() {
        for (text, want) in [
            ("2015-12-30T16:00:00.000-08:00", "2015-12-31"),
            ("2019-03-04T00:30:00+01:00", "2019-03-03"),
            ("2019-03-04", "2019-03-04"),
            ("2019-03-04T23:59:00Z", "2019-03-04"),
        ] {
            assert_eq!(day(text, true).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_day_is_none() {
        for text in [
            "",
            "x",
            "2019-13-45",
            "2015-02-29",
            "13/4/2019",
            "4/3/19",
            "2019",
            "201903041",
            "04-03-2019",
            "2019-03-04T25:00:00",
            "2019-03-04 x",
            "3/4/2019/5",
            "-1-2-2019",
            "1e3-1-1",
            "2019-03-04T00:00:00+1",
            "2019-03-04T00:00:00+é",
            "٢٠١٩-03-04",
        ] {
            assert_eq!(day(text, false), None, "{text}");
        }
    }

    #[test]
    fn clock_times_become_hhmm() {
        for (text, want) in [
            ("515", 515),
            ("0515", 515),
            ("515.0", 515),
            ("5.15e2", 515),
            ("05:15", 515),
            ("5:15", 515),
            ("05:15:00", 515),
            ("05:15:59.5", 515),
            ("5:15 AM", 515),
            ("5:15 pm", 1715),
            ("12:15 AM", 15),
            ("12:15 PM", 1215),
            ("24:00", 2400),
            ("2400", 2400),
            ("2410", 2410),
            ("24:10", 2410),
            ("-1", -1),
            ("0", 0),
            ("3/4/2019 5:15:00 AM", 515),
            ("2015-12-31T05:15:00.000", 515),
            ("2015-12-31T05:15:00.000-08:00", 515),
        ] {
            assert_eq!(hhmm(text, false), Some(want), "{text}");
        }
        assert_eq!(hhmm("2015-12-31T05:15:00.000-08:00", true), Some(1315));
        for text in ["", "noon", "NaN", "inf", "515.5", "5:60", "5:5:99", "13:00 PM", "1e9", "a:b"]
        {
            assert_eq!(hhmm(text, false), None, "{text}");
        }
    }
}
