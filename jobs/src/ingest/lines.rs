//! Lines of a text, of any system: they end with a line feed, a carriage return, or both.

use std::io::{BufRead, Result};

/// Longest line or object of a raw file, in bytes. A BTS record has about 500.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Reads the next line into `line`, with a line feed as its end; `false` at the end of the text. Of
/// a line that is too long no more is kept than shows it.
pub fn read_line(bytes: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    let mut is_there = false;
    loop {
        let buffer = bytes.fill_buf()?;
        if buffer.is_empty() {
            line.extend(is_there.then_some(b'\n'));
            return Ok(is_there);
        }
        is_there = true;
        let end = memchr::memchr2(b'\n', b'\r', buffer);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let n_room = (LINE_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(n_room)]);
        let Some(end) = end else {
            let n = buffer.len();
            bytes.consume(n);
            continue;
        };
        let is_return = buffer[end] == b'\r';
        bytes.consume(end + 1);
        if is_return && bytes.fill_buf()?.first() == Some(&b'\n') {
            bytes.consume(1);
        }
        line.push(b'\n');
        return Ok(true);
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_of_all_systems_may_be_mixed() {
        for n_bytes in [1, 2, 64] {
            let mut bytes = BufReader::with_capacity(n_bytes, &b"a\nb\r\nc\rd\n\re"[..]);
            let (mut lines, mut line) = (Vec::new(), Vec::new());
            while read_line(&mut bytes, &mut line).unwrap() {
                lines.push(String::from_utf8(line.clone()).unwrap());
            }
            assert_eq!(lines, ["a\n", "b\n", "c\n", "d\n", "\n", "e\n"], "{n_bytes}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_one_line_all_the_same() {
        let text = [vec![b'x'; 3 * LINE_BYTES_MAX], b"\ny".to_vec()].concat();
        let (mut bytes, mut line) = (BufReader::new(&text[..]), Vec::new());
        assert!(read_line(&mut bytes, &mut line).unwrap());
        assert_eq!(line.len(), LINE_BYTES_MAX + 2);
        assert!(read_line(&mut bytes, &mut line).unwrap());
        assert_eq!(line, b"y\n");
        assert!(!read_line(&mut bytes, &mut line).unwrap());
    }
}
