//! Numbers as people read them. What is not a number is a dash.

/// A share in percent.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0) } else { "–".into() }
}

/// A measure with four decimals.
pub fn decimals(measure: f64) -> String {
    if measure.is_nan() { "–".into() } else { format!("{measure:.4}") }
}

/// A change with its sign, which nothing that rounds to zero has.
pub fn signed(change: f64, n_decimals: usize) -> String {
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

/// How many things there are: `1 flight`, `1,234 flights`.
pub fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// A count with its thousands set apart.
pub fn thousands(n: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.5, -0.5, -0.04].map(|n| signed(n, 1)), ["+0.5", "−0.5", "0.0"]);
        assert_eq!([percent(0.125), decimals(0.5)], ["12.5 %", "0.5000"]);
        assert_eq!([signed(f64::NAN, 1), percent(f64::NAN), decimals(f64::NAN)], ["–"; 3]);
    }
}
