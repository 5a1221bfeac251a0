//! When a micro-batch of the stream ends.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest micro-batch: longer ones would look like a hang to those who wait for an answer.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// When a micro-batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// After this time, however much arrived.
    Interval(Duration),
    /// As soon as something arrived, with all that is there.
    Arrival,
    /// One micro-batch with what is there at the start; then the job ends.
    Once,
    /// As many micro-batches as what is there at the start needs; then the job ends.
    AvailableNow,
}

impl Trigger {
    /// Whether the job ends with what is there at the start.
    pub fn is_bounded(self) -> bool {
        matches!(self, Self::Once | Self::AvailableNow)
    }
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "arrival" => return Ok(Self::Arrival),
            "once" => return Ok(Self::Once),
            "available-now" => return Ok(Self::AvailableNow),
            _ => {}
        }
        let explain = || {
            format!("{text:?} is not interval:<n>s, interval:<n>ms, arrival, once or available-now")
        };
        let interval = text.strip_prefix("interval:").ok_or_else(explain)?;
        let (number, unit_ms) = match interval.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (interval.strip_suffix('s').ok_or_else(explain)?, 1000),
        };
        let number: u64 = number.parse().map_err(|_| explain())?;
        let interval = Duration::from_millis(number.saturating_mul(unit_ms));
        if interval.is_zero() || interval > INTERVAL_MAX {
            return Err(format!("the interval must be above 0 and at most {INTERVAL_MAX:?}"));
        }
        Ok(Self::Interval(interval))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval(time) if time.subsec_millis() == 0 => {
                write!(f, "interval:{}s", time.as_secs())
            }
            Self::Interval(time) => write!(f, "interval:{}ms", time.as_millis()),
            Self::Arrival => f.write_str("arrival"),
            Self::Once => f.write_str("once"),
            Self::AvailableNow => f.write_str("available-now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_read_and_others_are_explained() {
        assert_eq!("interval:10s".parse(), Ok(Trigger::Interval(Duration::from_secs(10))));
        assert_eq!("interval:250ms".parse(), Ok(Trigger::Interval(Duration::from_millis(250))));
        assert_eq!("available-now".parse(), Ok(Trigger::AvailableNow));
        for text in ["interval:10s", "interval:250ms", "arrival", "once", "available-now"] {
            assert_eq!(text.parse::<Trigger>().unwrap().to_string(), text);
        }
        for bad in ["", "interval:0s", "interval:s", "interval:-1s", "interval:2h", "hourly"] {
            assert!(bad.parse::<Trigger>().is_err(), "{bad}");
        }
        assert!("interval:99999s".parse::<Trigger>().unwrap_err().contains("at most"));
    }
}
