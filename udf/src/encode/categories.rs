//! Categories of a feature: how the index of a text is found fast.

use std::collections::HashMap;

use crate::train::sampling::GOLDEN;

/// Finds the index of a category. Airport codes, carriers and routes fit into eight bytes, which
/// are compared as one number.
#[derive(Debug)]
pub(crate) struct CategoryEncoder {
    /// Open addressing; the key 0 marks a free slot.
    slots: Vec<(u64, u16)>,
    shift: u32,
    long: HashMap<String, u16>,
}

impl CategoryEncoder {
    pub(crate) fn new(categories: &[String]) -> Self {
        let n_slots = (categories.len() * 2).next_power_of_two().max(16);
        let shift = 64 - n_slots.trailing_zeros();
        let mut encoder = Self { slots: vec![(0, 0); n_slots], shift, long: HashMap::new() };
        for (i, category) in categories.iter().enumerate() {
            let index = i as u16 + 1;
            match short_key_of(category) {
                Some(key) => {
                    let mut slot = encoder.slot(key);
                    while encoder.slots[slot].0 != 0 {
                        slot = (slot + 1) % n_slots;
                    }
                    encoder.slots[slot] = (key, index);
                }
                None => _ = encoder.long.insert(category.clone(), index),
            }
        }
        encoder
    }

    #[inline]
    fn slot(&self, key: u64) -> usize {
        (key.wrapping_mul(GOLDEN) >> self.shift) as usize
    }

    #[inline]
    pub(crate) fn index_of_key(&self, key: u64) -> u16 {
        let mut slot = self.slot(key);
        // ends: at most half of the slots are taken
        loop {
            match self.slots[slot] {
                (k, index) if k == key => return index,
                (0, _) => return 0,
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }

    pub(crate) fn index_of_long(&self, value: &str) -> u16 {
        self.long.get(value).copied().unwrap_or(0)
    }
}

/// The bytes of a text of 1 to 8 bytes, zero-padded, from its Arrow string view. Texts that end
/// in a NUL would be ambiguous and count as long.
#[inline]
pub(crate) fn short_key(view: u128) -> Option<u64> {
    let length = view as u32;
    let key = (view >> 32) as u64;
    let fits = (1..=8).contains(&length) && (key >> (8 * (length - 1))) != 0;
    fits.then_some(key)
}

fn short_key_of(text: &str) -> Option<u64> {
    let mut bytes = [0; 16];
    let length = u32::try_from(text.len()).ok().filter(|l| *l <= 8)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..4 + text.len()].copy_from_slice(text.as_bytes());
    short_key(u128::from_le_bytes(bytes))
}
