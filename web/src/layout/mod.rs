//! What all pages share: their layout, and the files that they load.

pub(crate) mod assets;
pub(crate) mod page;
