//! Settings as people write them: `key=value` on the command line, and files of such lines.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Words in the key of a setting that say that its value is a secret.
const SECRET_WORDS: [&str; 7] =
    ["secret", "password", "passwd", "token", "credential", "key_id", "key.pem"];

/// A setting by name, such as `datafusion.execution.batch_size` = `4096`.
pub type Setting = (String, String);

/// Whether a setting's name says that its value is a secret.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// `key=value`; as in the files of Spark, `key value`; as in those of Java, `key:value`. Errors
/// never repeat the text, which may hold a secret.
pub fn setting(text: &str) -> Result<Setting> {
    let is_separator = |c: char| c == '=' || c == ':' || c.is_whitespace();
    let text = text.trim();
    let (key, rest) = text.split_at(text.find(is_separator).unwrap_or(text.len()));
    // `key = value` has one separator, not three
    let rest = rest.trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim();
    // a line of a key in base64 is no name
    let is_in_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let is_key = key.starts_with(|c: char| c.is_ascii_lowercase()) && key.bytes().all(is_in_name);
    ensure!(is_key && !rest.is_empty(), "not KEY=VALUE");
    Ok((key.to_owned(), value.to_owned()))
}

/// The settings in a file, one a line. A line that ends with a backslash goes on in the next, after
/// a line feed where it ends with `\\n\\`. Errors name the file and the line, and repeat neither.
pub fn settings_of(path: &Path) -> Result<Vec<Setting>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (mut settings, mut lines) = (Vec::new(), text.lines().enumerate());
    while let Some((i, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        // a backslash behind another one is a text's own
        let goes_on = |text: &str| (text.len() - text.trim_end_matches('\\').len()) % 2 == 1;
        while goes_on(&whole)
            && let Some(begun) = whole.strip_suffix('\\')
        {
            let begun =
                begun.strip_suffix("\\n").map_or(begun.to_owned(), |text| format!("{text}\n"));
            let (_, next) = lines.next().unwrap_or_default();
            whole = begun + next.trim();
        }
        settings.push(setting(&whole).with_context(|| {
            format!(
                "{}:{}: a line is KEY=VALUE, and one of several lines ends with a backslash but \
                 for the last",
                path.display(),
                i + 1
            )
        })?);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_java_writes_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.properties");
        let text = "! note\na.b:1\nc.d = x:y=z\ne.f \\\n  long\ng=h\\\\\n\
                    key.pem=BEGIN\\n\\\n  AbC=\\n\\\n  END";
        std::fs::write(&path, text).unwrap();
        let settings = settings_of(&path).unwrap();
        let settings = settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let expected = [
            ("a.b", "1"),
            ("c.d", "x:y=z"),
            ("e.f", "long"),
            ("g", "h\\\\"),
            ("key.pem", "BEGIN\nAbC=\nEND"),
        ];
        assert!(settings.clone().eq(expected), "{:?}", settings.collect::<Vec<_>>());
    }
}
