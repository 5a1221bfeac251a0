//! Models under the data root: the registry of artefacts with the champion, how well a model does,
//! and the cards that pages show.

pub mod cards;
pub mod evaluation;
pub mod registry;
