//! Lines of a text, of any system: they end with a line feed, a carriage return, or both.

use std::collections::VecDeque;
use std::io::{BufRead, Read, Result};

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

/// A text that is read in blocks of whole lines, or in lines, in turn.
pub struct Blocks<R> {
    /// What was given back or begun, before the rest.
    back: VecDeque<Vec<u8>>,
    /// Bytes of the first of these that were read.
    at: usize,
    rest: R,
}

impl<R: BufRead> Blocks<R> {
    /// Of this text.
    pub fn new(rest: R) -> Self {
        Self { back: VecDeque::new(), at: 0, rest }
    }

    /// The next lines, about `n_bytes` of them; `None` at the end. A line that is too long may come
    /// in parts.
    pub fn next_block(&mut self, n_bytes: usize) -> Result<Option<Vec<u8>>> {
        self.drop_read();
        if self.back.front().is_some_and(|block| block.ends_with(b"\n")) {
            return Ok(self.back.pop_front());
        }
        let mut block = Vec::with_capacity(n_bytes);
        let mut n_wanted = n_bytes;
        while block.len() < n_wanted {
            let buffer = self.fill_buf()?;
            if buffer.is_empty() {
                return Ok(Some(block).filter(|block| !block.is_empty()));
            }
            let n = buffer.len().min(n_wanted - block.len());
            block.extend_from_slice(&buffer[..n]);
            self.consume(n);
            // one line is more than nothing
            if block.len() == n_wanted && !block.contains(&b'\n') {
                n_wanted = (2 * n_wanted).min(n_bytes.max(LINE_BYTES_MAX + 2));
            }
        }
        if let Some(end) = memchr::memrchr(b'\n', &block) {
            self.drop_read();
            self.back.push_front(block.split_off(end + 1));
        }
        Ok(Some(block))
    }

    /// Drops what was read of the first block that was given back.
    fn drop_read(&mut self) {
        if let Some(block) = self.back.front_mut() {
            block.drain(..self.at);
            self.at = 0;
        }
    }

    /// Gives back blocks that were read last.
    pub fn give_back(&mut self, blocks: impl DoubleEndedIterator<Item = Vec<u8>>) {
        self.drop_read();
        blocks.rev().for_each(|block| self.back.push_front(block));
    }
}

impl<R: BufRead> Read for Blocks<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let mut buffer = self.fill_buf()?;
        let n = buffer.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Blocks<R> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        while self.back.front().is_some_and(|block| block.len() == self.at) {
            self.back.pop_front();
            self.at = 0;
        }
        match self.back.front() {
            Some(block) => Ok(&block[self.at..]),
            None => self.rest.fill_buf(),
        }
    }

    fn consume(&mut self, n: usize) {
        match self.back.is_empty() {
            true => self.rest.consume(n),
            false => self.at += n,
        }
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
